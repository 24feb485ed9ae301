"""The experiments, each a few tables: which requests, which strategies, which data."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from . import certified, figures, tables
from .cells import NEAR, compare, sequence
from .strategies import BY_NAME, STRATEGIES
from .studies import made
from .tables import Table

SHARES = (0.01, 0.05, 0.2)  # of labels that are corrected
SWIFT = (  # strategies of the map and of runtimes
    "exact",
    "auto",
    "first order",
    "second order",
    "one step (Guo)",
    "retraining, warm",
    "newton-cholesky, cold",
    "newton-cg, warm",
    "lbfgs, warm",
)


@dataclass(frozen=True)
class Sizes:
    """How much is run."""

    full: bool
    seeds: int


@dataclass(frozen=True)
class Experiment:
    """Its name, and what makes its tables of (studies, sizes, cells, say)."""

    name: str
    run: Callable


def columns(studies, sizes, cells, say):
    """Efficacy and fidelity where columns are revoked."""
    records = []
    for study in studies:
        model = study.model()
        for count in study.counts:
            for seed in range(sizes.seeds):
                records += compare(study, model, "revoke columns", count, seed, STRATEGIES, cells, say)
    about = (
        "Columns are drawn from the sensitive ones. `nothing` only drops their coefficients; the influence "
        "form keeps the Hessian of the data before."
    )
    rows = tables.comparison(records)
    yield Table("columns", "Columns revoked", about, rows, partial(figures.scatter, records))


def labels_and_values(studies, sizes, cells, say):
    records = []
    for study in studies:
        model, n = study.model(), study.X.shape[0]
        for seed in range(sizes.seeds):
            for share in SHARES if sizes.full else SHARES[1:2]:
                records += compare(study, model, "correct labels", share, seed, STRATEGIES, cells, say)
            records += compare(study, model, "replace values", n // 50, seed, STRATEGIES, cells, say)
    about = "Labels of a share of rows are the other ones afterwards; cells of one column become 0."
    yield Table("labels", "Labels corrected, values replaced", about, tables.comparison(records))


def rows_removed(studies, sizes, cells, say):
    """Rows, with the field's methods of removal; also runtimes over what a request touches."""
    records = []
    for study in studies:
        model, n = study.model(), study.X.shape[0]
        for seed in range(sizes.seeds):
            for count in (1, 100, n // 20) if sizes.full else (1, n // 20):
                records += compare(study, model, "remove rows", count, seed, STRATEGIES, cells, say)
    about = "Membership: AUC of losses of rows that left beside test rows, and in brackets of the retrained."
    yield Table("rows", "Rows removed", about, tables.comparison(records))


def runtimes(studies, sizes, cells, say):
    """Over rows and columns touched, n and d."""
    swift = [BY_NAME[name] for name in SWIFT]
    grid = [(2_000, 50), (20_000, 50), (5_000, 200)]
    if sizes.full:
        grid += [(100_000, 50), (20_000, 200), (20_000, 1_000)]
    records = []
    for n, d in grid:
        study = made(n, d)
        model = study.model()
        for count in (1, n // 100, n // 10):
            records += compare(study, model, "remove rows", count, 0, swift, cells, say)
        for count in study.counts:
            records += compare(study, model, "revoke columns", count, 0, swift, cells, say)
    about = "Made data. Strategies that end within 0.01 standard errors, and the three fastest of them."
    yield Table("runtimes", "Runtime over rows, columns, n and d", about, tables.runtime(records), once=True)


def sequences(studies, sizes, cells, say):
    records = []
    for study in studies:
        model, count = study.model(), 200 if sizes.full else 30
        key = f"{study.name}|sequence|{count}"
        records.append(cells.get(key, partial(sequence, study, model, count, 0)))
        say(key)
    about = (
        "Rows leave one after the other, by `auto`: how far from retraining it is proven to be, and is. The "
        "budget is of noise in the objective (sigma 1, epsilon 0.5, delta 0.01) under second-order updates."
    )
    rows = tables.sequences(records)
    yield Table("sequences", "Sequences of requests", about, rows, partial(figures.lines, records), once=True)


def noise(studies, sizes, cells, say):
    """Noise against accuracy at equal (epsilon, delta)."""
    records = []
    for study in studies:
        records += certified.records(study, sizes.seeds, cells, say)
    about = (
        "Models that are (epsilon, 0.01)-certified, or said to be. `release` takes noise for what `auto` "
        "leaves. The source paper's way takes it from the residual that a second-order update left, after "
        "the fact, though noise in the objective has to be chosen in advance. Private training has hidden "
        "any one row before it was asked, and answers for rows, not for columns. ms are of the request, with "
        "its release."
    )
    rows = tables.certified(records)
    yield Table("certified", "Noise against accuracy", about, rows, partial(figures.noise, records))


def which_when(studies, sizes, cells, say):
    """The fastest strategy within 0.01 standard errors, over sizes and shares of rows."""
    swift = [BY_NAME[name] for name in SWIFT]
    grid = [(1_000, 30, 1.0), (10_000, 30, 1.0), (10_000, 200, 1.0), (5_000, 1_000, 0.02)]
    if sizes.full:
        grid += [(100_000, 30, 1.0), (50_000, 200, 1.0), (2_000, 1_000, 1.0), (5_000, 4_000, 0.01)]
    rows = []
    for n, d, density in grid:
        study = made(n, d, density)
        model = study.model()
        for count in sorted({1, n // 100, n // 10}):
            records = compare(study, model, "remove rows", count, 0, swift, cells, say)
            near = [r for r in records if not r["refused"] and r.get("distance", np.inf) <= NEAR]
            best = sorted(near, key=lambda r: r["seconds"])
            rows.append(
                {
                    "n": f"{n:,}",
                    "d": f"{d:,}",
                    "sparsity": "dense" if density == 1.0 else f"{100 * density:g} %",
                    "rows touched": f"{count:,}",
                    "fastest": best[0]["strategy"] if best else "none",
                    "ms": f"{1e3 * best[0]['seconds']:.3g}" if best else "",
                    "next": f"{best[1]['strategy']} {1e3 * best[1]['seconds']:.3g} ms"
                    if len(best) > 1
                    else "",
                }
            )
    about = "The fastest strategy that ends within 0.01 standard errors of retraining. Made data."
    yield Table("map", "Which method when", about, rows, partial(figures.which_when, rows), once=True)


EXPERIMENTS = [
    Experiment("columns", columns),
    Experiment("labels", labels_and_values),
    Experiment("rows", rows_removed),
    Experiment("runtimes", runtimes),
    Experiment("sequences", sequences),
    Experiment("certified", noise),
    Experiment("map", which_when),
]
