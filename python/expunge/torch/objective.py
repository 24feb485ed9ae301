"""J over the corrected rows, and the products with its curvature that conjugate gradients need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import zip_longest
from math import fsum
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from .._numbers import as_number
from .data import Batch, Data, joined_inputs, rows_of, shapes_of
from .module import Function

__all__ = ["Curvature", "Objective", "Penalty", "Proximal", "Total"]

Curvature = Literal["ggn", "hessian"]
Loss = Callable[[Tensor, Any], Tensor]
Term = tuple[float, Callable[[Tensor, Batch], Tensor], Batch]  # times this, of outputs, for this batch


class Objective(Protocol):
    """What a method makes smaller."""

    losses: Losses

    def value(self, theta: Tensor) -> float:
        """It."""

    def value_and_gradient(self, theta: Tensor) -> tuple[float, Tensor]:
        """It and its gradient."""

    def products(self, theta: Tensor, V: Tensor, curvature: Curvature) -> Tensor:
        """Its Gauss-Newton matrix or Hessian times each row of V."""


class Penalty:
    """``½ Σ alpha w²`` over theta; alpha is 0 for those named bias, unless a dict of names says otherwise."""

    def __init__(self, function: Function, alpha: float | Mapping[str, float]) -> None:
        if isinstance(alpha, Mapping):
            unknown = set(alpha) - set(function.aliases)
            if unknown:
                raise ValueError(
                    f"alpha names {sorted(unknown)[0]!r}, which is no trained parameter: there are "
                    f"{', '.join(function.aliases)}"
                )
            given = [(function.aliases[name], as_number(value, "alpha")) for name, value in alpha.items()]
            named = dict(given)
            for name, value in given:
                if value != named[name]:
                    raise ValueError(f"alpha is {value:g} and {named[name]:g} for two names of {name}")
            each = [named.get(name, 0.0) for name in function.names]
        else:
            alpha = as_number(alpha, "alpha")
            each = [0.0 if "bias" in name.rpartition(".")[2] else alpha for name in function.names]
        self.alpha = function.per_parameter(each)
        self.any = any(each)

    def value(self, w: Tensor) -> float:
        """At w."""
        return 0.5 * float((self.alpha * w.double() ** 2).sum()) if self.any else 0.0


class Losses:
    """The loss of a module, summed over a batch, and what its derivatives give."""

    def __init__(self, function: Function, loss: Loss) -> None:
        self.function, self._loss = function, loss
        self.normalised: Callable[[], Iterable[Batch]] | None = None  # rows for running means and variances
        self._at: Tensor | None = None

    def refresh(self, theta: Tensor) -> None:
        """Running means and variances become those that the corrected rows have at theta."""
        if self.normalised is not None and theta is not self._at:
            self.function.buffers = self.function.reestimated(theta.detach(), self.normalised())
            self._at = theta

    @contextmanager
    def as_handed_over(self) -> Iterator[None]:
        """With the running means and variances that the module has."""
        rows, self.normalised, self._at = self.normalised, None, None
        self.function.reset()
        try:
            yield
        finally:
            self.normalised = rows

    def of(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Of outputs, summed in float64; ValueError where it is not one value a row."""
        losses = self._loss(outputs, batch.y)
        rows = rows_of(batch)
        if not isinstance(losses, Tensor) or losses.ndim == 0 or losses.shape[0] != rows:
            shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            raise ValueError(
                f"loss gives {shape or 'one number'} for {rows} rows, expected one value a row: pass one "
                "that does not reduce, as functools.partial(cross_entropy, reduction='none')"
            )
        if losses.shape == (rows, rows) and {tuple(outputs.shape), tuple(batch.y.shape)} == {
            (rows,),
            (rows, 1),
        }:
            raise ValueError(
                f"loss gives {rows} x {rows} values for {rows} rows, as outputs have shape "
                f"{tuple(outputs.shape)} and y {tuple(batch.y.shape)}: make y a column, y[:, None], or take "
                "that of the outputs, logits=lambda out: out[:, 0]"
            )
        return losses.sum(dtype=torch.float64)

    def value(self, theta: Tensor, batches: Iterable[Batch]) -> float:
        """Σ loss."""
        with torch.no_grad():
            return fsum(float(self.of(self.function.outputs(theta, batch), batch)) for batch in batches)

    def value_and_gradient(self, theta: Tensor, batches: Iterable[Batch]) -> tuple[float, Tensor]:
        """Σ loss and its gradient."""
        theta = theta.detach().requires_grad_()
        values, gradient = [], torch.zeros_like(theta)
        for batch in batches:
            total = self.of(self.function.outputs(theta, batch), batch)
            gradient += torch.autograd.grad(total, theta)[0]
            values.append(float(total.detach()))
        return fsum(values), gradient

    def products(self, theta: Tensor, V: Tensor, batch: Batch, curvature: Curvature) -> Tensor:
        """For each row v of V ``Jᵀ (∂²loss/∂outputs²) J v``, J by double backward; or the Hessian times v."""
        theta = theta.detach().requires_grad_()
        outputs = self.function.outputs(theta, batch)
        of = partial(torch.autograd.grad, retain_graph=True)
        if curvature == "hessian":
            (gradient,) = of(self.of(outputs, batch), theta, create_graph=True)
            if not gradient.requires_grad:  # the loss is linear in theta
                return torch.zeros_like(V)
            return torch.stack([of(gradient, theta, v, materialize_grads=True)[0] for v in V])
        u = torch.zeros_like(outputs, requires_grad=True)
        (transposed,) = of(outputs, theta, u, create_graph=True)
        at = outputs.detach().requires_grad_()
        (slope,) = of(self.of(at, batch), at, create_graph=True)
        if not slope.requires_grad:  # the loss is linear in the outputs
            return torch.zeros_like(V)
        found = []
        for v in V:
            (moved,) = of(transposed, u, v.to(transposed.dtype))  # J v
            (curved,) = of(slope, at, moved, materialize_grads=True)
            found += of(outputs, theta, curved)
        return torch.stack(found)


