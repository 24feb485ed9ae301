"""Drebin, certified: test scores of released models beside retraining's and the source paper's.

`EXPUNGE_DATA=... python bench/certified_drebin.py` prints the table; --json prints it as JSON.
"""

import argparse
import copy
import json
import os
import sys
from collections import defaultdict
from pathlib import Path
from time import perf_counter

import numpy as np
import sklearn
import sklearn.linear_model as sk

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from problems import drebin, equal_to_3_decimals, scores

import expunge as ex
from expunge import benchmark
from expunge.accounting import guo_mu
from expunge.benchmark import use_threads

ALPHA, EPSILON, DELTA = 1.0, 0.1, 0.01  # the source paper's
TOLERANCE = 1e-8
FINER = 1e-9  # for rounding, whose grid is wide
COUNTS = (10, 50, 100)
DRAWS = 3  # of the paper's noise, for each combination
SCORES = ("accuracy", "macro-F1", "PR-AUC")

PAPER = {  # its stored figures, with the noise that certifies its second-order update, and of retraining
    10: {"second order": (0.9653, 0.787), "retraining": (0.977, None), "residual": 0.232},
    50: {"second order": (0.9282, 0.622), "retraining": (0.977, None), "residual": 2.24},
    100: {"second order": (0.9529, 0.488), "retraining": (0.977, None), "residual": 5.99},
}


def unlearner(model, tolerance=TOLERANCE):
    """Of a copy, with Drebin's training rows."""
    data = drebin()
    return ex.Unlearner(copy.deepcopy(model), data.X, data.y, tolerance=tolerance)


def timed(function):
    started = perf_counter()
    answer = function()
    return answer, perf_counter() - started


class Runs:
    """What the models of one kind scored, after some number of features was revoked."""

    def __init__(self):
        self.scores, self.numbers, self.equal = defaultdict(list), defaultdict(list), defaultdict(list)

    def add(self, model, X, retrained=None, **numbers):
        """Scores of a model on the test rows, whether equal to `retrained`; and numbers beside them."""
        found = scores(model, X, drebin().y_test)
        for name, value in found.items():
            self.scores[name].append(value)
            if retrained is not None:
                self.equal[name].append(equal_to_3_decimals(value, retrained[name]))
        for name, value in numbers.items():
            self.numbers[name].append(value)
        return found

    def row(self, count, name, source="measured"):
        return {
            "revoked": count,
            "model": name,
            "source": source,
            **{score: float(np.mean(values)) for score, values in self.scores.items()},
            "equal": {score: [int(np.sum(values)), len(values)] for score, values in self.equal.items()},
            **{
                key: float((np.median if key == "seconds" else np.mean)(values))
                for key, values in self.numbers.items()
            },
        }


def measure(base, count, combinations):
    """The rows of one number of revoked features, and what is to be said of the paper's noise."""
    runs, data = defaultdict(Runs), drebin()
    paper_noise = []
    for chosen in combinations:
        request = ex.RevokeFeatures(chosen)
        un = unlearner(base)
        _, applied = timed(lambda un=un, request=request: un.apply(request))
        X_test = data.X_test[:, un.get_support()]
        X, y, _ = un.corrected_data()

        retrained, seconds = timed(un.retrain)
        expected = runs["retraining, expunge"].add(retrained, X_test, seconds=seconds)
        other = sk.LogisticRegression(
            C=1 / ALPHA, fit_intercept=False, solver="newton-cg", tol=1e-8, max_iter=5000
        )
        _, seconds = timed(lambda other=other, X=X, y=y: other.fit(X, y))
        runs["retraining, scikit-learn newton-cg 1e-8"].add(other, X_test, expected, seconds=seconds)

        finer = unlearner(base, FINER)
        _, applied_finer = timed(lambda un=finer, request=request: un.apply(request))
        for name, mechanism, source, spent in (
            ("output", "output", un, applied),
            ("rounding", "rounding", un, applied),
            (f"rounding, tolerance {FINER:g}", "rounding", finer, applied_finer),
        ):
            released, seconds = timed(
                lambda un=source, mechanism=mechanism: un.release(EPSILON, DELTA, mechanism=mechanism)
            )
            certificate = released.certificate_
            scale = {"grid": certificate.grid} if mechanism == "rounding" else {"sigma": certificate.sigma}
            runs[f"released, {name}"].add(released, X_test, expected, seconds=spent + seconds, **scale)

        sigma = TOLERANCE / guo_mu(EPSILON, DELTA)
        noisy = unlearner(noised(sigma))
        released, seconds = timed(
            lambda un=noisy, request=request: (
                un.apply(request) and un.release(EPSILON, DELTA, mechanism="objective")
            )
        )
        runs["released, objective"].add(released, X_test, expected, seconds=seconds, sigma=sigma)

        beta = unlearner(base).apply(request, method="second_order").residual
        sigma = beta / guo_mu(EPSILON, DELTA)
        for _ in range(DRAWS):
            noisy = unlearner(noised(sigma))
            update, seconds = timed(
                lambda un=noisy, request=request: un.apply(request, method="second_order")
            )
            runs["the paper's way: noise for the residual of a second-order update"].add(
                noisy.model, X_test, expected, seconds=seconds, sigma=sigma, beta=beta
            )
            paper_noise.append(update.residual / beta)
    rows = [kind.row(count, name) for name, kind in runs.items()]
    stored = PAPER[count]
    for name in ("retraining", "second order"):
        accuracy, f1 = stored[name]
        rows.append(
            {
                "revoked": count,
                "model": f"source paper, stored: {name}",
                "source": "paper",
                "accuracy": accuracy,
            }
            | ({} if f1 is None else {"macro-F1": f1})
            | ({"beta": stored["residual"]} if name == "second order" else {})
        )
    return rows, paper_noise


