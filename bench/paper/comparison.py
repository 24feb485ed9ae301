"""One request and every strategy: each forgets on a copy of the same networks, and is measured alike."""

import copy
from dataclasses import dataclass, field, replace
from functools import partial
from time import process_time

from expunge import ConvergenceError

from . import rivals
from .data import FIRST_SEED
from .training import made, sample_losses, train

FIRST_RETRAINED = FIRST_SEED + 100  # seeds of retrained networks, which nobody else has
OURS = ("auto", "first_order", "second_order", "proximal", "fine_tune")
REFUSED = "refused"
SECOND = "but it did not"  # auto says so where it took one method after another
SHARES = (0.3, 1.0, 2.5)  # of the first rate of training, that fine-tuning chooses from


@dataclass
class Run:
    """What one strategy gave on one seed: CPU seconds, numbers by name, and with which settings."""

    task: str
    strategy: str
    seed: int
    seconds: float
    measured: dict
    settings: dict = field(default_factory=dict)


def trained(task, seed):
    """A network that is to forget."""
    return train(task, made(task.build, seed), task.data, seed)


def retrained(task, seeds):
    """Networks trained on the corrected data, and the seconds of each."""
    found = [timed(partial(rivals.retraining, task, seed)) for seed in seeds]
    return [module for module, _ in found], [seconds for _, seconds in found]


def granted(un, request, **how):
    """What an Unlearner did, as settings; or that it refused, which leaves the network as it was."""
    try:
        update = un.apply(request, **how)
    except ConvergenceError as error:
        return {REFUSED: str(error)}
    return {"method": update.method, "steps": update.steps} | ({SECOND: True} if SECOND in update.why else {})


def timed(call):
    """Result and CPU seconds."""
    begun = process_time()
    result = call()
    return result, process_time() - begun


class Comparison:
    """All strategies on one request.

    originals: networks that are to forget, by seed. measure(module) gives numbers by name, measure.brief
    some, and measure.distance one that is small near retraining: by it rivals choose, on the first seed.
    """

    def __init__(self, task, originals, measure, say):
        self.task, self.originals, self.measure, self.say = task, originals, measure, say
        self.runs = []

    def all(self, networks, sets=True):
        """sets: there are rows to forget, and others to retain."""
        for seed, module in self.originals.items():
            self.record("nothing", seed, module, 0.0)
        self.ours(networks)
        for epochs, name in {1: "fine-tuning, 1 epoch", 3: "fine-tuning, 3 epochs"}.items():
            for seed in self.originals:
                self.record(name, seed, *self.fine_tuned(seed, epochs=epochs))
        for name, (rival, settings) in rivals.TUNED.items() if sets else ():
            self.rival(name, rival, settings)
        ensemble, seconds = rivals.sisa(self.task, FIRST_SEED + 500)
        self.record(f"SISA, {rivals.SHARDS} shards", FIRST_SEED, ensemble, seconds)

    def record(self, strategy, seed, module, seconds, settings=None):
        run = Run(self.task.name, strategy, seed, seconds, self.measure(module), settings or {})
        self.runs.append(run)
        self.say(f"{self.task.name}, {strategy}, seed {seed}: {seconds:.2f} s")
        return run

    def retrained(self, modules, seconds):
        for number, (module, spent) in enumerate(zip(modules, seconds, strict=True)):
            self.record("retrained", FIRST_RETRAINED + number, module, spent)

    def ours(self, networks):
        """Each method, and beside it fine-tuning for as long. The one that auto took is measured once."""
        taken = {}
        for method in OURS:
            options = self.task.options.get(method, {})
            for seed, module in self.originals.items():
                if (method, seed) in taken and not options:
                    self.runs.append(replace(taken[method, seed], strategy=f"expunge, {method}"))
                    continue
                module = copy.deepcopy(module)
                un = networks.Unlearner(module, sample_losses, *self.task.data, alpha=self.task.alpha)
                request = self.task.request(networks, method)
                found, seconds = timed(partial(granted, un, request, method=method, **options))
                chosen = {**found, **options}
                run = self.record(f"expunge, {method}", seed, module, seconds, chosen)
                rival = self.measure.brief(self.fine_tuned(seed, seconds=seconds)[0])
                run.measured |= {f"equal time: {key}": value for key, value in rival.items()}
                if method == "auto" and SECOND not in found:
                    taken[found.get("method"), seed] = run

    def fine_tuned(self, seed, **how_long):
        """Module, seconds and settings; of several rates the one that ends nearest."""
        return self.best(rivals.fine_tuning, seed, [{"share": share, **how_long} for share in SHARES])

    def rival(self, name, strategy, settings):
        for seed in self.originals:
            module, seconds, chosen = self.best(strategy, seed, settings)
            settings = [chosen]
            self.record(name, seed, module, seconds, chosen)

    def best(self, strategy, seed, settings):
        """Module, seconds and settings of the one of several that ends nearest to retraining."""
        tried = []
        for chosen in settings:
            module = copy.deepcopy(self.originals[seed])
            tried.append((*timed(partial(strategy, self.task, module, seed, **chosen)), chosen))
        return tried[0] if len(tried) == 1 else min(tried, key=lambda t: self.measure.distance(t[0]))
