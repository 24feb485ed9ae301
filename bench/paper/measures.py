"""Numbers about a network after a request, each beside networks that were retrained."""

import copy
from statistics import mean

import numpy as np
import torch

from expunge import metrics

from .data import FIRST_SEED
from .text import numbers
from .training import accuracy, label_losses, log_probabilities, mean_loss, train

NOT_SPARED = 3  # a retrained network is measured beside the others, where so many are left


class TextMeasure:
    """What a network knows of the secret of a text, and what is left of it otherwise."""

    def __init__(self, text, again, sizes):
        self.text, self.task, self.epochs = text, text.task(), sizes.rebound
        self.candidates = numbers(sizes.candidates, np.random.default_rng(FIRST_SEED + 11))
        self.attacked = [list(self.attack(module)) for module in again]
        self.bits = [curve[0] for curve in self.attacked]
        self.accuracy = mean(accuracy(module, self.task.test) for module in again)

    def attack(self, module, steps=8):
        """Bits of the secret as an attacker trains on windows that show it."""
        module, (X, y) = copy.deepcopy(module), self.text.showing()
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
        yield self.bits_of(module)
        for _ in range(steps):
            module.train()
            optimizer.zero_grad(set_to_none=True)
            mean_loss(module, X, y).backward()
            optimizer.step()
            yield self.bits_of(module)

    def training_on(self, module):
        """Bits of the secret as training goes on without it, epoch by epoch."""
        module = copy.deepcopy(module)
        yield self.bits_of(module)
        for epoch in range(self.epochs):
            train(self.task, module, self.task.corrected, FIRST_SEED + 900 + epoch, epochs=1, rate=1e-3)
            yield self.bits_of(module)

    def bits_of(self, module):
        return float(self.text.bits(module, [self.text.secret])[0])

    def at_a_look(self, module):
        """Bits of the secret and of other numbers, rank of the secret, and how far it is outside."""
        bits = self.text.bits(module, [self.text.secret, *self.candidates])
        return {
            "rank": float((bits[1:] <= bits[0]).mean()),
            "bits": float(bits[0]),
            "outside": metrics.outside(bits[0], self.bits, margin=0.2),
            "accuracy": accuracy(module, self.task.test),
        }, bits[1:]

    def __call__(self, module):
        found, others = self.at_a_look(module)
        further = list(self.training_on(module))
        exposure = metrics.exposure(found["bits"], others, 10.0 ** len(self.text.secret))
        return found | {
            "exposure": exposure.bits,
            "exposure by": exposure.method,
            "loss": float(label_losses(module, self.task.test).mean()),
            "relearned": metrics.relearning(self.attack(module), self.attacked).ratio,
            "rebound": metrics.rebound(further) if self.epochs else 0.0,
            "settled": further[-1],
            "says": self.text.completed(module),
        }

    def brief(self, module):
        return self.at_a_look(module)[0]

    def distance(self, module):
        """Of rank and NLL from retraining, and what was paid in accuracy: by it rivals choose."""
        found, _ = self.at_a_look(module)
        of_secret = abs(found["rank"] - 0.5) + abs(found["outside"]) / mean(self.bits)
        return of_secret + 10.0 * max(self.accuracy - found["accuracy"], 0.0)


class PredictionMeasure:
    """Test accuracy and loss, and spreads on touched and test rows, as these are after the request."""

    def __init__(self, task, again):
        self.task, self.again = task, again
        X = task.data[0] if task.stays is not None else task.corrected[0]
        self.rows = {"touched": X[task.touched], "test": task.test[0]}
        self.expected = {key: [self.log_p(m, X) for m in again] for key, X in self.rows.items()}

    def log_p(self, module, X):
        return log_probabilities(module, X).numpy()

    def others(self, module, values):
        """Of the retrained networks, those that are not this one."""
        return [value for m, value in zip(self.again, values, strict=True) if m is not module]

    def spreads(self, module, key):
        expected = self.others(module, self.expected[key])
        if len(expected) < NOT_SPARED:
            return np.nan
        return metrics.spreads(self.log_p(module, self.rows[key]), expected)

    def __call__(self, module):
        return {
            "touched": self.spreads(module, "touched"),
            "tested": self.spreads(module, "test"),
            "accuracy": accuracy(module, self.task.test),
            "loss": float(label_losses(module, self.task.test).mean()),
        }

    def brief(self, module):
        return self(module)

    def distance(self, module):
        """By it rivals choose."""
        return self.spreads(module, "touched") + self.spreads(module, "test")


class PictureMeasure(PredictionMeasure):
    """Also which share of the accuracy that wrong labels cost has come back, in per cent."""

    def __init__(self, task, again, originals):
        super().__init__(task, again)
        groups = again, originals
        self.clean, self.poisoned = (mean(accuracy(m, task.test) for m in group) for group in groups)

    def __call__(self, module):
        found = super().__call__(module)
        share = (found["accuracy"] - self.poisoned) / (self.clean - self.poisoned)
        return {"recovered": 100.0 * share} | found

    def distance(self, module):
        return -accuracy(module, self.task.test)


class RowsMeasure(PredictionMeasure):
    """Also how well removed rows can be told from test rows, with the retrained networks as reference."""

    def __init__(self, task, again):
        super().__init__(task, again)
        X, y = task.data
        self.parts = (X[task.touched], y[task.touched]), task.test
        self.reference = [[label_losses(m, part) for m in again] for part in self.parts]

    def __call__(self, module):
        reference = [self.others(module, found) for found in self.reference]
        if len(reference[0]) < NOT_SPARED:
            return super().__call__(module) | {"membership": np.nan}
        losses = (label_losses(module, part) for part in self.parts)
        return super().__call__(module) | {"membership": metrics.membership(*losses, reference=reference).auc}
