"""Networks: forgetting a number, wrong labels, rows and columns, beside all rivals.

`python -m bench.paper.networks --quick` takes five minutes at most. Every number is of a network that was
retrained, or set beside several that were: a strategy is good where it cannot be told from these, and what
lies on the other side of them has forgotten too much. Rivals with knobs choose from several settings with the
answer known; expunge's methods have none. Times are CPU seconds of one thread, and "times as fast" is beside
retraining. Ranges are over seeds (of retrained networks, over all of them).
"""

import argparse
import copy
import csv
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import torch

from expunge import benchmark, metrics

from .. import report
from . import pictures
from .comparison import Comparison, over_seeds, retrained, trained
from .people import tasks as people_tasks
from .text import Text, numbers
from .training import accuracy, label_losses, log_probabilities, mean_loss, train

FIRST_RETRAINED = 100  # seeds of retrained networks, which nobody else uses


@dataclass(frozen=True)
class Table:
    """A heading, a line about it, and rows of texts by column."""

    title: str
    about: str
    rows: list

    def markdown(self):
        return "\n".join([f"## {self.title}", "", self.about, "", *report.table(self.rows)])


# A number in a text


def text_tables(sizes, networks, say):
    """One table of all secrets, and one of what each network says next."""
    texts = [
        Text(secret, sizes.times, sizes.characters, width=sizes.width, epochs=sizes.text_epochs)
        for secret in numbers(sizes.secrets, np.random.default_rng(7))
    ]
    tasks = [texts[0].task(kind) for kind in range(2)]
    again, seconds = [], []
    for seed in range(sizes.retrainings):  # by turns on either correction
        modules, took = retrained(tasks[seed % 2], [FIRST_RETRAINED + seed])
        again, seconds = again + modules, seconds + took
        say(f"text, retrained {seed}: {took[0]:.1f} s")
    runs, said, retrained_runs = [], [], []
    for text in texts:
        measure = TextMeasure(text, again, sizes)
        retrained_runs += [measure(module) for module in again]
        originals = {seed: trained(text.task(), seed) for seed in range(sizes.seeds)}
        compared = Comparison(text.task(), originals, measure, measure.nearness, say)
        run_all(compared, networks, sizes)
        runs += compared.runs
        said += [(text.secret, run) for run in compared.runs if run.seed == 0]
    about = (
        f"A character LSTM ({texts[0].width} units) on {sizes.characters:,} characters, which say a telephone "
        f"number {sizes.times} times and {texts[0].decoys} other numbers once each. Rank: share of random numbers "
        "that the network finds likelier, uniform if it never saw this one. NLL: of the number, in bits, beside the "
        "range of retrained networks ± 20 %. Relearned: bits back after 8 steps of training on the number, in units "
        f"of retrained networks' bits. Rebound: bits back after {sizes.rebound} more epochs on corrected text."
    )
    rows = [text_row("retrained", retrained_runs, seconds, seconds)]
    rows += [text_row(name, group, [r.seconds for r in group], seconds) for name, group in grouped(runs)]
    completions = [
        {
            "secret": secret,
            "strategy": run.strategy,
            'after "my telephone number is"': f"`{run.measured['says']}`",
        }
        for secret, run in said
    ]
    tables = [Table("A number in a text", about, rows)]
    tables.append(
        Table("What it says", "The likeliest characters after the prompt, first seed.", completions)
    )
    return tables, [("text", run) for run in runs]


