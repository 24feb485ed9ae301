"""The experiments with networks, each a table of all strategies."""

from dataclasses import dataclass
from statistics import mean, median

import numpy as np

from .. import report
from . import people, pictures
from .comparison import FIRST_RETRAINED, REFUSED, Comparison, Run, retrained, trained
from .data import FIRST_SEED
from .measures import PictureMeasure, PredictionMeasure, RowsMeasure, TextMeasure
from .text import Text, numbers

EQUAL = "fine-tuning in that time: "

TEXT = """A character LSTM ({width} units) on {characters:,} characters, which say a telephone number
{times} times and {decoys} other numbers once each. Rank: share of random numbers that the network finds
likelier, uniform if it never saw this one. NLL: of the number, in bits. Verdict: of rank within .05 to
.95 and NLL within the range of retrained networks ± 20 %. Relearned: bits back after 8 steps of training
on the number, in units of those of retrained networks. Rebound: bits back after {rebound} more epochs on
corrected text, and NLL then: where it ends as low as that of retrained networks, no memory came back."""
PICTURES = """{n:,} images, {touched:,} with the label of a neighbouring class, which the request
corrects. Recovered: of the test accuracy that wrong labels cost, in per cent. Spreads: mean KL to
retrained networks in units of that between them, on touched and on test images."""
PEOPLE = """{n:,} rows, {touched:,} of them touched. Spreads: mean KL to retrained networks in units of
that between them, on touched and on test rows; 1 is another retrained network."""
MEMBERSHIP = " Membership: area under the curve of LiRA, removed rows beside test rows; .5 sees nothing."
NO_SETS = " Strategies that need a set to forget and another to retain have none here."

OF_TEXT = [  # heading, number, format
    ("rank", "rank", ".2f"),
    ("exposure, bits", "exposure", ".1f"),
    ("NLL, bits", "bits", ".0f"),
    ("test accuracy", "accuracy", ".3f"),
    ("test loss", "loss", ".3f"),
    ("relearned", "relearned", ".1f"),
    ("rebound, bits", "rebound", ".1f"),
    ("NLL then, bits", "settled", ".0f"),
    (EQUAL + "rank", "equal time: rank", ".2f"),
]
OF_PICTURES = [
    ("recovered, %", "recovered", ".0f"),
    (EQUAL + "recovered, %", "equal time: recovered", ".0f"),
    ("test accuracy", "accuracy", ".3f"),
    ("test loss", "loss", ".3f"),
    ("spreads, touched", "touched", ".1f"),
    ("spreads, test", "tested", ".1f"),
]
OF_PEOPLE = [
    ("spreads, touched", "touched", ".2f"),
    (EQUAL + "spreads, touched", "equal time: touched", ".2f"),
    ("spreads, test", "tested", ".2f"),
    (EQUAL + "spreads, test", "equal time: tested", ".2f"),
    ("test accuracy", "accuracy", ".4f"),
    ("test loss", "loss", ".4f"),
]
OF_ROWS = [*OF_PEOPLE, ("membership", "membership", ".3f")]


@dataclass(frozen=True)
class Table:
    """A heading, a line about it, rows of texts by column, and the runs that they come from."""

    title: str
    about: str
    rows: list
    runs: list

    def markdown(self):
        return "\n".join([f"## {self.title}", "", self.about, "", *report.table(self.rows)])


def first_seeds(sizes):
    """Of networks that are to forget."""
    return range(FIRST_SEED, FIRST_SEED + sizes.seeds)


def text_tables(sizes, networks, say):
    """All secrets in one table, and in another what each network says next."""
    secrets = numbers(sizes.secrets, np.random.default_rng(FIRST_SEED + 7))
    options = {"width": sizes.width, "epochs": sizes.text_epochs}
    texts = [Text(secret, sizes.times, sizes.characters, **options) for secret in secrets]
    again, seconds = [], []
    for seed in range(
        sizes.retrainings
    ):  # by turns with words and with other numbers in the place of the secret
        modules, spent = retrained(texts[0].task(seed % 2), [FIRST_RETRAINED + seed])
        again, seconds = again + modules, seconds + spent
        say(f"text, retrained {seed}: {spent[0]:.2f} s")
    runs = []
    for text in texts:
        measure = TextMeasure(text, again, sizes)
        originals = {seed: trained(text.task(), seed) for seed in first_seeds(sizes)}
        compared = Comparison(text.task(), originals, measure, say)
        compared.retrained(again, seconds)
        compared.all(networks)
        runs += compared.runs
    about = TEXT.format(decoys=texts[0].decoys, **vars(sizes))
    rows = table_rows(runs, OF_TEXT, verdict)
    shown = [run for run in runs if run.seed in (FIRST_SEED, FIRST_RETRAINED, FIRST_RETRAINED + 1)]
    says = [
        {"request": run.task, "strategy": run.strategy, "says": f"`{run.measured['says']}`"} for run in shown
    ]
    yield Table("A number in a text", about, rows, runs)
    yield Table(
        "What it says", 'The likeliest characters after "my telephone number is", first seed.', says, []
    )


