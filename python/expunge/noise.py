"""Gaussian noise: where it is drawn, and what is kept of it.

A certificate is worth as much as the secrecy of its noise. It comes from the operating system, and the noise
of an objective (E15) is shown by no repr and carried by no pickle.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from ._arrays import Float
from .errors import CertificateError

__all__ = ["Noise", "check_random_state", "standard_normal", "uniform"]


def check_random_state(random_state: Any) -> int | None:
    """None, for the operating system's randomness, or an integer >= 0, for tests; else an error."""
    if random_state is None:
        return None
    if isinstance(random_state, Integral) and not isinstance(random_state, bool) and int(random_state) >= 0:
        return int(random_state)
    raise ValueError(
        f"random_state must be None, for noise from the operating system, or an integer >= 0, for tests; got "
        f"{random_state!r}"
    )


def uniform(size: int, random_state: int | Sequence[int] | None = None) -> Float:
    """Independent numbers (size,) at the middles of 2**52 equal cells of (0, 1)."""
    if random_state is None:
        bits = np.frombuffer(os.urandom(8 * size), dtype=np.uint64)
    else:
        bits = np.random.default_rng(random_state).integers(0, 2**64, size, dtype=np.uint64)
    return (np.right_shift(bits, 12).astype(np.float64) + 0.5) * 2.0**-52


def standard_normal(size: int, random_state: int | Sequence[int] | None = None) -> Float:
    """Independent N(0, 1) numbers (size,), by the inverse of their distribution: none beyond 8.3."""
    values: Float = ndtri(uniform(size, random_state))
    return values


@dataclass(frozen=True, repr=False, eq=False)
class Noise:
    """The b of E1, N(0, sigma^2) for each feature, and none for the intercept.

    Attributes
    ----------
    sigma : float
    random_state : int or None
        Where b can be drawn again by anyone: a seed, for tests.
    draws : int
        How many b this seed has given before.
    b : (d,) array or None
        None once it has been through a pickle.
    """

    sigma: float
    random_state: int | None
    draws: int
    b: Float | None

    @classmethod
    def drawn(cls, sigma: float, d: int, random_state: int | None, draws: int = 0) -> Self:
        """Fresh noise for d features."""
        seed = None if random_state is None else (random_state, 1 + draws)
        return cls(sigma, random_state, draws, sigma * standard_normal(d, seed))

    def again(self) -> Self:
        """Fresh noise in its place."""
        return self.drawn(self.sigma, self.values.size, self.random_state, self.draws + 1)

    @property
    def values(self) -> Float:
        """The values of b (d,).

        Raises
        ------
        CertificateError
            They are lost.
        """
        if self.b is None:
            raise CertificateError(
                "the noise that this model was trained with is lost (pickles and files do not carry it), and "
                "with it the objective: fit the model again, or save its Unlearner with include_noise=True"
            )
        return self.b

    def of(self, kept: NDArray[np.bool_]) -> Self:
        """That of some features."""
        return replace(self, b=None if self.b is None else self.b[kept])

    def without(self, gone: NDArray[np.bool_]) -> Self:
        """The same, without a trace of the noise of some features."""
        return replace(self, b=None if self.b is None else np.where(gone, 0.0, self.b))

    def spread(self, kept: NDArray[np.bool_]) -> Self:
        """The same over more features, of which these are `kept`; zeros for the others."""
        if self.b is None:
            return self
        b = np.zeros(kept.size)
        b[kept] = self.b
        return replace(self, b=b)

    def lost(self) -> Self:
        """What a pickle keeps of it."""
        return replace(self, b=None)

    def __repr__(self) -> str:
        return f"Noise(sigma={self.sigma}, {'lost' if self.b is None else 'held'})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.sigma, self.random_state, self.draws, None)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self
