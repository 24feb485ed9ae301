"""The methods that make J on the corrected data smaller, each as its equation says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, inf, isfinite, pi
from time import perf_counter
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .._arrays import Index
from .objective import Curvature, Objective, Proximal, Total
from .solvers import Solution, conjugate_gradients, lissa

__all__ = ["Damping", "Found", "How", "Training", "fine_tune", "first_order", "proximal", "second_order"]

Damping = float | Literal["auto"]
_SEARCHES = 30  # halvings of a step before it is given up
_RATIO = 0.25  # of the fall to the fall that the quadratic model says: below it, damping rises


@dataclass
class Found:
    """Where a method ended, and how."""

    theta: Tensor
    before: float
    after: float
    gradient_before: float | None = None
    gradient_after: float | None = None
    steps: int = 1
    cg_residual: float | None = None
    damping: float | None = None
    tau: float | None = None
    rank: float | None = None
    nothing: bool = False  # to gain that could be seen: theta stays, and that is no failure


def first_order(objective: Objective, theta: Tensor, tau: float | None) -> Found:
    """``theta - tau g`` (E4), g the gradient on all corrected rows.

    tau is the best of powers of 2, begun where a quadratic through J, its slope and one trial has its
    minimum.
    """
    before, g = objective.value_and_gradient(theta)
    norm = float(g.norm())
    if norm == 0.0:
        return Found(theta, before, before, norm, norm, steps=0, nothing=True)
    if tau is None:
        seen = _rounding(theta, before)
        tau, after = _line_search(lambda t: objective.value(theta - t * g), before, norm, seen)
        if not after < before and tau * norm**2 <= seen:
            return Found(theta, before, before, norm, norm, steps=0, nothing=True)
    else:
        after = objective.value(theta - tau * g)
    theta = theta - tau * g
    end = float(objective.value_and_gradient(theta)[1].norm())
    return Found(theta, before, after, norm, end, tau=tau)


def _rounding(theta: Tensor, value: float) -> float:
    """By how much J has to fall to be seen."""
    return 8.0 * float(torch.finfo(theta.dtype).eps) * abs(value)


def _line_search(
    value: Callable[[float], float], before: float, norm: float, seen: float
) -> tuple[float, float]:
    """A step size that makes the value about as small as any does, and that value."""
    tau = 1.0 / norm  # a step of length 1
    trial = value(tau)
    for _ in range(_SEARCHES):
        if trial < inf and trial - before + tau * norm**2 > 1e-3 * tau * norm**2:
            break
        tau, trial = (2.0 * tau, value(2.0 * tau)) if trial < before else (tau / 8.0, value(tau / 8.0))
    curved = trial - before + tau * norm**2  # ½ curvature tau²
    best = 0.5 * norm**2 * tau**2 / curved if 0.0 < curved < inf else tau
    after = value(best)
    for _ in range(_SEARCHES):
        if after < before or best * norm**2 <= seen:
            break
        best *= 0.5
        after = value(best)
    for factor in (0.5, 2.0):
        while (there := value(best * factor)) < after < before:
            best, after = best * factor, there
    return best, after


@dataclass(frozen=True)
class How:
    """What a second-order update is made with."""

    steps: int
    curvature: Curvature
    solver: Literal["cg", "lissa"]
    iterations: int
    tolerance: float
    damping: Damping


def second_order(objective: Objective, theta: Tensor, how: How) -> Found:
    """``theta - (H + damping)^-1 g`` (E5), several times.

    A step is whole where J falls by it as the quadratic model says, to a quarter at least; else it is halved
    while that makes J smaller, and damping rises (Levenberg and Marquardt).
    """
    auto = how.damping == "auto"
    damping = 0.0 if how.damping == "auto" else float(how.damping)
    value, g = objective.value_and_gradient(theta)
    found = Found(theta, value, value, float(g.norm()), float(g.norm()), 0, None, damping)
    for _ in range(how.steps):
        step, ratio, after, damping, solution = _step(objective, theta, value, g, damping, how)
        found.cg_residual, found.damping = solution.residual, damping
        if step is None:
            found.nothing = found.steps == 0 and ratio == 1.0 and isfinite(value)
            break
        theta = theta + step
        if auto:
            damping = _adapted(damping, ratio, solution)
        value, g = objective.value_and_gradient(theta)
        found.theta, found.after, found.gradient_after = theta, after, float(g.norm())
        found.steps += 1
    return found


def _step(
    objective: Objective, theta: Tensor, value: float, g: Tensor, damping: float, how: How
) -> tuple[Tensor | None, float, float, float, Solution]:
    """A step that makes J smaller, or None; the ratio of falls; J there; the damping that it took."""
    solve = conjugate_gradients if how.solver == "cg" else lissa
    for _ in range(8):

        def product(v: Tensor, extra: float = damping) -> Tensor:
            return objective.product(theta, v, how.curvature) + extra * v

        solution = solve(product, -g, how.tolerance, how.iterations)
        predicted = -solution.model_fall
        if solution.negative and how.damping == "auto":
            damping = _raised(damping, solution)
            continue
        if not predicted < -_rounding(theta, value):
            return None, 1.0, value, damping, solution
        size, after = 1.0, objective.value(theta + solution.x)
        ratio = (after - value) / predicted
        while size > 2.0**-10 and not after < value:
            size *= 0.5
            after = objective.value(theta + size * solution.x)
        while ratio < _RATIO and (there := objective.value(theta + 0.5 * size * solution.x)) < after:
            size, after = 0.5 * size, there
        if after < value:
            return size * solution.x, ratio, after, damping, solution
        if how.damping != "auto":
            break
        damping = _raised(damping, solution)
    return None, 0.0, value, damping, solution


def _raised(damping: float, solution: Solution) -> float:
    return max(10.0 * damping, 1e-2 * solution.curvature)


def _adapted(damping: float, ratio: float, solution: Solution) -> float:
    if ratio < _RATIO:
        return _raised(damping, solution)
    return damping / 4.0 if ratio > 0.75 else damping


def proximal(objective: Proximal, theta: Tensor, steps: int, lr: float | None) -> Found:
    """Adam on the proximal Bregman objective, a batch of touched rows and one of others at each step.

    Where no rate was asked for and the objective does not fall, a tenth is tried.
    """
    before = objective.value(theta)
    found = Found(theta, before, before, steps=0)
    for first in [3e-3, 3e-4] if lr is None else [lr]:
        w = theta.clone().requires_grad_()
        optimiser = torch.optim.Adam([w], lr=first, betas=(0.9, 0.99))
        for step in range(steps):
            optimiser.param_groups[0]["lr"] = first * 0.5 * (1.0 + cos(pi * step / steps))
            if step % (steps // 8 + 1) == 0:
                objective.losses.refresh(w.detach())
            (w.grad,) = torch.autograd.grad(objective.estimate(w, step), w)
            optimiser.step()
        found.steps += steps
        found.theta, found.after = w.detach(), objective.value(w.detach())
        if found.after < before:
            break
    return found


@dataclass(frozen=True)
class Training:
    """How to fine-tune. Where no rate was asked for and J does not fall, lower ones are tried.

    Rows that were touched, of those that are left, come twice as often at first, and as often as others at
    the end: what has to be learnt anew are these.
    """

    epochs: float
    seconds: float | None
    lr: float | None
    batch_size: int
    touched: Index


def fine_tune(total: Total, theta: Tensor, how: Training, generator: np.random.Generator) -> Found:
    """Adam on the corrected rows, its rate falling to 0 along a parabola; ``seconds`` may end it earlier."""
    begun = perf_counter()
    before = total.value(theta)
    looks = perf_counter() - begun
    taken, after, w = 0, before, theta
    for lr in [6e-3, 6e-4, 6e-5] if how.lr is None else [how.lr]:
        left = inf if how.seconds is None else how.seconds - (perf_counter() - begun) - 1.25 * looks
        if left <= 0.0:
            break
        w, steps = _trained(total, theta, lr, left, how, generator)
        taken, after = taken + steps, total.value(w)
        if after < before:
            break
    return Found(w, before, after, steps=taken)


def _trained(
    total: Total, theta: Tensor, lr: float, seconds: float, how: Training, generator: np.random.Generator
) -> tuple[Tensor, int]:
    """Theta after these epochs, or seconds, and how many steps that took."""
    begun, taken = perf_counter(), 0
    w = theta.clone().requires_grad_()
    optimiser = torch.optim.Adam([w], lr=lr)
    epoch = -(-len(total.data) // how.batch_size)
    planned = max(1.0, how.epochs * epoch)
    touched = _MoreOften(how.touched, len(total.data), generator)
    while True:
        for rows in total.data.shuffled(how.batch_size, generator):
            part = max(taken / planned, (perf_counter() - begun) / seconds)
            if part >= 1.0:
                return w.detach(), taken
            optimiser.param_groups[0]["lr"] = lr * (1.0 - part**2)
            if taken % (epoch // 8 + 1) == 0:
                total.losses.refresh(w.detach())
            batch = total.data.batch(touched.within(rows, 1.0 - part))
            (w.grad,) = torch.autograd.grad(total.mean(w, batch), w)
            optimiser.step()
            taken += 1


class _MoreOften:
    """Puts touched rows into batches, in the place of others."""

    def __init__(self, rows: Index, n: int, generator: np.random.Generator) -> None:
        self._rows, self._generator = rows, generator
        share = rows.size / n
        self._share = min(share, 1.0 - share)
        self._order = rows[:0]

    def within(self, batch: Index, part: float) -> Index:
        """The batch with `part` of as many touched rows again as it has by chance."""
        count = int(self._share * part * batch.size + self._generator.random()) if self._share else 0
        while self._order.size < count:
            self._order = np.concatenate([self._order, self._generator.permutation(self._rows)])
        more, self._order = np.split(self._order, [count])
        return np.concatenate([batch[count:], more])
