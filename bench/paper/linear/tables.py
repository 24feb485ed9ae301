"""Tables of the comparison: from records of cells to rows of text."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ... import report
from .cells import NEAR

FLOOR = 1e-7  # residuals below it are rounding: how far below differs from machine to machine
SCORES = ("accuracy", "macro_f1", "pr_auc")
TEXT = {"macro_f1": "macro-F1", "roc_auc": "ROC-AUC", "pr_auc": "PR-AUC"}
TIGHT = ("to 1e-8, cold", "to 1e-8, warm")  # retraining, where a strategy ends at rounding too
RETRAINED = ("cold", "warm", *TIGHT)


@dataclass(frozen=True)
class Table:
    """A heading, what it shows, rows of texts by column, what draws them, and whether each was drawn once."""

    name: str
    title: str
    about: str
    rows: list
    draw: Callable | None = None
    once: bool = False

    def markdown(self):
        return "\n".join([f"## {self.title}", "", self.about, "", *report.table(self.rows)])


def small(x):
    """A number that may be rounding."""
    if np.isnan(x):
        return ""
    return f"< {FLOOR:g}" if x < FLOOR else f"{x:.2g}"


def mean_and_max(values, form=small):
    values = [v for v in values if v is not None and not np.isnan(v)]
    if not values:
        return ""
    mean, most = form(float(np.mean(values))), form(float(np.max(values)))
    return mean if mean == most else f"{mean} ({most})"


def of(records, name):
    return [record.get(name, np.nan) for record in records]


def grouped(records, *names):
    groups = {}
    for record in records:
        groups.setdefault(tuple(record[name] for name in names), []).append(record)
    return groups


def comparison(records):
    """A row for each strategy: how near, how good, how fast, over seeds."""
    rows = []
    for (data, kind, amount), group in grouped(records, "data", "kind", "amount").items():
        by_strategy = grouped(group, "strategy")
        of_retraining = {how: fastest_retraining(group, how) for how in RETRAINED}
        for (strategy,), runs in by_strategy.items():
            row = {"data": data, "request": f"{kind}, {amount:,}", "strategy": strategy}
            granted = [run for run in runs if not run["refused"]]
            if not granted:
                rows.append(row | dict.fromkeys(HEADINGS, "") | {"note": f"refused: {runs[0]['refused']}"})
                continue
            rows.append(row | numbers(granted, of_retraining))
    return rows


HEADINGS = (
    "residual",
    "standard errors",
    "relative",
    *(TEXT.get(score, score) for score in SCORES),
    "KL",
    "logit gap",
    "membership",
    "ms",
    "x cold",
    "x warm",
    "x to 1e-8, cold",
    "x to 1e-8, warm",
    "passes",
    "note",
)


def numbers(runs, retraining):
    seconds = float(np.median(of(runs, "seconds")))
    found = {
        "residual": mean_and_max(of(runs, "residual")),
        "standard errors": mean_and_max(of(runs, "distance")),
        "relative": mean_and_max(of(runs, "relative")),
        **scores(runs),
        "KL": mean_and_max(of(runs, "mean_kl")),
        "logit gap": mean_and_max(of(runs, "largest_gap")),
        "membership": with_retrained(runs, "membership"),
        **times(seconds, retraining, ("cold", "warm")),
        **dict.fromkeys((f"x {how}" for how in TIGHT), ""),
        **(times(seconds, retraining, TIGHT) if np.max(of(runs, "residual")) <= FLOOR else {}),
        "passes": f"{np.mean(of(runs, 'passes')):.3g}",
    }
    near = [run.get("distance", np.nan) <= NEAR for run in runs]
    notes = ["retrained, to 0.01" if all(near) else "", as_retrained(runs)]
    return found | {"note": ", ".join(filter(None, notes))}


def scores(runs):
    return {TEXT.get(s, s): f"{np.mean(of(runs, s)):.3f}" for s in SCORES}


def as_retrained(runs):
    same = [all(round(run[s], 3) == round(run[f"retrained_{s}"], 3) for s in SCORES) for run in runs]
    return "scores as retrained" if all(same) else ""


def times(seconds, retraining, names):
    """Milliseconds, and how many times as long retraining takes."""
    ratios = {name: retraining[name] / seconds if seconds > 0.0 else np.nan for name in names}
    return {
        "ms": f"{1e3 * seconds:.3g}",
        **{f"x {name}": "" if np.isnan(ratio) else f"{ratio:.3g}" for name, ratio in ratios.items()},
    }


def with_retrained(runs, name):
    values = of(runs, name)
    if np.isnan(values).all():
        return ""
    return f"{np.mean(values):.3f} ({np.mean(of(runs, 'retrained_' + name)):.3f})"


def fastest_retraining(records, how):
    """Median seconds of the fastest one, of names that end so, that ends near."""
    spent = {}
    for record in records:
        retrains = record["strategy"].endswith(how) and not record["refused"]
        if retrains and record.get("distance", np.inf) <= NEAR:
            spent.setdefault(record["strategy"], []).append(record["seconds"])
    return min((float(np.median(s)) for s in spent.values()), default=np.nan)


def runtime(records):
    """The fastest strategies at each size, and exact's place."""
    rows = []
    for (data, kind, _), group in grouped(records, "data", "kind", "amount").items():
        spent = {
            strategy: float(np.median(of(runs, "seconds")))
            for (strategy,), runs in grouped(group, "strategy").items()
            if not any(run["refused"] for run in runs)
        }
        near = {
            s: t
            for s, t in spent.items()
            if all(r.get("distance", np.inf) <= NEAR for r in group if r["strategy"] == s)
        }
        best = sorted(near, key=near.get)[:3]
        first = group[0]
        rows.append(
            {
                "data": data,
                "request": kind,
                "rows touched": f"{first['touched']:,}",
                "n": f"{first['rows']:,}",
                "d": f"{first['columns']:,}",
                "within 0.01": ", ".join(sorted(near)),
                "fastest within 0.01": ", ".join(f"{s} {1e3 * near[s]:.3g} ms" for s in best),
            }
        )
    return rows


def sequences(records):
    rows = []
    for record in records:
        for k, proven, true, spent, total in zip(
            *(record[name] for name in ("at", "proven", "true", "spent", "total")), strict=True
        ):
            rows.append(
                {
                    "data": record["data"],
                    "requests": str(k),
                    "proven, standard errors": small(proven),
                    "true": small(true),
                    "budget spent": f"{100 * spent / total:.3g} %",
                }
            )
    return rows


def certified(records):
    rows = []
    names = ("data", "kind", "amount", "way", "epsilon")
    for (data, kind, amount, way, epsilon), runs in grouped(records, *names).items():
        retrained = [record for run in runs for record in run["retraining"]]
        retraining = {how: fastest_retraining(retrained, how) for how in ("cold", "warm")}
        own = float(np.median(of(runs, "seconds")))
        seconds = retraining["cold"] if np.isnan(own) else own
        rows.append(
            {
                "data": data,
                "request": f"{kind}, {amount:,}",
                "way": way,
                "epsilon": f"{epsilon:g}",
                "sigma": mean_and_max(of(runs, "sigma"), lambda x: f"{x:.2g}"),
                **scores(runs),
                **times(seconds, retraining, retraining),
                "note": ", ".join(filter(None, [as_retrained(runs), runs[0]["note"]])),
            }
        )
    return rows
