"""Solving with a curvature: a matrix where it is small, or by its products (CG, and the paper's LiSSA)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Solution", "conjugate_gradients", "exact", "lissa"]

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


def exact(H: Tensor, b: Tensor) -> Solution:
    """By the eigenvectors of H, its diagonal scaled to 1, and two steps of refinement.

    So the scales of columns do not matter. Directions without curvature, to rounding, are left out: where H
    is of a loss, b has nothing there but rounding.
    """
    norm = float(b.norm())
    if norm == 0.0:
        return Solution(torch.zeros_like(b), 0.0, False, 0.0, 0.0)
    diagonal = H.diagonal().abs()
    scale = torch.where(diagonal > 0.0, diagonal, 1.0).rsqrt()
    values, vectors = torch.linalg.eigh(0.5 * scale[:, None] * (H + H.T) * scale)
    largest = values.abs().max()
    inverse = torch.where(values > len(b) * torch.finfo(b.dtype).eps * largest, 1.0 / values, 0.0)
    x, left = torch.zeros_like(b), b
    for _ in range(3):
        x = x + scale * (vectors @ (inverse * (vectors.T @ (scale * left))))
        left = b - H @ x
    negative = bool(values[0] < -1e-10 * largest)
    curvature = abs(float(b @ (H @ b))) / norm**2
    return Solution(x, float(left.norm()) / norm, negative, curvature, 0.5 * float(x @ (b + left)))


def conjugate_gradients(product: Product, b: Tensor, tolerance: float, iterations: int) -> Solution:
    """From 0, to a relative residual or so many products."""
    norm = float(b.norm())
    x, r = torch.zeros_like(b), b.clone()
    if norm == 0.0:
        return Solution(x, 0.0, False, 0.0, 0.0)
    p, rr = r.clone(), float(r @ r)
    negative, curvature = False, 0.0
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
        if rr**0.5 <= tolerance * norm:
            break
        p = r + (rr / last) * p
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