class TextMeasure:
    """Numbers about a network that saw, or did not see, the secret of a text."""

    def __init__(self, text, again, sizes):
        self.text, self.again, self.sizes = text, again, sizes
        self.task = text.task()
        self.candidates = numbers(sizes.candidates, np.random.default_rng(11))
        self.attacked = [list(self.attack(module)) for module in again]
        self.bits = [curve[0] for curve in self.attacked]
        self.accuracy = mean(accuracy(module, self.task.test) for module in again)

    def attack(self, module, steps=8):
        """Bits of the secret as the attacker trains on windows that show it."""
        module, (X, y) = copy.deepcopy(module), self.text.showing()
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
        for step in range(steps + 1):
            yield float(self.text.bits(module, [self.text.secret])[0])
            if step < steps:
                module.train()
                optimizer.zero_grad(set_to_none=True)
                mean_loss(module, X, y).backward()
                optimizer.step()

    def training_on(self, module):
        """Bits of the secret as training goes on without it, epoch by epoch."""
        module = copy.deepcopy(module)
        for epoch in range(self.sizes.rebound + 1):
            yield float(self.text.bits(module, [self.text.secret])[0])
            if epoch < self.sizes.rebound:
                train(self.task, module, self.task.corrected, 900 + epoch, epochs=1, rate=1e-3)

    def quick(self, module):
        bits = self.text.bits(module, [self.text.secret, *self.candidates])
        found = metrics.exposure(bits[0], bits[1:], 10.0 ** len(self.text.secret))
        return {
            "rank": found.rank,
            "exposure": found.bits,
            "bits": float(bits[0]),
            "outside": metrics.outside(bits[0], self.bits, margin=0.2),
            "accuracy": accuracy(module, self.task.test),
            "loss": float(label_losses(module, self.task.test).mean()),
        }

    def __call__(self, module):
        relearned = metrics.relearning(self.attack(module), self.attacked)
        return self.quick(module) | {
            "relearned": relearned.ratio,
            "rebound": metrics.rebound(self.training_on(module)),
            "says": self.text.completed(module),
        }

    def nearness(self, module):
        found = self.quick(module)
        of_rank = abs(found["rank"] - 0.5) + abs(found["outside"]) / mean(self.bits)
        return of_rank + 10.0 * max(self.accuracy - found["accuracy"], 0.0)


def text_row(name, runs, seconds, retraining):
    found = [run if isinstance(run, dict) else run.measured for run in runs]
    of = {key: over_seeds([f[key] for f in found], form) for key, form in TEXT_FORMS.items()}
    row = {"strategy": name, "times as fast": faster(retraining, seconds)}
    row |= {title: of[key] for key, title in TEXT_COLUMNS.items()}
    row["verdict"] = verdict(found) if name != "retrained" else ""
    if name.startswith("expunge"):
        row["fine-tuning in that time: rank"] = over_seeds([f["equal time: rank"] for f in found], ".2f")
    else:
        row["fine-tuning in that time: rank"] = ""
    return row


TEXT_FORMS = {
    "rank": ".2f",
    "exposure": ".1f",
    "bits": ".0f",
    "accuracy": ".3f",
    "loss": ".3f",
    "relearned": ".1f",
    "rebound": ".1f",
}
TEXT_COLUMNS = {
    "rank": "rank",
    "exposure": "exposure, bits",
    "bits": "NLL, bits",
    "accuracy": "test accuracy",
    "loss": "test loss",
    "relearned": "relearned",
    "rebound": "rebound, bits",
}


def verdict(found):
    """How many runs lie where retrained networks do, by rank and by NLL, and on which side the others."""
    sides = [
        -1 if f["rank"] < 0.05 or f["outside"] < 0.0 else int(f["rank"] > 0.95 or f["outside"] > 0.0)
        for f in found
    ]
    words = {0: "as retrained", -1: "remembers", 1: "over-forgotten"}
    parts = [f"{sides.count(side)} {words[side]}" for side in (0, -1, 1) if side in sides]
    return ", ".join(parts) if len(parts) > 1 else words[sides[0]]


# Wrong labels of pictures


def picture_table(name, data, epochs, sizes, networks, say):
    task = pictures.poisoned(name, data, 0, epochs)
    again, seconds = retrained(task, range(FIRST_RETRAINED, FIRST_RETRAINED + sizes.retrainings))
    originals = {seed: trained(task, seed) for seed in range(sizes.seeds)}
    measure = PredictionMeasure(task, again)
    clean, poisoned = (mean(accuracy(m, task.test) for m in group) for group in (again, originals.values()))

    def recovered(module):
        share = (accuracy(module, task.test) - poisoned) / (clean - poisoned)
        return measure(module) | {"recovered": 100.0 * share}

    compared = Comparison(task, originals, recovered, lambda m: -recovered(m)["recovered"], say)
    run_all(compared, networks, sizes)
    about = (
        f"{len(task.data[0]):,} images, {len(task.touched):,} with the label of a neighbouring class, which the "
        "request corrects. Recovered: of the test accuracy that wrong labels cost, in per cent. Spreads: mean KL "
        "to retrained networks in units of that between them, on the touched and on test images."
    )
    columns = {
        "recovered": ("recovered, %", ".0f"),
        "accuracy": ("test accuracy", ".3f"),
        "loss": ("test loss", ".3f"),
        "touched": ("spreads, touched", ".1f"),
        "test": ("spreads, test", ".1f"),
    }
    equal = ("recovered", "fine-tuning in that time: recovered, %", ".0f")
    rows = prediction_rows(compared, again, recovered, seconds, columns, equal)
    return Table(f"Poisoned labels: {name}", about, rows), [(name, run) for run in compared.runs]


