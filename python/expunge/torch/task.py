"""One request under way: which method serves it, and what is to be written where that has succeeded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from .._numbers import as_number
from ..errors import ConvergenceError
from .data import Batch, rows_of
from .edits import Edited
from .forget import Forgetting, Indifference, forget
from .methods import Damping, Found, How, Training, fine_tune, first_order, proximal, second_order
from .module import Function
from .objective import Curvature, Losses, Penalty, Proximal, Total
from .passages import Passages, correct, passages
from .update import Update

__all__ = ["Method", "Options", "Task"]

Method = Literal["auto", "first_order", "second_order", "proximal", "forget", "fine_tune"]
Solver = Literal["cg", "lissa"]
_OPTIONS = {  # auto takes what any method takes that it may choose
    "steps": ("second_order", "proximal", "forget", "auto"),
    "tau": ("first_order",),
    "sample": ("second_order", "proximal", "auto"),
    "iterations": ("second_order", "auto"),
    "epochs": ("fine_tune", "auto"),
    "seconds": ("fine_tune", "auto"),
    "lr": ("proximal", "forget", "fine_tune", "auto"),
}
_SMALL = 1000  # parameters: in float64 H is formed then
_FEW = 0.05  # of the rows: above it fine-tuning is nearer to retraining than proximal steps of equal time
_SAMPLE = 1024  # rows beside the touched ones,
_SHARE = 8  # or n over this where that is fewer: else an epoch would be quicker,
_LEAST = 32  # but as many as this
_PROXIMAL_BATCH = 512
_RISE = 0.02  # of J, at most, by proximal steps
_FOUND_ANEW = (
    "running means and variances that were found anew",
    "freeze the BatchNorm to keep those that the module has (eval mode while the module is in train mode)",
)
_NORMALISED = 8192  # rows that running means and variances are found from
_BATCHES = 64  # of an epoch, where nobody says how large they are


@dataclass(frozen=True)
class Options:
    """What `apply` was asked for, checked."""

    method: Method
    damping: Damping
    steps: int | None
    tau: float | None
    sample: int | None
    curvature: Curvature
    solver: Solver
    iterations: int | None
    epochs: float | None
    seconds: float | None
    lr: float | None

    def __post_init__(self) -> None:
        for name, known in (("method", Method), ("curvature", Curvature), ("solver", Solver)):
            if getattr(self, name) not in get_args(known):
                raise ValueError(
                    f"unknown {name} {getattr(self, name)!r}: choose one of {', '.join(get_args(known))}"
                )
        for name in ("steps", "sample", "iterations"):
            whole(getattr(self, name), name)
        for name in ("tau", "epochs", "seconds", "lr"):
            if getattr(self, name) is not None:
                as_number(getattr(self, name), name, above=0.0)
        for name, methods in _OPTIONS.items():
            if getattr(self, name) is not None and self.method not in methods:
                raise ValueError(f"{name} is no option of {self.method}, but of {' and '.join(methods)}")


def whole(value: Any, name: str) -> int | None:
    """A whole number > 0, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a whole number > 0, got {value!r}")
    return int(value)


