"""Values that the module must no longer prefer: unlikelihood, held near the old module on what stays."""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum, inf

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
    """How values are forgotten. None of it has to be set.

    A rank is the share of control values that are likelier than a secret. Steps are of unlikelihood until
    each secret has rank `target`, and then of repair, until the mean rank is `between` and each is `within`.
    """

    steps: int = 400
    patience: int = 200  # steps in which the target falls to the lower end of `between`
    lr: float = 2e-3
    weight: float = 10.0  # of the KL
    windows: int = 20  # that show secrets, and as many others, at each step
    repairs: int = 10  # at least
    check: int = 2  # steps from one look at ranks to the next
    contexts: int = 3  # windows that ranks are found in
    controls: int = 24  # control values for each of them
    target: float = 0.5  # at first
    between: tuple[float, float] = 0.25, 0.75
    within: tuple[float, float] = 0.05, 0.95
    faster: float = 1.25  # by what lr grows where a look shows little progress
    fastest: float = 5.0  # times lr at most
    loss: float = 1.25  # what the loss of the other rows may be, times what it was


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
        here = some.in_y >= 0
        log_p, y = self.log_p(theta, some.batch)[here], some.batch.y[here].long()
        # 1 - p is the sum of the others: no digit is lost, and no gradient, where p is 1 to rounding
        return -log_p.scatter(-1, y[:, None], -inf).logsumexp(-1).mean()

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

    def loss(self, theta: Tensor) -> float:
        """Σ loss on the sample of other rows."""
        return self._losses.value(theta, self.others)


def forget(objective: Unlikelihood, how: Forgetting, seed: int) -> Found:
    """Steps on U until control values are as likely as the secrets; then some on control values."""
    secret, theta = objective.secret, objective.start
    generator = torch.Generator().manual_seed(seed)
    before, loss_before = objective.value(theta), objective.loss(theta)
    w, lr = theta.clone().requires_grad_(), how.lr
    optimiser, unlikely = _adam(w, lr), True  # what steps are to do: unlikelihood, or else repair
    order = torch.empty(0, dtype=torch.int64)
    ranks, repaired = torch.zeros(int(secret.secrets.max()) + 1, dtype=torch.float64), 0
    for taken in range(1, how.steps + 1):
        target = how.target + (how.between[0] - how.target) * min(taken / how.patience, 1.0)
        if len(order) == 0:
            known = ranks < (target if unlikely else inf)
            order = torch.nonzero(known[secret.secrets.cpu()])[:, 0]
            order = order[torch.randperm(len(order), generator=generator)]
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
        was, ranks = ranks, _ranks(objective, w.detach(), how, generator)
        if unlikely and bool((ranks < torch.clamp(was + 0.1, max=target)).any()):  # slow
            lr = optimiser.param_groups[0]["lr"] = min(how.faster * lr, how.fastest * how.lr)
        if repaired >= how.repairs and _inside(ranks.mean(), how.between) and _inside(ranks, how.within):
            found = w.detach().clone()
            after = objective.value(found)
            if after < before and objective.loss(found) <= how.loss * loss_before:
                return Found(found, before, after, steps=taken, rank=float(ranks.mean()))
            lr = optimiser.param_groups[0]["lr"] = max(lr / 2.0, how.lr / 2.0)
        elif unlikely != _known(ranks, unlikely, target, how):
            unlikely = not unlikely
            lr, order = lr / 2.0 if unlikely else lr, order[:0]
            optimiser = _adam(w, lr)  # without the momentum of the other kind of step
    raise ConvergenceError(
        f"after {how.steps} steps the module prefers {float(ranks.mean()):.0%} of control values to those "
        f"that are to be forgotten, expected {how.between[0]:.0%} to {how.between[1]:.0%} at a loss of "
        f"other rows that is {how.loss:g} times what it was at most: give more steps. Nothing was changed"
    )


def _known(ranks: Tensor, unlikely: bool, target: float, how: Forgetting) -> bool:
    """Whether a secret is still known, or again."""
    if unlikely:
        return bool((ranks < target).any())
    return bool((ranks < how.within[0]).any()) or float(ranks.mean()) < how.between[0]


def _inside(ranks: Tensor, limits: tuple[float, float]) -> bool:
    return bool((ranks >= limits[0]).all() and (ranks <= limits[1]).all())


def _adam(w: Tensor, lr: float) -> torch.optim.Adam:
    return torch.optim.Adam([w], lr=lr, betas=(0.9, 0.99))


def _at(log_p: Tensor, y: Tensor) -> Tensor:
    """Of the values in y."""
    return log_p.gather(-1, y.clamp_min(0).long()[..., None])[..., 0]


def _ranks(objective: Unlikelihood, theta: Tensor, how: Forgetting, generator: torch.Generator) -> Tensor:
    """For each secret, the share of control values likelier than it, in some windows that show most of it."""
    secret, ranks = objective.secret, []
    shows = (secret.in_y >= 0).reshape(len(secret), -1).sum(1)
    count = int(secret.secrets.max()) + 1
    for number in range(count):
        own = secret.secrets == number
        full = torch.nonzero(own & (shows == shows[own].max()))[:, 0]
        contexts = min(max(how.contexts // count, 1), len(full))
        some = secret.take(full[torch.linspace(0, len(full) - 1, contexts).long()])
        shown = [some.batch, *(some.showing(secret.drawn(generator)) for _ in range(how.controls))]
        together = joined(shown)
        with torch.no_grad():
            log_p = _at(objective.log_p(theta, together), together.y)
            here = torch.cat([some.in_y >= 0] * len(shown))
            likely, *controls = torch.where(here, log_p, 0.0).reshape(len(log_p), -1).sum(1).split(len(some))
        ranks.append((torch.stack(controls) > likely).double().mean())
    return torch.stack(ranks).cpu()