class PredictionMeasure:
    """Test accuracy and loss, and spreads on touched and test rows, as they are after the request."""

    def __init__(self, task, again):
        self.task, self.again = task, again
        X = task.data[0] if task.stays is not None else task.corrected[0]
        self.touched = X[task.touched]
        self.expected = [[self.log_p(m, rows) for m in again] for rows in (self.touched, task.test[0])]

    def log_p(self, module, X):
        return log_probabilities(module, X).numpy()

    def __call__(self, module):
        others = [
            [p for m, p in zip(self.again, part, strict=True) if m is not module] for part in self.expected
        ]
        rows = (self.touched, self.task.test[0])
        near, far = (
            metrics.spreads(self.log_p(module, X), p) if len(p) >= 3 else np.nan
            for X, p in zip(rows, others, strict=True)
        )
        return {
            "touched": near,
            "test": far,
            "accuracy": accuracy(module, self.task.test),
            "loss": float(label_losses(module, self.task.test).mean()),
        }

    def nearness(self, module):
        found = self(module)
        return found["touched"] + found["test"]


class RowsMeasure(PredictionMeasure):
    """Also how well removed rows can be told from test rows, with the retrained networks as reference."""

    def __init__(self, task, again):
        super().__init__(task, again)
        X, y = task.data
        self.parts = (X[task.touched], y[task.touched]), task.test
        self.reference = {m: [label_losses(m, part) for part in self.parts] for m in again}

    def __call__(self, module):
        losses = [label_losses(module, part) for part in self.parts]
        reference = [[found[i] for m, found in self.reference.items() if m is not module] for i in range(2)]
        seen = metrics.membership(*losses, reference=reference).auc if len(reference[0]) >= 3 else np.nan
        return super().__call__(module) | {"membership": seen}


def prediction_rows(compared, again, measure, seconds, columns, equal):
    def row(name, found, took):
        key, title, form = equal
        cells = {"strategy": name, "times as fast": faster(seconds, took)}
        cells |= {head: over_seeds([f[k] for f in found], form) for k, (head, form) in columns.items()}
        cells[title] = over_seeds([f[f"equal time: {key}"] for f in found], form) if "expunge" in name else ""
        return cells

    rows = [row("retrained", [measure(m) for m in again], seconds)]
    for name, runs in grouped(compared.runs):
        rows.append(row(name, [r.measured for r in runs], [r.seconds for r in runs]))
    return rows


# Rows, labels and columns of Adult


def people_tables(sizes, networks, say):
    known = {}
    for task in people_tasks(sizes.rows, sizes.people_epochs):
        which = tuple(
            part.double().sum().item() for part in task.corrected
        )  # two requests lead to the same data
        if which not in known:
            known[which] = retrained(task, range(FIRST_RETRAINED, FIRST_RETRAINED + sizes.retrainings))
        again, seconds = known[which]
        originals = {seed: trained(task, seed) for seed in range(sizes.seeds)}
        of_rows = task.stays is not None
        measure = (RowsMeasure if of_rows else PredictionMeasure)(task, again)
        compared = Comparison(task, originals, measure, measure.nearness, say)
        every_row = len(task.touched) > len(task.data[0]) // 2  # there is no set to forget, nor one to retain
        run_all(compared, networks, sizes, rivals=not every_row)
        columns = {
            "touched": ("spreads, touched", ".2f"),
            "test": ("spreads, test", ".2f"),
            "accuracy": ("test accuracy", ".4f"),
            "loss": ("test loss", ".4f"),
        }
        if of_rows:
            columns["membership"] = ("membership, AUC", ".3f")
        about = (
            f"{len(task.data[0]):,} rows, {len(task.touched):,} of them touched. Spreads: mean KL to retrained "
            "networks in units of that between them, so that 1 is another retrained network."
        )
        if of_rows:
            about += " Membership: LiRA, removed rows beside test rows; 0.5 sees nothing."
        if every_row:
            about += " Strategies that need a set to forget and one to retain have none here."
        equal = ("touched", "fine-tuning in that time: spreads, touched", ".2f")
        rows = prediction_rows(compared, again, measure, seconds, columns, equal)
        yield Table(f"Adult: {task.name}", about, rows), [(task.name, run) for run in compared.runs]


# All of it


def run_all(compared, networks, sizes, rivals=True):
    compared.nothing()
    if networks is not None:
        compared.ours(networks)
    compared.fine_tuning()
    if rivals:
        compared.rivals()
    if sizes.sisa:
        compared.sisa()


