"""How the cost of a request grows with d, n, batch and `within`: `python bench/plot_streams.py FILE`."""

import sys
from time import perf_counter

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

import expunge as ex
from expunge.benchmark import use_threads

matplotlib.rcParams["svg.hashsalt"] = "expunge"  # the same figures make the same file

N, D, REQUESTS = 20_000, 100, 200
NO_LIMIT = {"tolerance": 1e9}  # a promise that every step keeps


def problem(n, d, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) / np.sqrt(d)
    y = (rng.random(n) < expit(X @ rng.standard_normal(d))).astype(np.float64)
    return X, y


def cost(n, d, *, promise=NO_LIMIT, batch=1, kind="remove", method="auto"):
    """Microseconds for each row (median of three streams), and the passes of a request."""
    X, y = problem(n, d)
    model = ex.LogisticRegression(fit_intercept=False).fit(X, y)
    requests = min(REQUESTS, n // (4 * batch)) if batch > 1 else REQUESTS
    spent, passes = [], 0
    for seed in range(3):
        un = ex.Unlearner(model, X, y, **promise)
        rows = np.random.default_rng(seed).permutation(n)[: requests * batch].reshape(requests, batch)
        started = perf_counter()
        for some in rows:
            which = int(some[0]) if batch == 1 else some
            request = ex.RemoveRows(which) if kind == "remove" else ex.CorrectLabels(which, 1.0 - y[which])
            passes += un.apply(request, method=method).passes
        spent.append((perf_counter() - started) / rows.size)
        model = ex.LogisticRegression(fit_intercept=False).fit(X, y)
    return 1e6 * float(np.median(spent)), passes / (3 * requests)


def refit(n, d):
    """Microseconds of a warm refit by scikit-learn's lbfgs at its default, one row less each time."""
    X, y = problem(n, d)
    model = LogisticRegression(fit_intercept=False, warm_start=True).fit(X, y)
    spent = []
    for k in range(1, 6):
        started = perf_counter()
        model.fit(X[k:], y[k:])
        spent.append(perf_counter() - started)
    return 1e6 * float(np.median(spent))


def main(path):
    figure = Figure(figsize=(9.5, 7.0), layout="constrained")
    axes = figure.subplots(2, 2)
    by_d, by_n, by_batch, by_distance = axes.ravel()

    dimensions = [25, 50, 100, 200, 400, 800]
    for kind in ("remove", "label"):
        by_d.loglog(dimensions, [cost(N, d, kind=kind)[0] for d in dimensions], "o-", label=f"{kind} one row")
    micros = [20, 50, 100, 200]
    by_d.set(xticks=dimensions, xticklabels=dimensions, yticks=micros, yticklabels=micros)
    by_d.set(xlabel="d", title=f"n = {N:,}, no iterations")

    sizes = [2_000, 5_000, 10_000, 30_000, 100_000]
    by_n.loglog(sizes, [cost(n, D, promise={})[0] for n in sizes], "o-", label="within 0.01, the default")
    by_n.loglog(
        sizes, [cost(n, D, promise={}, method="exact")[0] for n in sizes], "s--", label='method="exact"'
    )
    by_n.loglog(sizes, [refit(n, D) for n in sizes], "^:", label="lbfgs, warm, its default")
    by_n.set(xlabel="n", title=f"one row, d = {D}, iterations included")

    batches = [1, 3, 10, 30, 100, 300]
    by_batch.loglog(batches, [cost(N, D, batch=m)[0] for m in batches], "o-", label="remove")
    by_batch.set(xlabel="rows in a request", ylabel="µs per row", title=f"n = {N:,}, d = {D}, no iterations")

    distances = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    for n in (N, 100_000):
        points = [cost(n, D, promise={"within": t}) for t in distances]
        by_distance.loglog(distances, [p[0] for p in points], "o-", label=f"n = {n:,}; passes a request")
        for t, (height, passes) in zip(distances, points, strict=True):
            by_distance.annotate(
                f"{passes:.2g}",
                (t, height),
                textcoords="offset points",
                xytext=(0, 7),
                fontsize=8,
                ha="center",
            )
    by_distance.set(xlabel="within, standard errors", title=f"one row, d = {D}, iterations included")

    for axis in (by_d, by_n, by_distance):
        axis.set_ylabel("µs per request")
    for axis in axes.ravel():
        axis.grid(True, which="major", alpha=0.3)
        axis.margins(y=0.15)
        axis.minorticks_off()
        axis.legend(fontsize=8)
    build = ex.build_info()
    figure.suptitle(
        f"Logistic regression, requests by apply(); expunge {ex.__version__}, {build['isa']}, 1 thread",
        fontsize=10,
    )
    figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None)


if __name__ == "__main__":
    with use_threads(1):
        main(sys.argv[1])