class Task:
    """A request under way."""

    def __init__(
        self,
        function: Function,
        losses: Losses,
        penalty: Penalty,
        staged: Edited,
        batch_size: int | None,
        seed: int,
    ) -> None:
        self._function, self._losses, self._penalty, self._staged = function, losses, penalty, staged
        self._batch_size = batch_size or min(max(len(staged.after) // _BATCHES, 32), 256)
        self._seed = seed
        self._generator = np.random.default_rng(seed)
        self._theta = function.theta
        losses.normalised = self._rows_to_normalise if function.normalises else None
        self.written: Tensor | None = None  # theta to be written, with the buffers of the function
        self._secret: Passages | None = None
        if staged.secrets:
            self._secret = passages(function, self._theta, staged.before, staged.secrets, seed)
            values = self._secret.drawn_anew(len(staged.secrets), torch.Generator().manual_seed(seed))
            staged.after = correct(staged.after, staged.secrets, self._secret, values)

    def update(self, options: Options) -> Update:
        """What the method did; the module is written by :meth:`Function.write`."""
        if options.method != "auto":
            return self._by(options.method, "asked for", options)
        if self._is_empty:
            return self._untouched()
        method, why = self._chosen()
        if method != "proximal":
            return self._by(method, why, options)
        try:
            return self._by(method, why, options)
        except ConvergenceError:
            return self._by("fine_tune", f"{why}; but it did not make its objective smaller", options)

    @property
    def _is_empty(self) -> bool:
        staged = self._staged
        return not staged.touched and staged.rows is not None and not staged.secrets

    def _untouched(self) -> Update:
        """What auto does where no row is touched."""
        objective, kind = self._objective("second_order", None)
        value = objective.value(self._theta)
        return Update("second_order", "no row is touched: there is nothing to do", kind, *4 * (value,))

    def _chosen(self) -> tuple[Method, str]:
        """The method that auto takes, and why."""
        n, touched = len(self._staged.before), self._staged.touched
        if self._staged.secrets:
            return "forget", "values are to be forgotten, about which corrected rows tell nothing"
        if self._exact:
            return (
                "second_order",
                f"float64 and {self._theta.numel()} parameters: H is solved with to the end",
            )
        if self._staged.rows is None:
            return "fine_tune", "columns were revoked: every row may be touched"
        share = f"{touched} of {n} rows are touched, {touched / n:.2%}"
        if touched > _FEW * n:
            return (
                "fine_tune",
                f"{share}: above {_FEW:.0%} it is nearer to retraining than other methods in equal time",
            )
        return "proximal", f"{share}: up to {_FEW:.0%} steps that follow these rows alone are quickest"

    @property
    def _exact(self) -> bool:
        return bool(self._theta.dtype == torch.float64 and self._theta.numel() <= _SMALL)

    def _by(self, method: Method, why: str, options: Options) -> Update:
        """By a method. Where its objective does not fall, ConvergenceError and nothing has changed."""
        function, sample = self._function, options.sample
        if method == "proximal" and sample is None:
            sample = min(_SAMPLE, max(len(self._staged.before) // _SHARE, _LEAST))
        if method == "forget" and (self._secret is None or self._staged.mixed):
            raise ValueError(
                "forget is for ForgetValues: apply these by themselves, and the others before or after"
            )
        objective, kind = self._objective(method, sample)
        handed_over = None
        if function.normalises:
            with self._losses.as_handed_over():
                handed_over = objective.loss(self._theta)
        loss = None if kind == "J" else objective.loss(self._theta)
        found = self._found(method, objective, options, sample)
        before, theta, fall = found.before, function.rounded(found.theta), found.fall
        if not found.nothing:
            if function.normalises or not torch.equal(theta, found.theta):
                fall = before - objective.value(theta)  # which finds buffers too
            _check_fall(method, before, fall)
        after = before - fall
        losses = (before, after) if loss is None else (loss, objective.loss(theta))
        if method == "proximal":
            _check_rise(*losses, _RISE, "proximal", "give it a larger sample or fewer steps")
        if handed_over is not None and not found.nothing:
            allowed = Forgetting.loss - 1.0 if method == "forget" else _RISE
            _check_rise(handed_over, min(losses), allowed, *_FOUND_ANEW)
            losses = handed_over, losses[1]
        self.written = None if found.nothing else theta
        return Update(
            method,
            "; ".join([why, *found.notes]),
            kind,
            before,
            after,
            loss_before=None if method == "forget" else losses[0],
            loss_after=None if method == "forget" else losses[1],
            gradient_before=found.gradient_before,
            gradient_after=found.gradient_after,
            rows_touched=self._staged.touched,
            steps=found.steps,
            cg_residual=found.cg_residual,
            damping=found.damping,
            tau=found.tau,
            rank=found.rank,
        )

    def _objective(self, method: Method, sample: int | None) -> tuple[Total | Proximal | Indifference, str]:
        staged = self._staged
        if method == "forget":
            assert self._secret is not None
            size = staged.after.batch_size
            others = self._others(8 * Forgetting.windows, size)
            if not others:
                raise ValueError(
                    "no other rows are left: forgetting holds the module near what it was on them"
                )
            return Indifference(self._losses, self._secret, others, self._theta, size), "forget"
        if method not in ("second_order", "proximal") or sample is None:
            return Total(self._losses, staged.after, self._penalty), "J"
        size = staged.after.batch_size
        if staged.rows is None:
            rows = staged.after.sample(sample, self._generator)
            scale = len(staged.after) / rows.size
            new, old = (
                [data.batch(part) for part in _parts(rows, size)] for data in (staged.after, staged.before)
            )
            return Proximal(self._losses, self._penalty, self._theta, new, old, [], scale, scale), "proximal"
        touched = self._generator.permutation(sorted(staged.rows))
        size = min(size, _PROXIMAL_BATCH) if method == "proximal" else size
        old = [staged.before.batch(part) for part in _parts(touched, size)]
        new = [staged.after.batch(part) for part in _parts(staged.after.present(touched), size)]
        others = self._others(sample, size)
        drawn = sum(rows_of(batch) for batch in others)
        scale = (len(staged.before) - touched.size) / max(drawn, 1)
        return Proximal(self._losses, self._penalty, self._theta, new, old, others, scale, 1.0), "proximal"

    def _others(self, count: int, size: int) -> list[Batch]:
        """Rows that were not touched."""
        rows = self._staged.after.sample(count, self._generator, self._staged.rows or ())
        return [self._staged.after.batch(part) for part in _parts(self._generator.permutation(rows), size)]

    def _rows_to_normalise(self) -> Iterator[Batch]:
        """Rows that running means and variances are found from: all, or a sample, the same each time."""
        data = self._staged.after
        rows = data.sample(_NORMALISED, np.random.default_rng(self._seed))
        return (data.batch(part) for part in _parts(rows, data.batch_size))

    def _found(self, method: Method, objective: Any, options: Options, sample: int | None) -> Found:
        theta = self._theta
        if method == "first_order":
            return first_order(objective, theta, options.tau)
        if method == "second_order":
            end = self._exact and sample is None
            by_matrix = end and options.solver == "cg" and options.iterations is None
            how = How(
                steps=options.steps or 1,
                curvature=options.curvature,
                solver="exact" if by_matrix else options.solver,
                iterations=options.iterations or (10 * theta.numel() if end else 20),
                tolerance=1e-12 if end else 1e-4,
                damping=options.damping,
            )
            return second_order(objective, theta, how)
        if method == "forget":
            asked = {name: getattr(options, name) for name in ("steps", "lr") if getattr(options, name)}
            return forget(objective, Forgetting(**asked), self._seed)
        if method == "proximal":
            return proximal(objective, theta, options.steps or 20, options.lr)
        epochs = options.epochs or (2.0 if options.seconds is None else inf)
        touched = self._staged.after.present(np.array(sorted(self._staged.rows or ()), dtype=np.int64))
        training = Training(epochs, options.seconds, options.lr, self._batch_size, touched)
        return fine_tune(objective, theta, training, self._generator)


def _check_fall(method: Method, before: float, fall: float) -> None:
    if not fall > 0.0:
        advice = "method='fine_tune' goes on training where a step does not help"
        if method == "fine_tune":
            advice = "give it more epochs or seconds, or another lr"
        raise ConvergenceError(
            f"{method} did not make its objective smaller: {before:.6g} before, {before - fall:.6g} "
            f"after. Nothing was changed; {advice}"
        )


def _check_rise(before: float, after: float, allowed: float, by: str, advice: str) -> None:
    if not after <= before + allowed * abs(before):
        raise ConvergenceError(
            f"{by} made J rise by more than {allowed:.0%}, as the rows that were read show it: {before:.6g} "
            f"before, {after:.6g} after. Nothing was changed; {advice}, or method='fine_tune'"
        )


def _parts(rows: Any, size: int) -> list[Any]:
    return [rows[first : first + size] for first in range(0, len(rows), size)]