def noised(sigma):
    """The paper's model, trained with noise of the operating system in its objective."""
    data = drebin()
    return ex.LogisticRegression(ALPHA, fit_intercept=False, noise=sigma, tol=TOLERANCE).fit(data.X, data.y)


def table(rows):
    """Markdown."""
    yield "| revoked | model | noise | accuracy | macro-F1 | PR-AUC | equal to retraining | seconds |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        noise = next((f"{name} {row[name]:.3g}" for name in ("sigma", "grid") if name in row), "")
        values = [f"{row[name]:.4f}" if name in row else "" for name in SCORES]
        equal = ", ".join(
            "yes" if yes == of else f"no ({yes} of {of})" for yes, of in row.get("equal", {}).values()
        )
        seconds = f"{row['seconds']:.3f}" if "seconds" in row else ""
        name = f"*{row['model']}*" if row["source"] == "paper" else row["model"]
        yield f"| {row['revoked']} | {name} | {noise} | {' | '.join(values)} | {equal} | {seconds} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10, help="random combinations of features")
    parser.add_argument("--seed", type=int, default=0, help="of these combinations; noise is never seeded")
    parser.add_argument("--json", action="store_true", help="print rows as JSON in place of the table")
    arguments = parser.parse_args()
    if "EXPUNGE_DATA" not in os.environ:
        parser.error("EXPUNGE_DATA is not set: it names the folder with drebin.npz, see docs/data.md")

    data, rng = drebin(), np.random.default_rng(arguments.seed)
    base = ex.LogisticRegression(ALPHA, fit_intercept=False, tol=TOLERANCE).fit(data.X, data.y)
    before = Runs()
    before.add(base, data.X_test)
    rows, remarks = [before.row(0, "before")], []
    pool = data.heaviest_urls(base)
    for count in COUNTS:
        combinations = [rng.permutation(pool)[:count] for _ in range(arguments.repeats)]
        measured, ratios = measure(base, count, combinations)
        rows += measured
        beta = next(row["beta"] for row in measured if "beta" in row)
        remarks.append(
            f"{count} revoked: a second-order update leaves {beta:.3g} (the paper's: "
            f"{PAPER[count]['residual']:g}); trained with noise for that, it leaves {np.median(ratios):.2g} "
            f"times as much (median), and more than the noise is for in {np.sum(np.array(ratios) > 1)} of "
            f"{len(ratios)}"
        )
    majority = float(np.mean(data.y_test == 0))
    machine = benchmark.machine()
    if arguments.json:
        print(json.dumps({"machine": machine, "majority": majority, "rows": rows, "remarks": remarks}))
        return
    print("\n".join([*benchmark.header(machine), f"scikit-learn {sklearn.__version__}"]))
    print(
        f"Drebin, {data.X.shape[0]:,} x {data.X.shape[1]:,}, {len(data.y_test):,} test rows, majority class "
        f"{majority:.4f}; rows normalised, alpha {ALPHA:g}, no intercept; epsilon {EPSILON:g}, delta "
        f"{DELTA:g}; tolerance {TOLERANCE:g}; means (seconds: medians) over {arguments.repeats} combinations "
        f"of the {pool.size} heaviest of {data.url_features.size:,} URL features"
    )
    print("\n".join(remarks))
    print()
    print("\n".join(table(rows)))


if __name__ == "__main__":
    with use_threads(1):
        main()
