"""Solving with a curvature known by its products: conjugate gradients, and LiSSA as the paper has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Solution", "conjugate_gradients", "lissa"]

Product = Callable[[Tensor], Tensor]


class Solution(NamedTuple):
    """Of ``H x = b``.

    Attributes
    ----------
    x : (p,) tensor
    residual : float
        ``|b - H x| / |b|``
    negative : bool
        Whether a direction of negative curvature was met.
    curvature : float
        ``bᵀ H b / bᵀ b``, or an upper bound of it: the scale of damping.
    model_fall : float
        By how much the quadratic model falls, ``bᵀ x - ½ xᵀ H x``.
    """

    x: Tensor
    residual: float
    negative: bool
    curvature: float
    model_fall: float


def conjugate_gradients(product: Product, b: Tensor, tolerance: float, iterations: int) -> Solution:
    """From 0, to a relative residual or so many products; once more from there if rounding held it up."""
    norm = float(b.norm())
    x, r = torch.zeros_like(b), b.clone()
    if norm == 0.0:
        return Solution(x, 0.0, False, 0.0, 0.0)
    p, rr = r.clone(), float(r @ r)
    negative, curvature, since = False, 0.0, 0
    best, least = x, norm
    for iteration in range(iterations):
        Hp = product(p)
        curved = float(p @ Hp)
        if iteration == 0:
            curvature = abs(curved) / rr
        if not curved > 1e-14 * curvature * float(p @ p):
            negative = curved < -1e-10 * curvature * float(p @ p)
            break
        step = rr / curved
        x, r = x + step * p, r - step * Hp
        last, rr = rr, float(r @ r)
        since = since + 1
        if rr**0.5 < least:
            best, least = x, rr**0.5
        if rr**0.5 <= tolerance * norm:
            if since == iteration + 1 and tolerance < 1e-8:  # what the recurrence lost
                r = b - product(x)
                rr, since = float(r @ r), -iterations
                if rr**0.5 <= tolerance * norm:
                    break
                p = r.clone()
                continue
            break
        p = r + (rr / last) * p
    x = best if tolerance < 1e-8 else x  # the model falls with every step, the residual need not
    left = b - product(x)
    return Solution(x, float(left.norm()) / norm, negative, curvature, 0.5 * float(x @ (b + left)))


def lissa(product: Product, b: Tensor, tolerance: float, iterations: int) -> Solution:
    """``x <- x + (b - H x) / s``, as in the paper; s is the largest eigenvalue, by power iteration."""
    norm = float(b.norm())
    if norm == 0.0:
        return Solution(torch.zeros_like(b), 0.0, False, 0.0, 0.0)
    v, largest = b / norm, 0.0
    for _ in range(max(5, iterations // 4)):
        Hv = product(v)
        largest = float(Hv.norm())
        if largest == 0.0:
            break
        v = Hv / largest
    x, left = torch.zeros_like(b), b
    scale = 1.1 * largest or 1.0
    least = float(b.norm())
    for _ in range(iterations):
        moved = x + left / scale
        then = b - product(moved)
        if not float(then.norm()) < least:  # a direction of negative curvature grows
            break
        x, left, least = moved, then, float(then.norm())
        if least <= tolerance * norm:
            break
    return Solution(x, least / norm, False, largest, 0.5 * float(x @ (b + left)))
