"""The Hessian of the data before a request, which the influence function takes (E5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import _core
from .._arrays import Float
from .products import Products
from .state import Staged

if TYPE_CHECKING:
    from .attached import Attached


def hessian_here(engine: Attached) -> _core.Anchor | Float:
    """H of the data as they are, at the model's theta: factored, or the curvature of its rows."""
    theta, anchor = engine.state.theta, engine.state.anchor
    objective = engine.objective()
    if engine.block(objective, theta.size) is not None:
        return objective.curvature(theta)
    if anchor is not None and engine.state.hessian_is_current and engine.is_hessian_at(theta, anchor):
        return anchor
    return _core.Anchor(objective, theta)


def original_hessian(engine: Attached, staged: Staged) -> _core.Anchor | Products:
    """What :func:`hessian_here` was before the request, in a form that solves."""
    original, data, theta = staged.original, engine.data, engine.state.theta
    if isinstance(original, _core.Anchor):
        return original
    assert original is not None
    stored, blocks = data.stored_columns(staged.columns), data.blocks()
    objective = engine.problem.objective(
        blocks, staged.columns, stored=stored, noisy=False, shift=data.stored_shift
    )
    rows = sum(X.shape[0] for X, _, _ in blocks)
    curvature = np.append(original, np.zeros(rows - original.size))  # rows that the request added
    anchor = engine.state.anchor
    if anchor is None:
        anchor = _core.Anchor(objective, theta, engine.block(objective, theta.size))
    return engine.products(objective, curvature, anchor)
