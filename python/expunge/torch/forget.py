"""Values that the module must no longer prefer: made as likely as others, all else held as it was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import fsum
from operator import itemgetter

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from ..errors import ConvergenceError
from .data import Batch, joined, rows_of, shapes_of
from .methods import Found
from .objective import Losses
from .passages import Passages, log_probabilities

__all__ = ["Forgetting", "Indifference", "forget"]

_KEPT = 2**22  # probabilities


@dataclass(frozen=True)
class Forgetting:
    """How values are forgotten. None of it has to be set.

    A rank is the share of control values that are likelier than a secret.
    """

    steps: int = 400
    lr: float = 3e-3
    weight: float = 10.0  # of the KL on other rows
    windows: int = 8  # that show secrets, as many controls and as many others, at each step: a batch at most
    least: int = 20  # steps: a model that prefers nothing any more may still be woken easily before
    check: int = 4  # steps from one look at the rank to the next
    slower: float = 0.5  # what lr is multiplied by where the rank has gone to the other side
    contexts: int = 4  # windows that ranks are found in
    controls: int = 32  # control values for each of them
    between: tuple[float, float] = 0.3, 0.7  # the mean rank where it ends
    within: tuple[float, float] = 0.05, 0.95  # the rank of each secret there
    loss: float = 1.25  # what the loss of the other rows may be there, times what it was


class Indifference:
    """``U(theta) = mean [½ gap² / k - log p(control) / k] + weight mean KL(old || new)``.

    A window shows k secret values; its control is the window with others drawn in their place, and gap is how
    much larger ``log p`` of these is. So the secret becomes neither likelier than others nor less likely, as
    a module would have it that avoids it. The KL is on all entries of a sample of other rows, and on those of
    controls that were not drawn, where the old module reads the window as it was.
    """

    def __init__(
        self, losses: Losses, secret: Passages, others: list[Batch], theta: Tensor, batch_size: int
    ) -> None:
        self._losses, self.function = losses, losses.function
        self.secret, self._others, self.start = secret, others, theta
        self._size = batch_size
        self.windows = max(min(Forgetting.windows, batch_size // 3), 1)
        with torch.no_grad():
            self._old = [self.log_p(theta, batch) for batch in others]
            self._old_secret = self._kept()
        pairs = zip(others, self._old, strict=True)
        self._pieces = [piece for pair in pairs for piece in _pieces(*pair, self.windows)]

    def _kept(self) -> Tensor | None:
        """What the old module says of each window, where that is not much."""
        if self.secret.in_y.numel() * self._old[0].shape[-1] > _KEPT:
            return None
        parts = self.secret.batch_parts(self._size)
        return torch.cat([self.log_p(self.start, batch) for batch in parts])

    def log_p(self, theta: Tensor, batch: Batch) -> Tensor:
        """Of each class at each entry of y."""
        return log_probabilities(self.function.outputs(theta, batch), batch.y)

    def _each(self, theta: Tensor, batches: list[Batch]) -> list[Tensor]:
        """Of several batches, by one call of the module where their shapes allow."""
        if len({(shapes_of(batch), batch.y.shape[1:]) for batch in batches}) > 1:
            return [self.log_p(theta, batch) for batch in batches]
        return list(self.log_p(theta, joined(batches)).split([rows_of(batch) for batch in batches]))

    def of_secret(self, theta: Tensor, which: Tensor, values: Tensor) -> Tensor:
        """What U has of each of these windows."""
        some = self.secret.take(which)
        shown = some.showing(values)
        return self._of_windows(which, some, shown, *self._each(theta, [some.batch, shown]))

    def _of_windows(
        self, which: Tensor, some: Passages, shown: Batch, known: Tensor, control: Tensor
    ) -> Tensor:
        if self._old_secret is None:
            with torch.no_grad():
                old = self.log_p(self.start, some.batch)
        else:
            old = self._old_secret[which]
        here = some.in_y >= 0
        k = _of_windows(here, here)
        of_control = _of_windows(_at(control, shown.y), here)
        gap = of_control - _of_windows(_at(known, some.batch.y), here)
        kl = kl_div(control, old, reduction="none", log_target=True).sum(-1)
        kept = _of_windows(kl, ~here) / (here.numel() / len(here))
        return 0.5 * gap**2 / k - of_control / k + Forgetting.weight * kept

    def estimate(self, theta: Tensor, which: Tensor, values: Tensor, number: int) -> Tensor:
        """U from these windows and some of the other rows."""
        some, (other, old) = self.secret.take(which), self._pieces[number % len(self._pieces)]
        shown = some.showing(values)
        known, control, now = self._each(theta, [some.batch, shown, other])
        of_secret = self._of_windows(which, some, shown, known, control).mean()
        return of_secret + Forgetting.weight * _moved(old, now)

    def value_and_loss(self, theta: Tensor) -> tuple[float, float]:
        """U, for one draw of controls, the same each time; and Σ loss on the sample of other rows."""
        self._losses.refresh(theta)
        generator = torch.Generator().manual_seed(0)
        size = max(self._size // 2, 1)
        with torch.no_grad():
            found = [
                float(self.of_secret(theta, which, self.secret.drawn(generator)).sum())
                for which in torch.arange(len(self.secret), device=self.function.device).split(size)
            ]
            moved, loss = zip(*map(partial(self._moved, theta), self._others, self._old), strict=True)
        mean = fsum(moved) / sum(map(rows_of, self._others))
        return fsum(found) / len(self.secret) + Forgetting.weight * max(mean, 0.0), fsum(loss)

    def loss(self, theta: Tensor) -> float:
        """Σ loss on the sample of other rows."""
        self._losses.refresh(theta)
        return self._losses.value(theta, self._others)

    def value(self, theta: Tensor) -> float:
        """U alone."""
        return self.value_and_loss(theta)[0]

    def _moved(self, theta: Tensor, batch: Batch, old: Tensor) -> tuple[float, float]:
        """KL(old || new), times the rows, and Σ loss."""
        outputs = self.function.outputs(theta, batch)
        moved = _moved(old, log_probabilities(outputs, batch.y))
        return float(moved) * rows_of(batch), float(self._losses.of(outputs, batch))

    def ranks(self, theta: Tensor, how: Forgetting, generator: torch.Generator) -> Tensor:
        """Of each secret: the share of control values likelier, both the mean over windows that show most."""
        secret, ranks = self.secret, []
        shows = _of_windows(secret.in_y >= 0, secret.in_y >= 0)
        count = int(secret.secrets.max()) + 1
        for number in range(count):
            own = secret.secrets == number
            full = torch.nonzero(own & (shows == shows[own].max()))[:, 0]
            contexts = min(max(how.contexts // count, 1), len(full))
            some = secret.take(full[torch.linspace(0, len(full) - 1, contexts).long()])
            shown = [some.batch, *(some.showing(secret.drawn(generator)) for _ in range(how.controls))]
            log_p, size = [], max(self._size // len(some), 1)
            with torch.no_grad():
                for first in range(0, len(shown), size):
                    together = joined(shown[first : first + size])
                    log_p += _at(self.log_p(theta, together), together.y).split(len(some))
            known, *controls = (_of_windows(part, some.in_y >= 0).mean() for part in log_p)
            ranks.append((torch.stack(controls) > known).double().mean())
        return torch.stack(ranks).cpu()


def forget(objective: Indifference, how: Forgetting, seed: int) -> Found:
    """Steps on U, until secrets rank among control values as one of these does."""
    secret, theta = objective.secret, objective.start
    generator = torch.Generator().manual_seed(seed)
    before, loss_before = objective.value_and_loss(theta)
    w = theta.clone().requires_grad_()
    optimiser = torch.optim.Adam([w], lr=how.lr, betas=(0.9, 0.99))
    order, rank, low = torch.empty(0, dtype=torch.int64), 0.0, True
    for taken in range(1, how.steps + 1):
        while len(order) < min(objective.windows, len(secret)):
            order = torch.cat([order, torch.randperm(len(secret), generator=generator)])
        which, order = order[: objective.windows].to(w.device), order[objective.windows :]
        loss = objective.estimate(w, which, secret.drawn(generator), taken)
        (w.grad,) = torch.autograd.grad(loss, w)
        optimiser.step()
        if taken < how.least or taken % how.check:
            continue
        ranks = objective.ranks(w.detach(), how, generator)
        rank = float(ranks.mean())
        if _inside(ranks.mean(), how.between) and _inside(ranks, how.within):
            found = w.detach().clone()
            after, loss = objective.value_and_loss(found)
            if after < before and loss <= how.loss * loss_before:
                return Found(found, before, before - after, steps=taken, rank=rank)
        if low != (rank < how.between[0]):
            low = not low
            optimiser.param_groups[0]["lr"] *= how.slower
    ranks = objective.ranks(w.detach(), how, generator)
    after, loss = objective.value_and_loss(w.detach())
    raise ConvergenceError(_shortfall(how, ranks, after - before, loss, loss_before))


def _shortfall(how: Forgetting, ranks: Tensor, rise: float, loss: float, before: float) -> str:
    """Which of what is asked for was not reached."""
    (low, high), (least, most) = how.between, how.within
    failed = []
    if not _inside(ranks.mean(), how.between):
        failed.append(
            f"the module prefers {float(ranks.mean()):.0%} of control values to those that are to be "
            f"forgotten, expected {low:.0%} to {high:.0%}"
        )
    if not _inside(ranks, how.within):
        failed.append(
            f"of single values {float(ranks.min()):.0%} to {float(ranks.max()):.0%}, expected {least:.0%} to "
            f"{most:.0%}"
        )
    if not loss <= how.loss * before:
        failed.append(
            f"the loss of other rows is {loss:.6g}, expected {how.loss:g} times {before:.6g} at most"
        )
    if not rise < 0.0:
        failed.append("the objective is no smaller")
    if how.steps < how.least:
        failed.append(f"so few steps are never enough, expected {how.least} at least")
    reasons = "; ".join(failed or ["all that is asked for was reached only after the last look"])
    return f"after {how.steps} steps {reasons}: give more steps, or another lr. Nothing was changed"


def _pieces(batch: Batch, old: Tensor, size: int) -> Iterator[tuple[Batch, Tensor]]:
    """The rows of a batch, and what the old module says of them, so many at a time."""
    for first in range(0, rows_of(batch), size):
        rows = slice(first, first + size)
        yield batch.moved(itemgetter(rows)), old[rows]


def _moved(old: Tensor, new: Tensor) -> Tensor:
    """``mean KL(old || new)`` over the entries of y."""
    return kl_div(new, old, reduction="sum", log_target=True) / (old.numel() / old.shape[-1])


def _inside(ranks: Tensor, limits: tuple[float, float]) -> bool:
    return bool((ranks >= limits[0]).all() and (ranks <= limits[1]).all())


def _of_windows(values: Tensor, here: Tensor) -> Tensor:
    """The sum over each window, of the entries that are meant."""
    return torch.where(here, values, 0).reshape(len(here), -1).sum(1)


def _at(log_p: Tensor, y: Tensor) -> Tensor:
    """Of the values in y."""
    return log_p.gather(-1, y.clamp_min(0).long()[..., None])[..., 0]
