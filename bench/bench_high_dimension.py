"""A million columns: fit, revoke, correct and remove, each to a residual of 1e-6, and the memory that takes.

200,000 rows, 50 entries a row (115 MB of CSR arrays), intercept, alpha = 1. Each runs in a process of its
own, so that its peak of resident memory is nobody else's. Seconds are the CPU's.
"""

import json
import subprocess
import sys
from pathlib import Path
from time import process_time

import numpy as np
import pytest

ROWS, COLUMNS, ENTRIES, TOLERANCE = 200_000, 1_000_000, 50, 1e-6


def save(folder, words):
    """Synthetic hashed text: unit rows of 50 words, columns drawn uniformly or log-uniformly."""
    rng = np.random.default_rng(0)
    shape = (ROWS, ENTRIES)
    if words == "uniform":
        indices = rng.integers(0, COLUMNS, shape)
    else:
        indices = (np.exp(rng.random(shape) * np.log(COLUMNS)).astype(np.int64) - 1) * 7919 % COLUMNS
    indices.sort(axis=1)
    for _ in range(ENTRIES):  # a word twice in a row: the second becomes another
        equal = np.flatnonzero((np.diff(indices, axis=1) == 0).any(axis=1))
        if not equal.size:
            break
        again = rng.integers(0, COLUMNS, (equal.size, ENTRIES))
        chosen = np.pad(np.diff(indices[equal], axis=1) == 0, ((0, 0), (1, 0)))
        indices[equal] = np.sort(np.where(chosen, again, indices[equal]), axis=1)
    weights = rng.standard_normal(COLUMNS)
    y = (weights[indices].sum(axis=1) + rng.standard_normal(ROWS) > 0).astype(np.float64)
    np.save(folder / "indices.npy", indices.astype(np.int32).ravel())
    np.save(folder / "y.npy", y)


def run(folder):
    """In the child: prints one line of JSON for each step."""
    from scipy import sparse

    import expunge as ex
    from expunge.benchmark import use_threads

    def status(field):
        line = next(
            line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)
        )
        return 1024 * int(line.split()[1])

    def step(name, function):
        started = process_time()
        result = function()
        seconds = process_time() - started
        growth = (status("VmHWM") - before) / size
        print(json.dumps({"step": name, "seconds": seconds, "growth": growth, **result}), flush=True)

    def apply(request):
        update = un.apply(request)
        return {"residual": update.residual, "passes": update.passes}

    with use_threads(1):
        indices, y = np.load(folder + "/indices.npy"), np.load(folder + "/y.npy")
        data = np.full(indices.size, ENTRIES**-0.5)
        indptr = np.arange(0, indices.size + 1, ENTRIES, dtype=np.int32)
        X = sparse.csr_array((data, indices, indptr), shape=(ROWS, COLUMNS))
        rng = np.random.default_rng(1)
        columns = rng.permutation(np.unique(indices[:100_000]))[:100]
        rows = rng.permutation(ROWS)
        size = data.nbytes + indices.nbytes + indptr.nbytes
        Path("/proc/self/clear_refs").write_text("5")  # the peak is that from here on
        before = status("VmRSS")
        model = ex.LogisticRegression(1.0, tol=TOLERANCE)

        def fit():
            model.fit(X, y)
            return {"residual": model.residual_, "passes": model.n_iter_}

        step("fit (its passes are Newton iterations)", fit)
        un = None

        def construct():
            nonlocal un
            un = ex.Unlearner(model, X, y, tolerance=TOLERANCE)
            return {"residual": un.residual(), "passes": 0}

        step("construct an Unlearner", construct)
        step("revoke 100 features", lambda: apply(ex.RevokeFeatures(columns)))
        step("correct 1,000 labels", lambda: apply(ex.CorrectLabels(rows[:1000], 1.0 - y[rows[:1000]])))
        step("remove 1,000 rows", lambda: apply(ex.RemoveRows(rows[1000:2000])))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("words", ["uniform", "log-uniform"])
def test_high_dimension(tmp_path, record_line, words):
    save(tmp_path, words)
    output = subprocess.run(
        [sys.executable, __file__, str(tmp_path)], check=True, capture_output=True, text=True
    ).stdout
    steps = [json.loads(line) for line in output.splitlines()]
    assert len(steps) == 5
    for at in steps:
        record_line(
            f"{words} words, {at['step']}: {at['seconds']:.2f} s, residual {at['residual']:.1e}, "
            f"{at['passes']} passes, peak memory grew by {at['growth']:.2f} times the CSR arrays"
        )
        assert at["residual"] <= TOLERANCE
        assert at["growth"] <= 2.0


if __name__ == "__main__":
    run(sys.argv[1])
