"""Whether a revoked feature can still be read off a model."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike

from .._arrays import Float


@dataclass(frozen=True)
class Inversion:
    """What an attribute inversion attack finds out.

    Attributes
    ----------
    accuracy : float
        Share of rows whose value was guessed.
    prior : float
        The same of guessing the likeliest value always, without the model.
    z : float
        Their difference in its standard errors, over rows where both guesses differ (McNemar): beyond 2 the
        model tells the attribute.

    Examples
    --------
    >>> import numpy as np
    >>> import expunge as ex
    >>> ex.metrics.inversion(np.zeros((4, 2)), [0, 0, 0, 1])  # the model does not look at the attribute
    Inversion(accuracy=0.75, prior=0.75, z=0.0)
    """

    accuracy: float
    prior: float
    z: float


def inversion(log_likelihoods: ArrayLike, values: ArrayLike, *, prior: ArrayLike | None = None) -> Inversion:
    """Attribute inversion (Fredrikson et al. 2014) by one who knows rows but for an attribute, and labels.

    Parameters
    ----------
    log_likelihoods : (n, V) array
        ``log p(y_i | x_i)`` of the model with value v in the attribute's place, for each value v. A model
        whose feature was revoked gives equal columns.
    values : (n,) array of int
        Which value each row truly has, from 0 to V - 1.
    prior : (V,) array, optional
        How frequent values are, known to the attacker; by default as in `values`.

    Returns
    -------
    Inversion

    Raises
    ------
    ValueError
        Shapes that do not match, values outside of 0 to V - 1, NaN, a prior that is not positive somewhere.

    Examples
    --------
    >>> import numpy as np
    >>> import expunge as ex
    >>> told = np.log([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]])
    >>> ex.metrics.inversion(told, [0, 0, 1]).accuracy
    1.0
    """
    likelihoods, truth = np.asarray(log_likelihoods, dtype=np.float64), np.asarray(values)
    if likelihoods.ndim != 2 or likelihoods.size == 0:
        raise ValueError(
            f"log_likelihoods has shape {likelihoods.shape}, expected (n, V): a column for each value"
        )
    n, V = likelihoods.shape
    if np.isnan(likelihoods).any():
        raise ValueError("log_likelihoods contains NaN")
    if truth.shape != (n,) or truth.dtype.kind not in "iu" or truth.min() < 0 or truth.max() >= V:
        raise ValueError(f"values must be ({n},) integers from 0 to {V - 1}, one for each row")
    share = _share(np.bincount(truth, minlength=V) if prior is None else prior, V)
    with np.errstate(divide="ignore"):
        guesses = np.argmax(likelihoods + np.log(share), axis=1)
    guessed, blindly = guesses == truth, truth == np.argmax(share)
    gained, lost = np.sum(guessed & ~blindly), np.sum(blindly & ~guessed)
    z = float(gained - lost) / sqrt(gained + lost) if gained + lost else 0.0
    return Inversion(float(guessed.mean()), float(blindly.mean()), z)


def _share(prior: ArrayLike, V: int) -> Float:
    share: Float = np.asarray(prior, dtype=np.float64)
    if share.shape != (V,) or not (share >= 0.0).all() or not share.sum() > 0.0:
        raise ValueError(f"prior must be ({V},) frequencies, not negative, and positive somewhere")
    frequencies: Float = share / share.sum()
    return frequencies
