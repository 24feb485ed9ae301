"""Kernels share their work among threads: the same bits for any number, after fork, beside other threads."""

import multiprocessing
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from scipy import sparse

import expunge as ex
from expunge import kernels

COUNTS = (1, 2, 3, 7)


@pytest.fixture(autouse=True)
def threads_as_before():
    before = ex.get_num_threads()
    yield
    ex.set_num_threads(before)


def rows(loss="logistic", n=6000, d=40, form=np.array, seed=0):
    """Enough entries for threads to share."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) * (rng.random((n, d)) < 0.9)
    eta = X @ rng.standard_normal(d)
    y = eta + rng.standard_normal(n) if loss == "squared" else (rng.random(n) < 1 / (1 + np.exp(-eta)))
    return form(X), y.astype(np.float64)


FORMS = {
    "C": np.array,
    "F": np.asfortranarray,
    "float32": lambda X: X.astype(np.float32),
    "csr": sparse.csr_array,
    "csr float32": lambda X: sparse.csr_array(X.astype(np.float32)),
}


def results(X, y):
    """What each kernel that walks over rows gives, as bytes."""
    d = X.shape[1]
    theta, v, w = np.linspace(-1, 1, d), np.linspace(2, -1, d), y - 0.3
    value, gradient = kernels.loss_and_gradient(X, y, theta, alpha=1.0)
    return [
        np.float64(value).tobytes(),
        gradient.tobytes(),
        kernels.hvp(X, theta, v, alpha=1.0).tobytes(),
        kernels.hessian(X, theta, alpha=1.0).tobytes(),
        kernels.gram(X, w).tobytes(),
        np.float64(kernels.rounding_floor(X, y, theta, alpha=1.0)).tobytes(),
    ]


@pytest.mark.isa
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_kernels_give_the_same_bits_for_any_number_of_threads(form):
    X, y = rows(form=form)
    found = []
    for count in COUNTS:
        ex.set_num_threads(count)
        found.append(results(X, y))
    assert all(one == found[0] for one in found)


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("form", [np.array, sparse.csr_array], ids=["dense", "csr"])
def test_fits_and_requests_give_the_same_bits_for_any_number_of_threads(form, loss, solver):
    X, y = rows(loss, form=form)
    kind = ex.Ridge if loss == "squared" else ex.LogisticRegression
    found = []
    for count in COUNTS[:3]:
        ex.set_num_threads(count)
        model = kind(solver=solver).fit(X, y)
        un = ex.Unlearner(model, X, y, tolerance=1e-6)
        updates = [
            un.apply(request)
            for request in (
                ex.RemoveRows(range(10, 2010)),
                ex.CorrectValues([3], [1], 0.5),
                ex.RevokeFeatures([7]),
                ex.RemoveRows([5]),
            )
        ]
        released = un.release(1.0, 1e-5, random_state=0)
        arrays = [model.coef_, released.coef_, released.intercept_, *(update.step for update in updates)]
        found.append([np.asarray(array).tobytes() for array in arrays])
    assert all(one == found[0] for one in found)


def test_the_number_of_threads_is_what_was_asked_for():
    for count in COUNTS:
        ex.set_num_threads(count)
        assert ex.get_num_threads() == count
    ex.set_num_threads(np.int64(2))
    assert ex.get_num_threads() == 2


@pytest.mark.parametrize("count", [0, -1, 257, 1.5, True, "2", None])
def test_other_numbers_are_refused(count):
    before = ex.get_num_threads()
    with pytest.raises(ValueError, match="count must be an integer from 1 to 256"):
        ex.set_num_threads(count)
    assert ex.get_num_threads() == before


def at_import(code="", **environment):
    """get_num_threads() of a fresh process; `code` runs before the import."""
    kept = {name: value for name, value in os.environ.items() if name != "EXPUNGE_NUM_THREADS"}
    return subprocess.run(
        [sys.executable, "-c", f"{code}\nimport expunge; print(expunge.get_num_threads())"],
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_environment_says_how_many():
    assert at_import(EXPUNGE_NUM_THREADS="3").stdout.strip() == "3"
    for wrong in ("0", "many", "-1", "1.5", "999", ""):
        done = at_import(EXPUNGE_NUM_THREADS=wrong)
        assert done.returncode == 1
        assert f"EXPUNGE_NUM_THREADS={wrong!r}: expected an integer from 1 to 256" in done.stderr


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity of processes")
def test_affinity_is_honoured():
    cores = sorted(os.sched_getaffinity(0))
    assert at_import().stdout.strip() == str(min(len(cores), 256))
    done = at_import(f"import os; os.sched_setaffinity(0, {{{cores[0]}}})")
    assert done.stdout.strip() == "1"


def _in_child(queue, X, y):
    queue.put((ex.get_num_threads(), results(X, y)))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_child_works_with_threads_of_its_own():
    X, y = rows()
    ex.set_num_threads(3)
    expected = results(X, y)  # the pool is there
    context = multiprocessing.get_context("fork")
    for _ in range(5):
        queue = context.Queue()
        child = context.Process(target=_in_child, args=(queue, X, y))
        child.start()
        assert queue.get(timeout=60) == (3, expected)
        child.join(60)
        assert child.exitcode == 0
    assert results(X, y) == expected


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_fork_in_the_midst_of_a_kernel_leaves_a_child_that_works():
    X, y = rows()
    ex.set_num_threads(3)
    expected, stop = results(X, y), threading.Event()

    def busy():
        while not stop.is_set():
            results(X, y)

    worker = threading.Thread(target=busy)
    worker.start()
    context = multiprocessing.get_context("fork")
    try:
        for _ in range(5):
            queue = context.SimpleQueue()
            child = context.Process(target=_in_child, args=(queue, X, y))
            child.start()
            child.join(60)
            assert child.exitcode == 0
            assert queue.get() == (3, expected)
    finally:
        stop.set()
        worker.join(60)


def test_several_threads_of_the_caller_share_the_pool():
    X, y = rows()
    ex.set_num_threads(2)
    expected, wrong = results(X, y), []

    def call():
        for _ in range(10):
            if results(X, y) != expected:
                wrong.append(threading.get_ident())

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for count in (1, 3, 2) * 5:
        ex.set_num_threads(count)
    for caller in callers:
        caller.join(60)
    assert wrong == []
