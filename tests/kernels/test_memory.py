"""No call reads or writes outside of its arrays: sizes are checked, and what others write to X is bounded."""

import subprocess
import sys
import textwrap
from contextlib import suppress
from functools import partial
from pathlib import Path

import fuzz_bindings
import numpy as np
import pytest
from scipy import sparse

import expunge as ex
from expunge import _core, kernels

CHANGED = "X was changed after it was handed over"
N, D = 30, 5
OUTSIDE = {"width": D, "far": 10**9, "negative": -1, "least": -(2**31)}


def make(d, loss="logistic", n=N):
    """An Objective of d parameters, and its y."""
    rng = np.random.default_rng(d)
    y = (rng.random(n) < 0.5).astype(np.float64)
    return _core.Objective([(rng.normal(size=(n, d)), y, None)], loss, np.ones(d), False), y


J, Y = make(D)
WIDE, _ = make(400)
QUADRATIC, _ = make(D, "squared")
ANCHOR, WIDE_ANCHOR = _core.Anchor(QUADRATIC, np.zeros(D)), _core.Anchor(WIDE, np.zeros(400))
BLOCK = _core.Anchor(J, np.zeros(D), 2)
STATISTICS = _core.AnchoredStatistics(QUADRATIC, ANCHOR, QUADRATIC.evaluate(np.zeros(D)), 0.0, 1.0)
FACTOR = _core.CholeskyFactor(np.eye(D))
ONE = _core.Evaluation(1.0, np.ones(1))
SPARSE = sparse.csr_array(np.eye(N, D))


def register(n=N):
    begun = _core.RowRegister((np.arange(n) % 2.0), np.ones(n), 2)
    begun.begin()
    return begun


def some(*rows):
    return np.array(rows, dtype=np.int64)


def csr(**parts):
    """SPARSE with other parts."""
    X = SPARSE.copy()
    return type(
        "Csr", (), {"shape": X.shape, "data": X.data, "indices": X.indices, "indptr": X.indptr, **parts}
    )()


def misaligned(a):
    return fuzz_bindings.misaligned(np.asarray(a))


def change(X, overlay, take, edits=lambda L: L.remove(some(1, 3))):
    L = register()
    edits(L)
    return L.change(X, overlay, take, None)


def added(L):
    L.add(np.zeros(2), np.ones(2))


