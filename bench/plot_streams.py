"""How the cost of a request grows with d, n, batch and tolerance: `python bench/plot_streams.py FILE`."""

import sys
from time import perf_counter

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy.special import expit

import expunge as ex
from expunge.benchmark import use_threads

matplotlib.rcParams["svg.hashsalt"] = "expunge"  # the same figures make the same file

N, D, REQUESTS = 20_000, 100, 200
NO_LIMIT = 1e9  # a tolerance that every step meets


def problem(n, d, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) / np.sqrt(d)
    y = (rng.random(n) < expit(X @ rng.standard_normal(d))).astype(np.float64)
    return X, y


def cost(n, d, *, tolerance=NO_LIMIT, batch=1, kind="remove", method="auto"):
    """Microseconds for each row (median over requests, mean of three streams), and the settles of one."""
    X, y = problem(n, d)
    model = ex.LogisticRegression(fit_intercept=False).fit(X, y)
    requests = min(REQUESTS, n // (4 * batch)) if batch > 1 else REQUESTS
    spent, settled = [], 0
    for seed in range(3):
        un = ex.Unlearner(model, X, y, tolerance=1e-8)
        un.tolerance = tolerance
        rows = np.random.default_rng(seed).permutation(n)[: requests * batch].reshape(requests, batch)
        started = perf_counter()
        for some in rows:
            which = int(some[0]) if batch == 1 else some
            request = ex.RemoveRows(which) if kind == "remove" else ex.CorrectLabels(which, 1.0 - y[which])
            settled += un.apply(request, method=method).settled
        spent.append((perf_counter() - started) / rows.size)
        model = ex.LogisticRegression(fit_intercept=False).fit(X, y)
    return 1e6 * float(np.median(spent)), settled / 3


def main(path):
    figure = Figure(figsize=(9.5, 7.0), layout="constrained")
    axes = figure.subplots(2, 2)
    by_d, by_n, by_batch, by_tolerance = axes.ravel()

    dimensions = [25, 50, 100, 200, 400, 800]
    for kind in ("remove", "label"):
        by_d.loglog(dimensions, [cost(N, d, kind=kind)[0] for d in dimensions], "o-", label=f"{kind} one row")
    micros = [20, 50, 100, 200]
    by_d.set(xticks=dimensions, xticklabels=dimensions, yticks=micros, yticklabels=micros)
    by_d.set(xlabel="d", title=f"n = {N:,}, nothing settles")

    sizes = [2_000, 5_000, 10_000, 30_000, 100_000]
    by_n.loglog(sizes, [cost(n, D)[0] for n in sizes], "o-", label="from the anchor")
    by_n.loglog(sizes, [cost(n, D, method="exact")[0] for n in sizes], "s--", label='method="exact"')
    by_n.set(xlabel="n", title=f"one row, d = {D}")

    batches = [1, 3, 10, 30, 100, 300]
    by_batch.loglog(batches, [cost(N, D, batch=m)[0] for m in batches], "o-", label="remove")
    by_batch.set(
        xlabel="rows in a request", ylabel="µs per row", title=f"n = {N:,}, d = {D}, nothing settles"
    )

    tolerances = [1e-8, 1e-6, 1e-4, 1e-2, 1e-1, 1.0, 10.0]
    points = [cost(N, D, tolerance=t) for t in tolerances]
    by_tolerance.loglog(tolerances, [p[0] for p in points], "o-", label="remove one row")
    for t, (height, settled) in zip(tolerances, points, strict=True):
        by_tolerance.annotate(
            f"{settled:.0f}", (t, height), textcoords="offset points", xytext=(0, 7), fontsize=8, ha="center"
        )
    by_tolerance.set(xlabel="tolerance", title=f"n = {N:,}, d = {D}; of {REQUESTS} settled:")

    for axis in (by_d, by_n, by_tolerance):
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
