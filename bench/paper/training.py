"""How every network here is trained, and what a request asks of one that is."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import cos, log, pi
from time import process_time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IGNORED = -100  # a label that no loss counts
LOOK = 4  # steps from one look at the clock to the next: it takes as long as a step of a small network


@dataclass(frozen=True)
class Recipe:
    """Adam with a rate that falls to 0 along a cosine; decay: alpha / n, on all but biases."""

    epochs: int
    batch: int
    rate: float
    decay: float = 0.0


@dataclass(frozen=True)
class Task:
    """A network, its data, and one request.

    build() makes the network; a loss is the sum over the `values` predictions of a sample. `touched` are rows
    of X, y; `mask`, if only some labels of a row are meant, has the shape of y. `stays`, if rows leave, has
    those of X, y that do not. request(expunge.torch, method) makes ours.
    """

    name: str
    build: Callable[[], nn.Module]
    recipe: Recipe
    data: tuple[Tensor, Tensor]
    corrected: tuple[Tensor, Tensor]
    touched: Tensor
    test: tuple[Tensor, Tensor]
    request: Callable[[object], object]
    mask: Tensor | None = None
    stays: Tensor | None = None
    values: int = 1
    options: dict = field(default_factory=dict)  # of our methods, by name

    @property
    def forget(self):
        """The touched rows as they were, for rivals that take them; labels that are not meant are ignored."""
        X, y = self.data
        y = y if self.mask is None else torch.where(self.mask, y, IGNORED)
        return X[self.touched], y[self.touched]

    @property
    def retained(self):
        """The rows that were not touched; all corrected ones where none is left."""
        kept = torch.ones(len(self.data[0]), dtype=torch.bool)
        kept[self.touched] = False
        return (self.data[0][kept], self.data[1][kept]) if kept.any() else self.corrected

    @property
    def alpha(self):
        """The same penalty for an objective that is a sum over samples."""
        return self.recipe.decay * len(self.data[0]) * self.values


def made(build, seed):
    """A network whose first weights are those of the seed; the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def decayed(module, decay):
    """Parameter groups: every weight decays, no bias does."""
    named = list(module.named_parameters())
    weights = [p for name, p in named if "bias" not in name]
    biases = [p for name, p in named if "bias" in name]
    return [{"params": weights, "weight_decay": decay}, {"params": biases, "weight_decay": 0.0}]


def batches(n, size, generator):
    """Rows of batches, epoch after epoch without end."""
    while True:
        yield from torch.randperm(n, generator=generator).split(size)


def train(task, module, data, seed, *, epochs=None, seconds=None, rate=None):
    """Trains on data, in place: for so many epochs, or for so long. Returns the module."""
    recipe = task.recipe if rate is None else replace(task.recipe, rate=rate)
    X, y = data
    steps = (recipe.epochs if epochs is None else epochs) * -(-len(X) // recipe.batch)
    optimizer = torch.optim.Adam(decayed(module, recipe.decay), lr=recipe.rate)
    begun = process_time()
    module.train()
    for step, rows in enumerate(batches(len(X), recipe.batch, torch.Generator().manual_seed(seed))):
        if seconds is None:
            done = step / steps
        elif step % LOOK == 0:
            done = (process_time() - begun) / seconds
        if done >= 1.0:
            break
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * 0.5 * (1.0 + cos(pi * done))
        optimizer.zero_grad(set_to_none=True)
        mean_loss(module, X[rows], y[rows]).backward()
        optimizer.step()
    return module.eval()


def sample_losses(outputs, y):
    """(n,) losses: of a sample, the sum over its predictions."""
    found = F.cross_entropy(outputs.flatten(0, -2), y.flatten(), reduction="none", ignore_index=IGNORED)
    return found.view(len(y), -1).sum(dim=1)


def mean_loss(module, X, y):
    """Mean over all predictions of all samples."""
    return F.cross_entropy(module(X).flatten(0, -2), y.flatten(), ignore_index=IGNORED)


def log_probabilities(module, X, size=1024):
    """(n, ..., K), without gradients, in eval mode."""
    module.eval()
    with torch.no_grad():
        return torch.cat([F.log_softmax(module(part), dim=-1) for part in X.split(size)])


def label_losses(module, data):
    """(predictions,) -log p of every label."""
    log_p = log_probabilities(module, data[0])
    return F.nll_loss(log_p.flatten(0, -2), data[1].flatten(), reduction="none").double().numpy()


def accuracy(module, data):
    """Share of predictions that are right."""
    log_p = log_probabilities(module, data[0])
    return float((log_p.argmax(dim=-1) == data[1]).double().mean())


class Ensemble(nn.Module):
    """Mean of the probabilities of several networks, as logits."""

    def __init__(self, members):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, X):
        log_p = torch.stack([F.log_softmax(member(X), dim=-1) for member in self.members])
        return torch.logsumexp(log_p, dim=0) - log(len(self.members))
