"""What else makes a network forget: each strategy by the formula of its paper.

A rival is called as `rival(task, module, seed, **knob)`, may change the module, and returns one. `TUNED` has
the settings that each may choose from. The run takes those whose result is nearest to retraining on the first
seed, so that a rival is shown at its best, with the answer known; ours have nothing to choose.
"""

import copy
from time import process_time

import torch
from torch.nn import functional as F

from .training import IGNORED, Ensemble, batches, decayed, made, mean_loss, sample_losses, train

STEPS = 36  # of those that take a number of steps
SHARDS = 4
SHARE = 0.3  # of the first rate of training: the rate of those that go on from its end


def retraining(task, seed):
    """From the start, on corrected data."""
    return train(task, made(task.build, seed), task.corrected, seed)


def sisa(task, seed):
    """SISA: a network for each shard, probabilities averaged (Bourtoule et al., S&P 2021); no slices.

    Returns the ensemble, and the seconds of the shards that hold touched rows; others were trained before.
    """
    n = len(task.data[0])
    touched, stays = torch.zeros(n, dtype=torch.bool), torch.ones(n, dtype=torch.bool)
    touched[task.touched] = True
    stays = stays if task.stays is None else task.stays
    members, spent = [], 0.0
    for number in range(SHARDS):
        shard = torch.arange(n) % SHARDS == number
        X, y = (part[shard[stays]] for part in task.corrected)
        begun = process_time()
        members.append(train(task, made(task.build, seed + number), (X, y), seed + number))
        spent += (process_time() - begun) * bool(touched[shard].any())
    return Ensemble(members).eval(), spent


def fine_tuning(task, module, seed, share=SHARE, **how_long):
    """Further training on corrected data: `epochs=` or, as long as another took, `seconds=`."""
    return train(task, module, task.corrected, seed, rate=share * task.recipe.rate, **how_long)


def neggrad_plus(task, module, seed, weight=0.95, rate=None):
    """NegGrad+: ``beta L(retained) - (1 - beta) L(forget)`` (Kurmanji et al., NeurIPS 2023)."""

    def objective(step, kept, gone):
        return weight * mean_loss(module, *kept) - (1.0 - weight) * mean_loss(module, *gone)

    return descend(task, module, seed, objective, rate)


def npo(task, module, seed, beta=0.1, rate=None):
    """NPO with retained data: ``-(2 / beta) log sigmoid(-beta log(p / p_old))`` (Zhang et al., COLM 2024)."""
    old = copy.deepcopy(module).eval()

    def objective(step, kept, gone):
        X, y = gone
        with torch.no_grad():
            before = sample_losses(old(X), y)
        log_ratio = before - sample_losses(module(X), y)
        return -(2.0 / beta) * F.logsigmoid(-beta * log_ratio).mean() + mean_loss(module, *kept)

    return descend(task, module, seed, objective, rate)


def scrub(task, module, seed, rate=None):
    """SCRUB: ``max KL(old || new)`` on what to forget, in turn with ``min KL + L`` on the rest.

    Kurmanji et al., NeurIPS 2023. The last third of the steps is on the rest alone, as in the paper.
    """
    old = copy.deepcopy(module).eval()

    def kl(X, counted):
        with torch.no_grad():
            before = F.log_softmax(old(X), dim=-1)
        after = F.log_softmax(module(X), dim=-1)
        return (before.exp() * (before - after)).sum(dim=-1)[counted].mean()

    def objective(step, kept, gone):
        if step % 2 == 0 and step < 2 * STEPS // 3:
            return -kl(gone[0], gone[1] != IGNORED)
        return kl(kept[0], kept[1] != IGNORED) + mean_loss(module, *kept)

    return descend(task, module, seed, objective, rate)


def ascent_and_repair(task, module, seed, climbs=6, rate=None):
    """Gradient ascent on what to forget (Jang et al., ACL 2023), then steps on the rest."""

    def objective(step, kept, gone):
        return -mean_loss(module, *gone) if step < climbs else mean_loss(module, *kept)

    return descend(task, module, seed, objective, rate)


def ssd(task, module, seed, alpha=10.0, strength=1.0):
    """Selective synaptic dampening (Foster et al., AAAI 2024): ``theta *= min(strength F_D / F_f, 1)``.

    Where ``F_f > alpha F_D``: diagonals of the Fisher information on what to forget and on all of the data.
    """
    of_all, of_gone = fisher(module, *task.data), fisher(module, *task.forget)
    with torch.no_grad():
        for p, all_, gone in zip(module.parameters(), of_all, of_gone, strict=True):
            chosen = gone > alpha * all_
            p[chosen] *= (strength * all_[chosen] / gone[chosen]).clamp(max=1.0)
    return module


def fisher(module, X, y, rows=256):
    """Mean over samples of the squared gradient, on so many rows at most."""
    some = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))[:rows]
    parameters = list(module.parameters())
    totals = [torch.zeros_like(p) for p in parameters]
    for row in some.split(1):
        loss = mean_loss(module, X[row], y[row])
        for total, g in zip(totals, torch.autograd.grad(loss, parameters), strict=True):
            total += g**2 / len(some)
    return totals


def descend(task, module, seed, objective, rate):
    """STEPS of Adam on objective(step, retained batch, batch to forget)."""
    kept, gone = task.retained, task.forget
    rate = SHARE * task.recipe.rate if rate is None else rate
    optimizer = torch.optim.Adam(decayed(module, task.recipe.decay), lr=rate)
    generator = torch.Generator().manual_seed(seed)
    of_kept, of_gone = (batches(len(data[0]), task.recipe.batch, generator) for data in (kept, gone))
    module.train()
    for step in range(STEPS):
        parts = [
            (data[0][rows], data[1][rows]) for data, rows in ((kept, next(of_kept)), (gone, next(of_gone)))
        ]
        optimizer.zero_grad(set_to_none=True)
        objective(step, *parts).backward()
        optimizer.step()
    return module.eval()


def each(first, second):
    """Every pair of settings."""
    return [{**a, **b} for a in first for b in second]


RATES = [{"rate": 1e-3}, {"rate": 3e-3}]
TUNED = {
    "NegGrad+": (neggrad_plus, each([{"weight": 0.8}, {"weight": 0.95}], RATES)),
    "NPO": (npo, each([{"beta": 0.1}, {"beta": 0.5}], RATES)),
    "SCRUB": (scrub, RATES),
    "ascent, repair": (ascent_and_repair, each([{"climbs": 3}, {"climbs": 9}], RATES)),
    "SSD": (ssd, [{"alpha": 3.0}, {"alpha": 10.0}]),
}