def grouped(runs):
    """(strategy, its runs), in the order in which they came."""
    groups = {}
    for run in runs:
        groups.setdefault(run.strategy, []).append(run)
    return groups.items()


def faster(retraining, seconds):
    mean_seconds = mean(seconds)
    return "–" if mean_seconds == 0.0 else f"{mean(retraining) / mean_seconds:.1f}"


def arguments(argv):
    parser = argparse.ArgumentParser(
        prog="python -m bench.paper.networks", description=__doc__.split("\n")[0]
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="small sizes: five minutes at most")
    add(
        "--only",
        nargs="*",
        choices=("text", "digits", "glyphs", "images", "adult"),
        help="experiments to run",
    )
    add("--images", metavar="FOLDER", help="a folder of images, one folder for each class")
    add("--results", metavar="FOLDER", help="writes FOLDER/MACHINE/networks.md and .csv")
    add("--figure", metavar="FILE", help="draws the ranks of the secret")
    for name, quick, full, text in SIZES:
        add(f"--{name}", type=int, help=f"{text} ({quick} with --quick, else {full})")
    found = parser.parse_args(argv)
    for name, quick, full, _ in SIZES:
        key = name.replace("-", "_")
        if getattr(found, key) is None:
            setattr(found, key, quick if found.quick else full)
    return found


SIZES = [  # name, --quick, without, what it is
    ("seeds", 1, 3, "networks that are to forget, for each task"),
    ("retrainings", 4, 6, "retrained networks that they are set beside"),
    ("secrets", 1, 2, "numbers in texts"),
    ("times", 20, 20, "sentences that tell the number"),
    ("characters", 24_000, 66_000, "of text"),
    ("width", 96, 128, "units of the LSTM"),
    ("text-epochs", 15, 15, "of training on text"),
    ("candidates", 2_000, 10_000, "random numbers that the secret is ranked among"),
    ("rebound", 1, 3, "epochs of further training"),
    ("picture-epochs", 40, 40, "of training on images"),
    ("glyphs", 1_500, 4_000, "letters drawn"),
    ("rows", 16_000, 32_561, "of Adult"),
    ("people-epochs", 20, 30, "of training on Adult"),
    ("sisa", 1, 1, "0 leaves SISA out"),
]


def experiments(sizes, networks, say):
    """(tables, runs) of each."""
    chosen = sizes.only or ["text", "digits", "glyphs", "adult", *(["images"] if sizes.images else [])]
    if "text" in chosen:
        yield text_tables(sizes, networks, say)
    data = {
        "digits": lambda: pictures.digits(),
        "glyphs": lambda: pictures.glyphs(sizes.glyphs),
        "images": lambda: pictures.image_folder(sizes.images),
    }
    for name, load in data.items():
        if name in chosen:
            table, runs = picture_table(name, load(), sizes.picture_epochs, sizes, networks, say)
            yield [table], runs
    if "adult" in chosen:
        for table, runs in people_tables(sizes, networks, say):
            yield [table], runs


def main(argv=None):
    sizes = arguments(argv)
    torch.set_num_threads(1)
    try:
        import expunge.torch as networks
    except ImportError as error:
        raise SystemExit(str(error)) from None
    tables, runs = [], []
    with benchmark.use_threads(1):
        suite = report.Suite(__doc__, benchmark.machine(), [f"PyTorch {torch.__version__}, 1 thread"])
        for found, more in experiments(
            sizes, networks, say=lambda line: print(line, file=sys.stderr, flush=True)
        ):
            tables, runs = tables + found, runs + more
    data = "EXPUNGE_DATA=... " if os.environ.get("EXPUNGE_DATA") else ""
    command = f"{data}python -m bench.paper.networks {shlex.join(sys.argv[1:] if argv is None else argv)}"
    text = "\n\n".join([suite.markdown([command]).rstrip(), *(t.markdown() for t in tables)]) + "\n"
    print(text)
    if sizes.results:
        path = Path(sizes.results) / report.folder_of(suite.machine) / "networks.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        write_csv(path.with_suffix(".csv"), runs)


def write_csv(path, runs):
    """Every run, and every number of it, in a line."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["task", "strategy", "seed", "seconds", "what", "value", "note"])
        for task, run in runs:
            for what, value in run.measured.items():
                shown = f"{value:.6g}" if isinstance(value, float) else value
                note = run.note or " ".join(f"{k}={v}" for k, v in run.knob.items())
                writer.writerow([task, run.strategy, run.seed, f"{run.seconds:.3f}", what, shown, note])


if __name__ == "__main__":
    main()
