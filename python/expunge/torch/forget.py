"""Values that the module must no longer prefer: unlikelihood, held near the old module on what stays."""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from ..errors import ConvergenceError
from .data import Batch, joined
from .methods import Found
from .objective import Losses
from .passages import Passages, log_probabilities

__all__ = ["Forgetting", "Unlikelihood", "forget"]


@dataclass(frozen=True)
class Forgetting:
    """How values are forgotten. None of it has to be set."""

    steps: int = 200
    lr: float = 2e-3
    weight: float = 10.0
    windows: int = 20  # that show secrets, and as many others, at each step
    repairs: int = 10
    check: int = 4  # steps from one look at control values to the next
    contexts: int = 4
    controls: int = 32
    target: float = 0.5  # the share of controls likelier than the secret: unlikelihood until then, and repair
    faster: float = 1.25  # by what lr grows where a look shows little progress
    low: float = 0.25  # where it may end
    high: float = 0.75


class Unlikelihood:
    """``U(theta) = mean -log(1 - p(secret)) + weight mean KL(old || new)``, KL on a sample of other rows."""

    def __init__(self, losses: Losses, secret: Passages, others: list[Batch], theta: Tensor) -> None:
        self._losses, self.function = losses, losses.function
        self.secret, self.others, self.start = secret, others, theta
        with torch.no_grad():
            self.old = [self.log_p(theta, batch) for batch in others]

    def log_p(self, theta: Tensor, batch: Batch) -> Tensor:
        """Of each class at each entry of y."""
        return log_probabilities(self.function.outputs(theta, batch), batch.y)

    def of_secret(self, theta: Tensor, some: Passages) -> Tensor:
        """``mean -log(1 - p)`` of the values in some windows."""
        p = _at(self.log_p(theta, some.batch), some.batch.y)[some.in_y >= 0]
        return -torch.log1p(-p.exp().clamp(max=1.0 - 1e-6)).mean()

    def of_controls(self, theta: Tensor, some: Passages, values: Tensor) -> Tensor:
        """``mean -log p`` of other values in these windows."""
        shown = some.showing(values)
        return -_at(self.log_p(theta, shown), shown.y)[some.in_y >= 0].mean()

    def moved(self, theta: Tensor, number: int) -> Tensor:
        """``mean KL(old || new)`` on one batch of other rows, over the entries of y."""
        old, new = self.old[number], self.log_p(theta, self.others[number])
        return kl_div(new, old, reduction="sum", log_target=True) / (old.numel() / old.shape[-1])

    def value(self, theta: Tensor) -> float:
        """U."""
        self._losses.refresh(theta)
        with torch.no_grad():
            total, count = 0.0, 0
            for which in torch.arange(len(self.secret), device=self.function.device).split(256):
                some = self.secret.take(which)
                number = int((some.in_y >= 0).sum())
                total, count = total + number * float(self.of_secret(theta, some)), count + number
            moved = [float(self.moved(theta, number)) for number in range(len(self.others))]
        return total / count + Forgetting.weight * max(fsum(moved) / len(moved), 0.0)


def forget(objective: Unlikelihood, how: Forgetting, seed: int) -> Found:
    """Steps on U until control values are as likely as the secret; then some on control values."""
    secret, theta = objective.secret, objective.start
    generator = torch.Generator().manual_seed(seed)
    before = objective.value(theta)
    w, lr = theta.clone().requires_grad_(), how.lr
    optimiser, unlikely = _adam(w, lr), True  # what steps are to do: unlikelihood, or else repair
    order = torch.empty(0, dtype=torch.int64)
    rank, repaired = 0.0, 0
    for taken in range(1, how.steps + 1):
        if len(order) < how.windows:
            order = torch.cat([order, torch.randperm(len(secret), generator=generator)])
        some, order = secret.take(order[: how.windows].to(w.device)), order[how.windows :]
        if unlikely:
            loss = objective.of_secret(w, some)
        else:
            loss = objective.of_controls(w, some, secret.drawn(generator))
            repaired += 1
        loss = loss + how.weight * objective.moved(w, taken % len(objective.others))
        (w.grad,) = torch.autograd.grad(loss, w)
        optimiser.step()
        if taken % how.check:
            continue
        was, rank = rank, _rank(objective, w.detach(), how, generator)
        if unlikely and rank < how.target and rank < was + 0.1:  # slow
            lr = optimiser.param_groups[0]["lr"] = how.faster * lr
        if repaired >= how.repairs and how.low <= rank <= how.high:
            after = objective.value(w.detach())
            if after < before:
                return Found(w.detach(), before, after, steps=taken, rank=rank)
            lr = lr / 2.0
            optimiser = _adam(w, lr)
        elif unlikely != (rank < (how.target if unlikely else how.low)):
            unlikely = not unlikely
            lr = lr / 2.0 if unlikely else lr
            optimiser = _adam(w, lr)  # without the momentum of the other kind of step
    raise ConvergenceError(
        f"after {how.steps} steps the module prefers {rank:.0%} of control values to those that are to be "
        f"forgotten, expected {how.low:.0%} to {how.high:.0%}: give more steps. Nothing was changed"
    )


def _adam(w: Tensor, lr: float) -> torch.optim.Adam:
    return torch.optim.Adam([w], lr=lr, betas=(0.9, 0.99))


def _at(log_p: Tensor, y: Tensor) -> Tensor:
    """Of the values in y."""
    return log_p.gather(-1, y.clamp_min(0).long()[..., None])[..., 0]


def _rank(objective: Unlikelihood, theta: Tensor, how: Forgetting, generator: torch.Generator) -> float:
    """The share of control values likelier than the secret, over some windows that show much of it."""
    secret = objective.secret
    shows = (secret.in_y >= 0).reshape(len(secret), -1).sum(1)
    full = torch.nonzero(shows == shows.max())[:, 0]
    chosen = full[torch.linspace(0, len(full) - 1, min(how.contexts, len(full))).long()]
    some = secret.take(chosen)
    shown = [some.batch, *(some.showing(secret.drawn(generator)) for _ in range(how.controls))]
    together = joined(shown)
    with torch.no_grad():
        log_p = _at(objective.log_p(theta, together), together.y)
        here = torch.cat([some.in_y >= 0] * len(shown))
        known, *controls = torch.where(here, log_p, 0.0).reshape(len(log_p), -1).sum(1).split(len(some))
    return float((torch.stack(controls) > known).double().mean())