REFUSED = {
    # objectives and what is made of them
    "penalty of nothing": (
        lambda: _core.Objective([], "squared", np.empty(0), True),
        ValueError,
        "the penalty is empty",
    ),
    "noise": (
        lambda: _core.Objective([], "squared", np.ones(2), 0, noise=np.ones(3)),
        ValueError,
        "noise has shape",
    ),
    "difference of two widths": (
        lambda: _core.difference(J, WIDE, np.zeros(D)),
        ValueError,
        "theta has shape",
    ),
    "Anchor of a negative block": (
        lambda: _core.Anchor(J, np.zeros(D), -1),
        ValueError,
        "0 coordinates or more",
    ),
    "Anchor.edit": (lambda: ANCHOR.edit(WIDE, None), ValueError, "theta has 5 numbers, expected 400"),
    "Anchor.drop twice": (lambda: ANCHOR.drop([1, 1]), ValueError, "must ascend from 0 to 4"),
    "Anchor.drop descending": (lambda: ANCHOR.drop([3, 1]), ValueError, "must ascend from 0 to 4"),
    "Anchor.drop beyond": (lambda: ANCHOR.drop([5]), ValueError, "must ascend from 0 to 4.*got 5"),
    "Anchor.move_to of a block": (lambda: BLOCK.move_to(np.zeros(D)), ValueError, "theta has shape"),
    "minimize, anchor": (
        lambda: _core.minimize(J, np.zeros(D), 1e-9, 50, WIDE_ANCHOR),
        ValueError,
        "the anchor has 400 numbers, expected 5",
    ),
    "minimize, start": (
        lambda: _core.minimize(WIDE, np.zeros(400), 1e-9, 50, None, ONE),
        ValueError,
        "gradient has 1 numbers, expected 400",
    ),
    "minimize, start of other rows": (
        lambda: _core.minimize(J, np.zeros(D), 1e-9, 50, None, make(D, n=7)[0].evaluate(np.zeros(D))),
        ValueError,
        "curvature has 7 numbers, expected 30",
    ),
    "minimize, block": (
        lambda: _core.minimize(J, np.zeros(D), 1e-9, 5, block=-1),
        ValueError,
        "0 coordinates or",
    ),
    "solve, anchor": (
        lambda: _core.solve(J, np.ones(N), np.ones(D), WIDE_ANCHOR, 1e-9, 50),
        ValueError,
        "the anchor has 400 numbers",
    ),
    "solve, no anchor": (
        lambda: _core.solve(J, np.ones(N), np.ones(D), None, 1e-9, 50),
        TypeError,
        "incompatible",
    ),
    # statistics
    "statistics of a block": (
        lambda: _core.AnchoredStatistics(J, BLOCK, J.evaluate(np.zeros(D)), 0.0, 1.0),
        ValueError,
        "holds no whole Hessian",
    ),
    "statistics of no anchor": (
        lambda: _core.AnchoredStatistics(J, None, ONE, 0.0, 1.0),
        TypeError,
        "incompatible",
    ),
    "statistics at": (
        lambda: _core.AnchoredStatistics(J, ANCHOR, ONE, 0.0, 1.0),
        ValueError,
        "the gradient has 1 numbers, expected 5",
    ),
    "statistics of another width": (
        lambda: _core.AnchoredStatistics(WIDE, ANCHOR, ONE, 0.0, 1.0),
        ValueError,
        "the penalty has 400 numbers, expected 5",
    ),
    "drop far": (lambda: STATISTICS.drop([10**9]), ValueError, "must ascend from 0 to 4"),
    "drop negative": (lambda: STATISTICS.drop([-5]), ValueError, "must ascend from 0 to 4"),
    "replace": (
        lambda: STATISTICS.replace([(np.ones((3, 400)), np.ones(3), None)], None),
        ValueError,
        "X has 400 columns, expected 5",
    ),
    "restored": (
        lambda: _core.AnchoredStatistics.restore(
            np.ones(2), np.eye(3), np.ones(2), "squared", np.ones(2), 0, _core.Tallies(*[0.0] * 9)
        ),
        ValueError,
        "H has 3 numbers, expected 2",
    ),
    # registers
    "remove twice": (lambda: register().remove(some(0, 0)), ValueError, "row 0 is given more than once"),
    "relocate twice": (
        lambda: register().relocate(some(2, 1, 2)),
        ValueError,
        "row 2 is given more than once",
    ),
    "targets twice": (lambda: register().set_targets(some(1, 1), np.ones(2)), ValueError, "more than once"),
    "rows never given out": (lambda: register().of(some(N)), IndexError, "row 30 was never given out"),
    "negative rows": (lambda: register().require(some(-1)), IndexError, "row -1 was never given out"),
    "numbers that descend": (
        lambda: _core.RowRegister(np.ones(2), np.ones(2), 0, some(1, 0), 2),
        ValueError,
        "must ascend from 0 to 1",
    ),
    "numbers twice": (
        lambda: _core.RowRegister(np.ones(2), np.ones(2), 0, some(1, 1), 2),
        ValueError,
        "must ascend from 0 to 1",
    ),
    "fewer numbers than rows": (
        lambda: _core.RowRegister(np.ones(2), np.ones(2), 0, some(0, 1), -1),
        ValueError,
        "there are 2 rows, but -1 numbers",
    ),
    "more numbers than memory": (
        lambda: _core.RowRegister(np.ones(2), np.ones(2), 0, some(0, 1), 2**62),
        (ValueError, MemoryError),
        "vector|alloc",
    ),
    "fewer rows taken": (
        lambda: change(np.ones((N, D)), None, lambda places: np.ones((1, D))),
        ValueError,
        r"take\(places\) has 1 numbers, expected 2",
    ),
    "rows taken of another width": (
        lambda: change(
            np.ones((N, D)),
            lambda: np.ones((2, D)),
            lambda places: np.ones((2, 3)),
            lambda L: (added(L), L.remove(some(1, 3))),
        ).objectives("squared", False),
        ValueError,
        "X has 5 columns, expected 3",
    ),
    "fewer rows than the register": (
        lambda: change(np.ones((2, D)), None, None, lambda L: L.remove(some(20, 21))),
        ValueError,
        "rows 20 to 22 are asked for, of 2",
    ),
    "a shorter overlay": (
        lambda: change(np.ones((N, D)), lambda: np.ones((1, D)), None, added),
        ValueError,
        "rows 0 to 2 are asked for, of 1",
    ),
    # arrays that C++ would read otherwise than NumPy
    "misaligned theta": (lambda: J.evaluate(misaligned(np.zeros(D))), ValueError, "theta must be aligned"),
    "misaligned X": (
        lambda: _core.gram(misaligned(np.ones((N, D))), np.ones(N)),
        ValueError,
        "X must be aligned",
    ),
    "misaligned numbers": (lambda: _core.is_finite(misaligned(np.ones(9))), ValueError, "must be aligned"),
    "misaligned rows": (lambda: register().of(misaligned(some(1, 2))), ValueError, "rows must be aligned"),
    "misaligned indices": (
        lambda: _core.largest_norm(csr(indices=misaligned(SPARSE.indices))),
        ValueError,
        "contiguous and aligned",
    ),
    "fewer entries": (
        lambda: _core.largest_norm(csr(data=SPARSE.data[:-1], indices=SPARSE.indices[:-1])),
        ValueError,
        "indices of X point outside of it",
    ),
    "no rows less one": (
        lambda: _core.largest_norm(csr(shape=(-1, D), indptr=np.empty(0, np.int32))),
        ValueError,
        "do not fit each other",
    ),
    # objects that nobody made
    "RowRegister.__new__": (lambda: _core.RowRegister.__new__(_core.RowRegister), TypeError, "not safe"),
    "object.__new__": (lambda: object.__new__(_core.Anchor), TypeError, "not safe"),
    "TouchedRows()": (lambda: _core.TouchedRows(), TypeError, "No constructor"),
    "a class of its own": (
        lambda: type("Mine", (_core.RowRegister,), {}),
        TypeError,
        "not an acceptable base type",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_an_error_that_says_what(name):
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("widths", [(3, 2), (2, 1), (300, 200), (64, 8), (1000, 10)], ids=str)
def test_statistics_of_other_widths_do_not_merge(widths):
    rng = np.random.default_rng(0)
    ours, theirs = (
        kernels.AnchoredStatistics(rng.normal(size=(20, d)), np.zeros(20), np.zeros(d), alpha=1.0)
        for d in widths
    )
    for left, right in ((ours, theirs), (theirs, ours)):
        with pytest.raises(ValueError, match=f"one has {left.anchor.size} parameters, the other"):
            left.merge(right)


def test_all_coordinates_may_be_dropped():
    nothing = STATISTICS.drop(list(range(D)))
    theta, bound, _ = nothing.step()
    assert theta.size == 0
    assert bound >= 0.0
    assert nothing.anchor.solve(np.empty(0)).size == 0


def test_a_preconditioner_says_nothing_of_cancellation():
    assert not BLOCK.complete
    assert not BLOCK.cancelled


def test_a_register_that_did_not_begin_rolls_back_to_what_it_was():
    L = _core.RowRegister(Y, np.ones(N), 2)
    L.remove(some(3))
    L.rollback()
    assert L.row_count == L.live().size == N
    L.begin()
    L.add(np.zeros(50), np.ones(50))
    smaller, _ = L.compacted()
    smaller.rollback()
    assert smaller.overlay[0].size == 50
    assert smaller.row_count == N + 50


def test_a_call_that_raises_leaves_the_register_as_it_was():
    L = register()
    for edit in (L.remove, L.relocate):
        with pytest.raises(ValueError, match="more than once"):
            edit(some(4, 5, 4))
    assert L.live().size == N
    assert L.overlay[0].size == 0


@pytest.mark.parametrize("count", [-(2**31), -1, 0, 2**31 - 1])
def test_any_number_of_threads_may_be_asked_for(count):
    before = _core.threads()
    try:
        _core.set_threads(count)
        assert _core.threads() == min(max(count, 1), 1024)
    finally:
        _core.set_threads(before)


def test_any_byte_of_a_mask_that_is_not_0_is_true():
    mask = np.array([7, 0, 1, 255, 0], dtype=np.uint8).view(bool)
    X = np.arange(10.0).reshape(2, D)
    masked = _core.Objective([(X, np.ones(2), None)], "squared", np.ones(3), False, mask)
    np.testing.assert_array_equal(
        masked.hessian(np.zeros(3)), X[:, [0, 2, 3]].T @ X[:, [0, 2, 3]] + np.eye(3)
    )


# X that others write to


def held(index=np.int32, d=D, n=300):
    """A CSR matrix, and an Objective that looks into it."""
    X = sparse.random(n, d, min(1.0, 200 / d), format="csr", random_state=0)
    X.indices, X.indptr = X.indices.astype(index), X.indptr.astype(index)
    y = (np.arange(n) % 2).astype(np.float64)
    return X, _core.Objective([(X, y, None)], "logistic", np.ones(d), False)


LOOKS = {
    "evaluate": lambda J, p: J.evaluate(np.ones(p)),
    "evaluate_with_hessian": lambda J, p: J.evaluate_with_hessian(np.ones(p)),
    "hessian": lambda J, p: J.hessian(np.ones(p)),
    "hvp": lambda J, p: J.hvp(np.ones(p), np.ones(p)),
    "curvature": lambda J, p: J.curvature(np.ones(p)),
    "gram_norm_bound": lambda J, p: J.gram_norm_bound(),
    "rounding_floor": lambda J, p: J.rounding_floor(np.ones(p)),
    "Anchor": lambda J, p: _core.Anchor(J, np.ones(p)),
    "Anchor of a block": lambda J, p: _core.Anchor(J, np.ones(p), 2),
    "minimize": lambda J, p: _core.minimize(J, np.zeros(p), 1e-9, 50),
    "difference": lambda J, p: _core.difference(None, J, np.ones(p)),
}


@pytest.mark.isa
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_indices_that_others_write_are_bounded_where_they_are_used(index, gathers):
    X, J = held(index)
    for look in LOOKS.values():
        look(J, D)
        for place in (0, 7, X.nnz - 1):
            for outside in OUTSIDE.values():
                kept, X.indices[place] = X.indices[place], outside
                with pytest.raises(ValueError, match=CHANGED):
                    look(J, D)
                X.indices[place] = kept
        for place in (0, 5, X.shape[0]):
            for outside in (-1, X.nnz + 1, 10**9, -(2**31)):
                kept, X.indptr[place] = X.indptr[place], outside
                with pytest.raises(ValueError, match=CHANGED):
                    look(J, D)
                X.indptr[place] = kept
        look(J, D)


@pytest.mark.isa
@pytest.mark.parametrize("d", [40, 2600], ids=["by rows", "by columns"])
def test_indices_that_lost_their_order_make_wrong_numbers_at_most(d, gathers):
    X, J = held(d=d, n=40)
    rng = np.random.default_rng(1)
    for change in (lambda: X.indices[::-1].copy(), lambda: rng.permutation(X.indices), lambda: 3):
        X.indices[:] = change()
        assert J.hessian(np.zeros(d)).shape == (d, d)
        assert np.isfinite(J.evaluate(np.zeros(d)).value)
    X.indices[-1] = d
    with pytest.raises(ValueError, match=CHANGED):
        J.hessian(np.zeros(d))


def requests(d):
    rows = sparse.csr_array(np.eye(2, d))
    return {
        "remove": lambda un, k: un.apply(ex.RemoveRows([k, k + 50, k + 3])),
        "remove exactly": lambda un, k: un.apply(ex.RemoveRows([k]), method="exact"),
        "labels": lambda un, k: un.apply(ex.CorrectLabels([k], [1 - un.model.predict(rows)[0]])),
        "values": lambda un, k: un.apply(ex.CorrectValues([k, k + 9], [0, 1], [[1.0, 0.0], [2.0, 0.0]])),
        "add": lambda un, k: un.apply(ex.AddRows(rows, [0, 1])),
        "revoke": lambda un, k: un.apply(ex.RevokeFeatures([k])),
    }


CHANGES = {
    **{
        f"index {name}": partial(lambda X, v: X.indices.__setitem__(5, v), v=v) for name, v in OUTSIDE.items()
    },
    "index of the width": lambda X: X.indices.__setitem__(5, X.shape[1]),
    "all indices": lambda X: X.indices.fill(X.shape[1]),
    "no order": lambda X: X.indices.__setitem__(slice(None), X.indices[::-1].copy()),
    "all alike": lambda X: X.indices.fill(3),
    **{
        f"row of {v}": partial(lambda X, v: X.indptr.__setitem__(5, v), v=v) for v in (-1, 0, 10**9, -(2**31))
    },
    "last row": lambda X: X.indptr.__setitem__(-1, X.nnz + 100),
    "rows turned": lambda X: X.indptr.__setitem__(slice(None), X.indptr[::-1].copy()),
    "numbers": lambda X: X.data.fill(np.nan),
}


@pytest.mark.parametrize("changed", CHANGES)
@pytest.mark.filterwarnings("ignore")
def test_an_unlearner_whose_X_was_changed_raises_or_goes_on(changed):
    for request in requests(30).values():
        X = sparse.random(200, 30, 0.3, format="csr", random_state=0)
        y = (np.random.default_rng(0).random(200) < 0.5).astype(int)
        un = ex.Unlearner(ex.LogisticRegression().fit(X, y), X, y)
        CHANGES[changed](X)
        for k in range(3):
            with suppress(ValueError, RuntimeError):
                request(un, k)


# the fuzzer


def test_the_fuzzer_leaves_no_binding_out():
    assert fuzz_bindings.BINDINGS.keys() <= fuzz_bindings.ENTRIES.keys()
    assert {f"kernels.{name}" for name in kernels.__all__} <= fuzz_bindings.ENTRIES.keys()


@pytest.mark.slow
def test_the_fuzzer_finds_nothing_in_a_second():
    run = subprocess.run(
        [sys.executable, Path(fuzz_bindings.__file__), "--seconds", "1", "--seed", "3"],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert run.returncode == 0, run.stderr
    assert "calls of" in run.stdout


def test_entries_that_no_row_holds_are_left_out():
    """A matrix whose arrays are longer than its last row says: SciPy writes beyond what it makes room for."""
    rng = np.random.default_rng(0)
    X = sparse.random(200, 30, 0.3, format="csr", random_state=0)
    y = (rng.random(200) < 0.5).astype(int)
    whole = ex.Unlearner(ex.LogisticRegression().fit(X, y), X, y)
    X.data, X.indices = (
        np.append(X.data, np.ones(500)),
        np.append(X.indices, np.full(500, 29, X.indices.dtype)),
    )
    for options in ({}, {"column_index": True}):
        un = ex.Unlearner(ex.LogisticRegression().fit(X, y), X, y, **options)
        for columns in (range(25), [25]):
            un.apply(ex.RevokeFeatures(columns), method="exact")
        assert un.corrected_data()[0].shape == (200, 4)
    whole.apply(ex.RevokeFeatures(range(26)), method="exact")
    np.testing.assert_allclose(un.model.coef_, whole.model.coef_, atol=1e-9)


@pytest.mark.parametrize("form", ["csc", "coo", "bsr", "integers"])
def test_other_sparse_formats_are_looked_at_before_they_are_converted(form):
    X = sparse.random(200, 30, 0.3, format="csr", random_state=0)
    y = (np.random.default_rng(0).random(200) < 0.5).astype(int)
    model = ex.LogisticRegression().fit(X, y)
    if form == "integers":
        X = (10 * X).astype(np.int64)
        X.indptr[-1] = 10**6
    elif form == "coo":
        X = X.tocoo()
        X.coords[0][3] = 10**8
    elif form == "csc":
        X = X.tocsc()
        X.indices[3] = 10**8
    else:
        X = X.tobsr((2, 2))
        X.indices[3] = 10**8
    for call in (
        lambda: ex.LogisticRegression().fit(X, y),
        lambda: model.predict(X),
        lambda: ex.Unlearner(model, X, y),
        lambda: ex.kernels.gradient(X, y, np.zeros(30), alpha=1.0),
    ):
        with pytest.raises(ValueError):
            call()


@pytest.mark.slow
@pytest.mark.parametrize("part", ["indptr", "indices"])
def test_indices_that_another_thread_changes_during_a_call_are_read_within_bounds(part):
    """Wrong numbers or an error, but no access elsewhere: in a process of its own, which would crash."""
    code = f"""
        import sys, threading, time, warnings
        import numpy as np, expunge as ex
        from scipy import sparse
        sys.setswitchinterval(1e-6)
        warnings.simplefilter("ignore")
        X = sparse.random(400, 60, 0.3, format="csr", random_state=0)
        y = (np.random.default_rng(0).random(400) < 0.5).astype(int)
        model = ex.LogisticRegression().fit(X, y)
        un = ex.Unlearner(ex.LogisticRegression().fit(X, y), X, y)
        array = X.{part}
        kept, wrong = array.copy(), 0 if "{part}" == "indptr" else 2**31 - 1
        stop = False
        def spoil():
            while not stop:
                for k in range(1, 400):
                    array[k] = wrong
                    array[k] = kept[k]
        thread = threading.Thread(target=spoil)
        thread.start()
        calls = {{
            "corrected_data": un.corrected_data,
            "release": lambda: un.release(1.0, 1e-5),
            "retrain": un.retrain,
            "predict": lambda: model.predict(X),
            "column_index": lambda: ex.Unlearner(
                ex.LogisticRegression().fit(X, y), X, y, column_index=True
            ),
            "revoke": lambda: un.apply(ex.RevokeFeatures(range(40))),
        }}
        for name, call in calls.items():
            print(name, file=sys.stderr, flush=True)  # which one crashed
            started = time.perf_counter()
            while time.perf_counter() - started < 0.2:
                try:
                    call()
                except (ValueError, ex.CertificateError, ex.ConvergenceError, ex.NotPositiveDefiniteError):
                    pass
        stop = True
        thread.join()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