_KEPT = 2**16  # outputs of a batch


class Total:
    """``J(theta; D') = Σ loss + ½ Σ alpha w²`` over all rows (E1)."""

    def __init__(self, losses: Losses, data: Data, penalty: Penalty) -> None:
        self.losses, self.data, self._penalty = losses, data, penalty

    def value(self, theta: Tensor) -> float:
        """See Objective."""
        self.losses.refresh(theta)
        return self.losses.value(theta, self.data.batches()) + self._penalty.value(theta)

    def loss(self, theta: Tensor) -> float:
        """J, which this is."""
        return self.value(theta)

    def value_and_gradient(self, theta: Tensor) -> tuple[float, Tensor]:
        """See Objective."""
        self.losses.refresh(theta)
        value, gradient = self.losses.value_and_gradient(theta, self.data.batches())
        return value + self._penalty.value(theta), gradient + self._penalty.alpha * theta

    def products(self, theta: Tensor, V: Tensor, curvature: Curvature) -> Tensor:
        """See Objective."""
        self.losses.refresh(theta)
        total = self._penalty.alpha * V
        for batch in self.data.batches():
            total += self.losses.products(theta, V, batch, curvature)
        return total

    def mean(self, theta: Tensor, batch: Batch) -> Tensor:
        """``J / n`` as a batch shows it, to be differentiated."""
        loss = self.losses.of(self.losses.function.outputs(theta, batch), batch)
        penalty = 0.5 * (self._penalty.alpha * theta**2).sum() / len(self.data)
        return loss / rows_of(batch) + penalty


