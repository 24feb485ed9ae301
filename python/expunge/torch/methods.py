"""The methods that make J on the corrected data smaller, each as its equation says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import cos, inf, isfinite, pi
from time import perf_counter
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .._arrays import Index
from ..errors import ConvergenceError
from .objective import Curvature, Objective, Proximal, Total
from .solvers import Solution, conjugate_gradients, exact, lissa

__all__ = ["Damping", "Found", "How", "Training", "fine_tune", "first_order", "proximal", "second_order"]

Damping = float | Literal["auto"]
_SEARCHES = 30  # halvings of a step before it is given up
_SOLVED = 0.1  # relative residual, at most, of a system that says that there is nothing to gain
_RATIO = 0.25  # of the fall to the fall that the quadratic model says: below it, damping rises


@dataclass
class Found:
    """Where a method ended, and how."""

    theta: Tensor
    before: float
    fall: float  # which may be less than the digits of `before` show
    gradient_before: float | None = None
    gradient_after: float | None = None
    steps: int = 1
    cg_residual: float | None = None
    damping: float | None = None
    tau: float | None = None
    rank: float | None = None
    nothing: bool = False  # to gain that could be seen: theta stays, and that is no failure
    notes: list[str] = field(default_factory=list)  # what the reader of an Update is to know of it

    @property
    def after(self) -> float:
        """The objective at theta."""
        return self.before - self.fall


_UNSEEN = "all that a step could gain is within the rounding of the objective: the module stays as it is"
_BY_GRADIENTS = (
    "the fall is within the rounding of the objective, and was found from the gradients before and after"
)


class _Start:
    """Where a step begins, and by how much the objective falls by it."""

    def __init__(self, objective: Objective, theta: Tensor) -> None:
        self.objective, self.theta = objective, theta
        self.value, self.gradient = objective.value_and_gradient(theta)
        self.norm = float(self.gradient.norm())
        if not isfinite(self.value + self.norm):
            raise ConvergenceError(
                f"the objective is {self.value:g} and the norm of its gradient {self.norm:g} where the step "
                "begins: look for rows whose loss is not finite. Nothing was changed"
            )
        self.rounding = 8.0 * float(torch.finfo(theta.dtype).eps) * abs(self.value)

    def fall(self, step: Tensor) -> float:
        """By how much the objective falls from theta to theta + step.

        Where rounding hides that, the gradients at both ends tell it: ``-½ (g + g')ᵀ step``, the trapezoidal
        rule.
        """
        fall = self.value - self.objective.value(self.theta + step)
        if not self.hidden(fall):
            return fall
        _, gradient = self.objective.value_and_gradient(self.theta + step)
        return -0.5 * float((self.gradient + gradient).double() @ step.double())

    def hidden(self, fall: float) -> bool:
        """Whether rounding may hide such a fall, and gradients tell it.

        Those are of fixed running means, and tell nothing of an objective where they move with theta.
        """
        return abs(fall) <= self.rounding and self.objective.losses.normalised is None

    def flat(self, step: Tensor) -> bool:
        """Whether the gradient is rounding.

        Its step changes no digit of theta, or no step of the length of theta could gain what is seen.
        """
        length = max(float(self.theta.norm()), 1.0)
        return torch.equal(self.theta + step, self.theta) or self.norm * length <= self.rounding

    def stays(self) -> Found:
        """Where there is nothing to gain."""
        found = Found(self.theta, self.value, 0.0, self.norm, self.norm, steps=0, nothing=True)
        found.notes.append(_UNSEEN)
        return found


def first_order(objective: Objective, theta: Tensor, tau: float | None) -> Found:
    """``theta - tau g`` (E4), g the gradient on all corrected rows.

    tau is the best of powers of 2, begun where a quadratic through J, its slope and one trial has its
    minimum.
    """
    start = _Start(objective, theta)
    g = start.gradient
    if start.norm == 0.0:
        return start.stays()
    if tau is None:
        tau, fall = _line_search(start)
    else:
        fall = start.fall(-tau * g)
    if start.flat(tau * g) or (fall == 0.0 and tau * start.norm**2 <= start.rounding):
        return start.stays()
    theta = theta - tau * g
    end = float(objective.value_and_gradient(theta)[1].norm())
    found = Found(theta, start.value, fall, start.norm, end, tau=tau)
    if start.hidden(fall):
        found.notes.append(_BY_GRADIENTS)
    return found


def _line_search(start: _Start) -> tuple[float, float]:
    """A step size by which the objective falls about as much as by any, and by how much."""
    slope = start.norm**2

    def fall(tau: float) -> float:
        return start.fall(-tau * start.gradient)

    best = tau = 1.0 / start.norm  # a step of length 1
    trial = fall(tau)
    for _ in range(_SEARCHES):
        curved = tau * slope - trial  # ½ curvature tau²
        if not isfinite(curved):
            tau /= 8.0
        elif curved <= 1e-3 * tau * slope:
            tau *= 2.0 if trial > 0.0 else 0.125
        else:
            best = 0.5 * slope * tau**2 / curved
            if best >= tau / 64.0:
                break
            tau = max(2.0 * best, tau / 1024.0)  # from so far the quadratic tells little
        best, trial = tau, fall(tau)
    gained = fall(best)
    for _ in range(_SEARCHES):
        if gained > 0.0 or start.flat(best * start.gradient):
            break
        best *= 0.5
        gained = fall(best)
    for factor in (0.5, 2.0):
        while (there := fall(best * factor)) > gained > 0.0:
            best, gained = best * factor, there
    return best, gained


@dataclass(frozen=True)
class How:
    """What a second-order update is made with. `exact` forms H, by as many products as it has rows."""

    steps: int
    curvature: Curvature
    solver: Literal["cg", "lissa", "exact"]
    iterations: int
    tolerance: float
    damping: Damping


@dataclass
class _Step:
    """A step that was looked for; `move` is None where none makes the objective smaller."""

    move: Tensor | None
    fall: float
    ratio: float  # of the fall to the one that the quadratic model says
    damping: float
    solution: Solution
    halved: int = 0
    nothing: bool = False  # to gain that could be seen


def second_order(objective: Objective, theta: Tensor, how: How) -> Found:
    """``theta - (H + damping)^-1 g`` (E5), several times.

    A step is whole where J falls by it as the quadratic model says, to a quarter at least; else it is halved
    while that makes J smaller, and damping rises (Levenberg and Marquardt).
    """
    damping = 0.0 if how.damping == "auto" else float(how.damping)
    start = _Start(objective, theta)
    found = Found(theta, start.value, 0.0, start.norm, start.norm, 0, None, damping)
    halved, hidden = 0, False
    for _ in range(how.steps):
        step = _step(start, damping, how)
        found.cg_residual, found.damping = step.solution.residual, step.damping
        if step.move is None:
            found.nothing = step.nothing and found.steps == 0
            if found.nothing:
                _check_curvature(start, step.solution)
            break
        halved, hidden = halved + step.halved, hidden or start.hidden(step.fall)
        if how.damping == "auto":
            damping = _adapted(step)
        start = _Start(objective, start.theta + step.move)
        found.theta, found.gradient_after = start.theta, start.norm
        found.fall += step.fall
        found.steps += 1
    if halved:
        found.notes.append(
            f"halvings of steps: {halved}, as the objective rose by whole ones, or fell by less than a "
            "quarter of what the quadratic model says"
        )
    if hidden or found.nothing:
        found.notes.append(_BY_GRADIENTS if hidden else _UNSEEN)
    return found


def _step(start: _Start, damping: float, how: How) -> _Step:
    """From here, with so much damping or more."""
    solved = _solver(start, how)
    for _ in range(8):
        solution = solved(damping)
        predicted = solution.model_fall
        if solution.negative and how.damping == "auto":
            damping = _raised(damping, solution)
            continue
        if start.flat(solution.x):
            return _Step(None, 0.0, 1.0, damping, solution, nothing=True)
        fall = start.fall(solution.x)
        if not fall > 0.0 and 0.0 <= predicted <= start.rounding and solution.residual <= _SOLVED:
            return _Step(None, 0.0, 1.0, damping, solution, nothing=True)
        ratio = fall / (predicted or inf)
        move, halved = solution.x, 0
        while halved < 10 and not fall > 0.0:
            move, halved = 0.5 * move, halved + 1
            fall = start.fall(move)
        while ratio < _RATIO and (there := start.fall(0.5 * move)) > fall:
            move, halved, fall = 0.5 * move, halved + 1, there
        if fall > 0.0:
            return _Step(move, fall, ratio, damping, solution, halved)
        if how.damping != "auto":
            break
        damping = _raised(damping, solution)
    return _Step(None, 0.0, 0.0, damping, solution)


def _check_curvature(start: _Start, solution: Solution) -> None:
    """ConvergenceError where the step is nothing, though the gradient is something: H has nothing there."""
    if solution.residual > _SOLVED and not start.flat(start.gradient):
        raise ConvergenceError(
            "the loss has no curvature along its gradient, as one that is linear in the outputs has none: "
            "there is no second-order step. Take method='first_order' or 'fine_tune', or alpha > 0. Nothing "
            "was changed"
        )


def _solver(start: _Start, how: How) -> Callable[[float], Solution]:
    """What solves ``(H + damping) x = -g`` for a damping."""
    theta, g = start.theta, start.gradient

    def products(V: Tensor) -> Tensor:
        found = start.objective.products(theta, V, how.curvature)
        if not bool(torch.isfinite(found).all()):
            raise ConvergenceError("second derivatives of the loss are NaN or infinite. Nothing was changed")
        return found

    if how.solver == "exact":
        identity = torch.eye(g.numel(), dtype=g.dtype, device=g.device)
        H = products(identity)
        return lambda damping: exact(H + damping * identity, -g)
    solve = conjugate_gradients if how.solver == "cg" else lissa
    return lambda damping: solve(
        lambda v: products(v[None])[0] + damping * v, -g, how.tolerance, how.iterations
    )


def _raised(damping: float, solution: Solution) -> float:
    return max(10.0 * damping, 1e-2 * solution.curvature)


def _adapted(step: _Step) -> float:
    """The damping that the next step begins with."""
    if step.ratio < _RATIO:
        return _raised(step.damping, step.solution)
    return step.damping / 4.0 if step.ratio > 0.75 else step.damping


def proximal(objective: Proximal, theta: Tensor, steps: int, lr: float | None) -> Found:
    """Adam on the proximal Bregman objective, a batch of touched rows and one of others at each step.

    Where no rate was asked for and the objective does not fall, a tenth is tried.
    """
    before = objective.value(theta)
    found = Found(theta, before, 0.0, steps=0)
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
        found.theta, found.fall = w.detach(), before - objective.value(w.detach())
        if found.fall > 0.0:
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
    for lr in [1e-2, 1e-3, 1e-4] if how.lr is None else [how.lr]:
        left = inf if how.seconds is None else how.seconds - (perf_counter() - begun) - 1.25 * looks
        if left <= 0.0:
            break
        w, steps = _trained(total, theta, lr, left, how, generator)
        taken, after = taken + steps, total.value(w)
        if after < before:
            break
    return Found(w, before, before - after, steps=taken)


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
