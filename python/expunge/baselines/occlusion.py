"""Occlusion: features are not shown to a model that was trained with them."""

from __future__ import annotations

from ..engine.state import Staged
from ..requests import RevokeFeatures
from .base import Solution, Strategy


class Occlusion(Strategy):
    """Revoked features count as 0 in every prediction; nothing is trained.

    Parameters
    ----------
    model, X, y, sample_weight : as of :class:`expunge.Unlearner`

    Attributes
    ----------
    name : "occlusion"

    Notes
    -----
    The source paper's "no update" for features (Warnecke et al. 2023). Their coefficients are dropped, which
    for a linear model is the same; what the others learnt from them stays. No pass.

    Examples
    --------
    >>> import numpy as np
    >>> import expunge as ex
    >>> from expunge.baselines import Occlusion
    >>> X, y = np.array([[0.0, 1.0], [1.0, 0.0], [3.0, 1.0]]), [0.0, 1.0, 2.0]
    >>> occluded = Occlusion(ex.Ridge().fit(X, y), X, y)
    >>> zeroed = occluded.model.predict(X * [1.0, 0.0])
    >>> occluded.apply(ex.RevokeFeatures([1])).passes
    0
    >>> abs(occluded.model.predict(X[:, :1]) - zeroed).max() < 1e-12
    np.True_
    """

    name = "occlusion"
    accepts = (RevokeFeatures,)
    because = "what a row has left in theta cannot be hidden at prediction"

    def _choose(self, staged: Staged) -> Solution:
        problem, data, columns = self._engine.problem, self._engine.data, staged.columns
        shift = None if data.shift is None else data.shift[columns]
        over_x = problem.moved(self._engine.state.theta, shift, None)  # where 0 is 0
        return Solution(problem.moved(staged.left_of(over_x), None, data.surviving_shift()), 0)