class Proximal:
    """The proximal Bregman objective (Bae et al. 2022) of touched rows and of a sample of the others.

    ``Q(theta) = Σ_new loss - Σ_old <slope, outputs> + scale Σ_sample D(theta, theta_0) + ½ Σ alpha (w -
    w_0)²``. Where every row is touched, new and old are those of a sample, times `touched_scale`, and no
    others are there. D is by how much the loss exceeds its tangent in the outputs at theta_0: how far outputs
    have moved, whatever the targets are. What the trained model left of its own gradient is left: at theta_0
    the gradient of Q is the gradient difference of the touched rows (E3).
    """

    def __init__(
        self,
        losses: Losses,
        penalty: Penalty,
        theta: Tensor,
        new: list[Batch],
        old: list[Batch],
        sample: list[Batch],
        scale: float,
        touched_scale: float,
    ) -> None:
        self.losses, self._penalty, self._from = losses, penalty, theta
        if len(new) == len(old) and all(map(_same_inputs, new, old)):  # only targets were corrected
            old = [was._replace(inputs=now.inputs) for was, now in zip(old, new, strict=True)]
        self._new, self._old, self._sample = new, old, sample
        self._scale, self._touched_scale = scale, touched_scale
        self._tangents: dict[int, tuple[Tensor, Tensor, Tensor]] = {}  # of the batches held above

    def _terms(self, theta: Tensor) -> Iterable[Tensor]:
        """Summands of Q but for the penalty."""
        for new, old in zip_longest(self._new, self._old):
            if theta is not self._from:
                yield self._of(theta, self._touched(1.0, new, old))
            elif new is not None:  # all else is 0 there
                yield self._of(theta, self._touched(1.0, new, None))
        for batch in self._sample if theta is not self._from else ():
            yield self._of(theta, [(self._scale, self._moved, batch)])

    def _touched(self, scale: float, new: Batch | None, old: Batch | None) -> list[Term]:
        scale *= self._touched_scale
        terms = [(scale, self._of_new, new), (-scale, self._of_old, old)]
        return [(scale, term, batch) for scale, term, batch in terms if batch is not None]

    def _of(self, theta: Tensor, terms: list[Term]) -> Tensor:
        """The sum of some terms, their outputs by one call of the module where they have one shape."""
        outputs = self._outputs(theta, [batch for _, _, batch in terms])
        found = [scale * term(outputs[id(batch.inputs)], batch) for scale, term, batch in terms]
        return torch.stack(found).sum()

    def _outputs(self, theta: Tensor, batches: list[Batch]) -> dict[int, Tensor]:
        apart = {id(batch.inputs): batch for batch in batches}
        function, sizes = self.losses.function, [rows_of(batch) for batch in apart.values()]
        if len(apart) > 1 and len({shapes_of(batch) for batch in apart.values()}) == 1:
            together = function.outputs(theta, Batch(joined_inputs(list(apart.values())), None))
            alike = self._tangent(batches[-1])[0].shape[1:] == together.shape[1:]
            if alike and together.shape[0] == sum(sizes):  # its first dimension is that of rows
                return dict(zip(apart, together.split(sizes), strict=True))
        return {key: function.outputs(theta, batch) for key, batch in apart.items()}

    def _of_new(self, outputs: Tensor, batch: Batch) -> Tensor:
        return self.losses.of(outputs, batch)

    def _of_old(self, outputs: Tensor, batch: Batch) -> Tensor:
        before, slope, _ = self._tangent(batch)
        return (slope * (outputs - before)).sum(dtype=torch.float64)

    def _moved(self, outputs: Tensor, batch: Batch) -> Tensor:
        before, slope, value = self._tangent(batch)
        return self.losses.of(outputs, batch) - value - (slope * (outputs - before)).sum(dtype=torch.float64)

    def loss(self, theta: Tensor) -> float:
        """J on the corrected data, as the touched rows and the sample show it."""
        self.losses.refresh(theta)
        new = self.losses.value(theta, self._new)
        if theta is self._from and not self.losses.function.normalises:
            others = fsum(float(self._tangent(batch)[2]) for batch in self._sample)
        else:
            others = self.losses.value(theta, self._sample)
        return self._touched_scale * new + self._scale * others + self._penalty.value(theta)

    def estimate(self, theta: Tensor, number: int) -> Tensor:
        """Q from one batch of touched rows and one of the others, but for its penalty's constant."""
        new, old, other = (
            batches[number % len(batches)] if batches else None
            for batches in (self._new, self._old, self._sample)
        )
        terms = self._touched(float(max(len(self._new), len(self._old))), new, old)
        if other is not None:
            terms.append((self._scale * len(self._sample), self._moved, other))
        return self._of(theta, terms) + 0.5 * (self._penalty.alpha * (theta - self._from) ** 2).sum()

    def _tangent(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs at theta_0, the slope of the loss there, and its value; small ones are kept."""
        if id(batch) in self._tangents:
            return self._tangents[id(batch)]
        with torch.no_grad():
            before = self.losses.function.outputs(self._from, batch)
        before.requires_grad_()
        value = self.losses.of(before, batch)
        (slope,) = torch.autograd.grad(value, before)
        found = before.detach(), slope, value.detach()
        if before.numel() <= _KEPT:
            self._tangents[id(batch)] = found
        return found

    def value(self, theta: Tensor) -> float:
        """See Objective."""
        self.losses.refresh(theta)
        with torch.enable_grad():
            terms = [float(term.detach()) for term in self._terms(theta)]
        return fsum(terms) + self._penalty.value(theta - self._from)

    def value_and_gradient(self, theta: Tensor) -> tuple[float, Tensor]:
        """See Objective."""
        self.losses.refresh(theta)
        theta = theta.detach().requires_grad_()
        values, gradient = [], self._penalty.alpha * (theta.detach() - self._from)
        for term in self._terms(theta):
            gradient += torch.autograd.grad(term, theta)[0]
            values.append(float(term.detach()))
        return fsum(values) + self._penalty.value(theta.detach() - self._from), gradient

    def products(self, theta: Tensor, V: Tensor, curvature: Curvature) -> Tensor:
        """See Objective. The old rows are linear in the outputs and have none."""
        self.losses.refresh(theta)
        total = self._penalty.alpha * V
        for scale, batches in ((self._touched_scale, self._new), (self._scale, self._sample)):
            for batch in batches:
                total += scale * self.losses.products(theta, V, batch, curvature)
        return total


def _same_inputs(one: Batch, other: Batch) -> bool:
    return shapes_of(one) == shapes_of(other) and all(
        torch.equal(value, other.inputs[key]) for key, value in one.inputs.items()
    )
