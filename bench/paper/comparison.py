"""One request, every strategy: trained once, forgotten by each in turn, measured alike."""

import copy
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from time import process_time

import numpy as np

from . import rivals
from .training import made, sample_losses, train

OURS = ("auto", "first_order", "second_order", "fine_tune")


@dataclass
class Run:
    """What one strategy gave on one seed: CPU seconds, and numbers by name."""

    strategy: str
    seed: int
    seconds: float
    measured: dict
    note: str = ""
    knob: dict = field(default_factory=dict)


def trained(task, seed):
    """The network that is to forget."""
    return train(task, made(task.build, seed), task.data, seed)


def retrained(task, seeds):
    """(networks, seconds) of retraining on the corrected data."""
    found = [timed(lambda seed=seed: rivals.retraining(task, seed)) for seed in seeds]
    return [module for module, _ in found], [seconds for _, seconds in found]


def timed(call):
    """(result, CPU seconds)."""
    begun = process_time()
    result = call()
    return result, process_time() - begun


class Comparison:
    """Every strategy on one task and its seeds.

    measure(module) gives numbers by name; nearness(module) is small where retraining is near, and chooses
    the knobs of rivals on the first seed.
    """

    def __init__(self, task, originals, measure, nearness, say=lambda line: None):
        self.task, self.originals, self.measure, self.nearness = task, originals, measure, nearness
        self.runs, self.say, self.knobs = [], say, {}

    def record(self, strategy, seed, seconds, module, **more):
        run = Run(strategy, seed, seconds, self.measure(module), **more)
        self.runs.append(run)
        self.say(f"{self.task.name}, {strategy}, seed {seed}: {seconds:.2f} s")
        return run

    def nothing(self):
        for seed, module in self.originals.items():
            self.record("nothing", seed, 0.0, module)

    def ours(self, networks, methods=OURS):
        """Each method, and fine-tuning for as long as it took."""
        for method in methods:
            for seed, module in self.originals.items():
                module = copy.deepcopy(module)
                un = networks.Unlearner(module, sample_losses, *self.task.data, alpha=self.task.alpha)
                request = self.task.request(networks, method)
                update, seconds = timed(partial(un.apply, request, method=method))
                run = self.record(f"expunge, {method}", seed, seconds, module, note=update.method)
                other = self.fine_tuned(seed, seconds=seconds)[0]
                run.measured |= {f"equal time: {name}": value for name, value in self.measure(other).items()}

    def rivals(self, names=tuple(rivals.TUNED)):
        for name in names:
            strategy, settings = rivals.TUNED[name]
            for number, (seed, module) in enumerate(self.originals.items()):
                if number == 0:
                    tried = [(*self.forgotten(strategy, seed, module, knob), knob) for knob in settings]
                    self.knobs[name] = min(tried, key=lambda tried: self.nearness(tried[0]))[2]
                knob = self.knobs[name]
                self.record(name, seed, *reversed(self.forgotten(strategy, seed, module, knob)), knob=knob)

    def forgotten(self, strategy, seed, module, knob):
        module = copy.deepcopy(module)
        return timed(lambda: strategy(self.task, module, seed, **knob))

    def fine_tuning(self, epochs=(1, 3)):
        for many in epochs:
            for seed in self.originals:
                module, seconds, share = self.fine_tuned(seed, epochs=many)
                name = f"fine-tuning, {many} epoch{'s' * (many > 1)}"
                self.record(name, seed, seconds, module, knob={"share": share})

    def fine_tuned(self, seed, **how_long):
        """(network, seconds, share of the rate), of two shares the one that ends nearer."""
        tried = [
            (
                *self.forgotten(rivals.fine_tuning, seed, self.originals[seed], {"share": share, **how_long}),
                share,
            )
            for share in (0.3, 1.0)
        ]
        return min(tried, key=lambda t: self.nearness(t[0]))

    def sisa(self):
        seed = next(iter(self.originals))
        ensemble, seconds = rivals.sisa(self.task, 500 + seed)
        self.record(f"SISA, {rivals.SHARDS} shards", seed, seconds, ensemble)


def over_seeds(values, form):
    """Median, and the range if there are several."""
    values = np.array(values, dtype=float)
    if not np.isfinite(values).any():
        return "–"
    low, middle, high = (format(v, form) for v in (np.nanmin(values), median(values), np.nanmax(values)))
    return middle if low == high else f"{middle} ({low} to {high})"