def picture_table(name, data, sizes, networks, say):
    """Labels of one set of images."""
    task = pictures.poisoned(name, data, FIRST_SEED, sizes.picture_epochs)
    again, seconds = retrained(task, range(FIRST_RETRAINED, FIRST_RETRAINED + sizes.retrainings))
    originals = {seed: trained(task, seed) for seed in first_seeds(sizes)}
    compared = Comparison(task, originals, PictureMeasure(task, again, originals.values()), say)
    compared.retrained(again, seconds)
    compared.all(networks)
    about = PICTURES.format(n=len(task.data[0]), touched=len(task.touched))
    return Table(f"Poisoned labels: {name}", about, table_rows(compared.runs, OF_PICTURES), compared.runs)


def people_tables(sizes, networks, say):
    """A table for each request about rows, labels and columns of Adult."""
    known = {}
    for task in people.tasks(sizes.rows, sizes.people_epochs):
        data = tuple(part.double().sum().item() for part in task.corrected)  # of two requests it is the same
        if data not in known:
            known[data] = retrained(task, range(FIRST_RETRAINED, FIRST_RETRAINED + sizes.retrainings))
        again, seconds = known[data]
        originals = {seed: trained(task, seed) for seed in first_seeds(sizes)}
        removed = task.stays is not None
        measure = (RowsMeasure if removed else PredictionMeasure)(task, again)
        compared = Comparison(task, originals, measure, say)
        compared.retrained(again, seconds)
        sets = len(task.touched) < len(task.data[0]) // 2
        compared.all(networks, sets)
        about = PEOPLE.format(n=len(task.data[0]), touched=len(task.touched))
        about += MEMBERSHIP * removed + NO_SETS * (not sets)
        rows = table_rows(compared.runs, OF_ROWS if removed else OF_PEOPLE)
        yield Table(f"Adult: {task.name}", about, rows, compared.runs)


def table_rows(runs, columns, judge=None):
    """A row for each strategy: the median over its runs, and their range."""
    groups = {}
    for run in runs:
        groups.setdefault(run.strategy, []).append(run)
    retraining = mean(run.seconds for run in groups["retrained"])
    rows = []
    for strategy, group in groups.items():
        spent = mean(run.seconds for run in group)
        refused = sum(REFUSED in run.settings for run in group)
        which = f"{refused} of {len(group)} refused" if refused < len(group) else "refused: nothing changed"
        name = f"{strategy} ({which})" if refused else strategy
        row = {"strategy": name, "times as fast": f"{retraining / spent:.1f}" if spent else ""}
        row |= {
            heading: over_runs([run.measured.get(key, np.nan) for run in group], form)
            for heading, key, form in columns
        }
        rows.append(row | ({"verdict": judge(group)} if judge else {}))
    return rows


def over_runs(values, form):
    """Median and, if there are several, the range."""
    values = np.array(values, dtype=float)
    values = values[~np.isnan(values)]
    if not values.size:
        return ""
    low, middle, high = (format(v, form) for v in (values.min(), median(values), values.max()))
    return middle if low == high else f"{middle} ({low} to {high})"


def verdict(runs):
    """How many lie where retrained networks do, and on which side of these the others."""
    if runs[0].strategy == "retrained":
        return ""
    words = {0: "as retrained", -1: "remembers", 1: "over-forgotten"}
    sides = [side_of(run) for run in runs]
    counted = {side: sides.count(side) for side in words if side in sides}
    if len(counted) == 1:
        return words[sides[0]]
    return ", ".join(f"{count} {words[side]}" for side, count in counted.items())


def side_of(run: Run):
    """0: rank within .05 to .95 and NLL within the range of retrained networks ± 20 %."""
    rank, outside = run.measured["rank"], run.measured["outside"]
    if rank < 0.05 or outside < 0.0:
        return -1
    return int(rank > 0.95 or outside > 0.0)
