"""Sparse rows, by gathers and without; and that kernels read nothing beside their arrays."""

import ctypes
import mmap
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from problems import bits_of, flat, in_pairs
from scipy import sparse

import expunge
from expunge import _core, kernels, reference

pytestmark = pytest.mark.isa


# Sparse rows, by gathers and without


each_entry_type = pytest.mark.parametrize("dtype", [np.float64, np.float32])
each_index_type = pytest.mark.parametrize("index", [np.int32, np.int64])


def rows_of_all_lengths(dtype, index, n=600, d=30):
    """CSR whose rows have none to 25 entries, and what else the kernels take."""
    rng = np.random.default_rng(17)
    columns = [np.sort(rng.choice(d, i % 26, replace=False)) for i in range(n)]
    indptr = np.cumsum([0, *map(len, columns)]).astype(index)
    values = rng.standard_normal(indptr[-1]).astype(dtype)
    X = sparse.csr_array((values, np.concatenate(columns).astype(index), indptr), shape=(n, d))
    return X, rng.integers(0, 2, n) * 1.0, rng.standard_normal(d + 1), rng.standard_normal(d + 1)


def sparse_results(X, y, theta, v):
    """What is found while indices are looked at."""
    options = {"alpha": 1.0, "fit_intercept": True}
    value, g = kernels.loss_and_gradient(X, y, theta, **options)
    return np.hstack([value, g, kernels.hvp(X, theta, v, **options)])


def test_what_a_thread_finds_out_of_order_is_put_in_order_too(gathers):
    X, y, theta, v = rows_of_all_lengths(np.float64, np.int32, n=20_000)  # enough entries to share
    swapped, last = X.copy(), X.indptr[-2] + np.arange(2)
    for part in (swapped.indices, swapped.data):
        part[last] = part[last[::-1]]
    before = expunge.get_num_threads()
    expunge.set_num_threads(2)
    try:
        assert_array_equal(sparse_results(swapped, y, theta, v), sparse_results(X, y, theta, v))
    finally:
        expunge.set_num_threads(before)


@each_entry_type
@each_index_type
def test_sparse_rows_of_any_length_equal_the_reference(dtype, index, gathers):
    X, y, theta, v = rows_of_all_lengths(dtype, index)
    dense, options = X.toarray().astype(float), {"alpha": 1.0, "fit_intercept": True}
    value, g = reference.loss_and_gradient(dense, y, theta, **options)
    expected = np.hstack([value, g, reference.hvp(dense, theta, v, **options)])
    assert_allclose(sparse_results(X, y, theta, v), expected, rtol=0, atol=1e-11)


# (row, entry) in rows of 25 entries, in the first panel and in later ones.
NEIGHBOURS = [(row, k) for row in (25, 259, 597) for k in (0, 6, 7, 8, 15, 16, 20)]


@each_entry_type
@each_index_type
def test_indices_that_do_not_ascend_are_found_wherever_they_are(dtype, index, gathers):
    X, y, theta, v = rows_of_all_lengths(dtype, index)
    expected = sparse_results(X, y, theta, v)
    for row, k in NEIGHBOURS:
        swapped, at = X.copy(), [X.indptr[row] + k, X.indptr[row] + k + 1]
        assert at[1] < X.indptr[row + 1]
        for part in (swapped.indices, swapped.data):
            part[at] = part[at[::-1]]
        bits = bits_of(swapped)
        assert_array_equal(sparse_results(swapped, y, theta, v), expected)
        assert bits_of(swapped) == bits

        twice = X.copy()
        twice.indices[at[1]] = twice.indices[at[0]]
        summed = twice.copy()
        summed.sum_duplicates()
        assert_array_equal(sparse_results(twice, y, theta, v), sparse_results(summed, y, theta, v))


@each_index_type
@pytest.mark.parametrize("d", [30, 70_000], ids=["narrow", "wide"])  # the wide are read twice
@pytest.mark.parametrize("place", ["negative", "width", "largest"])
def test_indices_outside_of_X_are_refused_wherever_they_are(index, d, place, gathers):
    X, y, theta, v = rows_of_all_lengths(np.float64, index, d=d)
    place = {"negative": -1, "width": d, "largest": 2**31 - 1}[place]
    for row, k in NEIGHBOURS:
        outside = X.copy()
        outside.indices[X.indptr[row] + k] = place
        with pytest.raises(ValueError, match="indices of X point outside of it"):
            kernels.loss_and_gradient(outside, y, theta, alpha=1.0, fit_intercept=True)
        with pytest.raises(ValueError, match="indices of X point outside of it"):
            kernels.hvp(outside, theta, v, alpha=1.0, fit_intercept=True)


def test_indices_that_nobody_looked_at_are_not_trusted(gathers):
    X, y, theta, v = rows_of_all_lengths(np.float64, np.int32)
    X.indices[40] = 2**31 - 1
    J = _core.Objective([(X, y, None)], "logistic", np.ones(30), False, canonical=False)
    theta, v = theta[:30], v[:30]
    for looking in (lambda: J.evaluate(theta), lambda: J.hvp(theta, v)):
        with pytest.raises(ValueError, match="point outside"):
            looking()
    for trusting in (
        lambda: J.evaluate_with_hessian(theta),
        lambda: J.hessian(theta),
        lambda: J.curvature(theta),
        lambda: J.gram_norm_bound(),
        lambda: J.rounding_floor(theta),
        lambda: _core.difference(J, None, theta),
        lambda: _core.minimize(J, theta, 1e-3, 5),
        lambda: _core.Anchor(J, theta),
    ):
        with pytest.raises(RuntimeError, match="not been looked at"):
            trusting()


# Nothing but the arrays is read: beside them lie pages that nobody may read. (Sanitizers do not look into
# instructions that mask and gather.)
def fenced(a, last):
    """A copy of `a` whose last byte, or first, has a page beside it that nobody may read."""
    order = "C" if a.flags.c_contiguous else "F"
    page = mmap.PAGESIZE
    room = -(-a.nbytes // page) * page
    memory = mmap.mmap(-1, room + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    for address in (start, start + page + room):
        if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(page), 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    copy = np.ndarray(a.shape, a.dtype, memory, page + (room - a.nbytes if last else 0), order=order)
    copy[...] = a
    return copy


def fenced_rows(X, last):
    if not sparse.issparse(X):
        return fenced(X, last)
    parts = [fenced(part, last) for part in (X.data, X.indices, X.indptr)]
    return sparse.csr_array(tuple(parts), shape=X.shape, copy=False)


@pytest.mark.skipif(sys.platform != "linux", reason="needs mprotect")
@in_pairs(
    form=["c", "f", "csr_int32", "csr_int64"],
    dtype={"float64": np.float64, "float32": np.float32},
    shape=[(1, 1), (7, 3), (70, 33), (600, 26), (40, 1030)],
)
def test_kernels_read_nothing_beside_their_arrays(form, dtype, shape, gathers):
    n, d = shape
    rng = np.random.default_rng(n)
    X = rng.standard_normal((n, d)).astype(dtype)
    if form.startswith("csr"):
        X[rng.random((n, d)) < np.linspace(0.0, 1.0, n)[:, None]] = 0.0  # from a full row to an empty one
        X = sparse.csr_array(X)
        X.indices, X.indptr = (part.astype(form[4:]) for part in (X.indices, X.indptr))
    elif form == "f":
        X = np.asfortranarray(X)
    y, s = rng.integers(0, 2, n) * 1.0, rng.uniform(0.0, 2.0, n)
    theta, v, w, alpha = rng.standard_normal((4, max(n, d)))
    plain = [X, y, s, theta[:d], v[:d], np.abs(alpha[:d]), w[:n]]

    def results(X, y, s, theta, v, alpha, w):
        options = {"alpha": alpha, "sample_weight": s}
        return flat(
            (
                *kernels.loss_gradient_and_hessian(X, y, theta, **options),
                *kernels.loss_and_gradient(X, y, theta, **options),
                kernels.hvp(X, theta, v, **options),
                kernels.hessian(X, theta, **options),
                kernels.gram(X, w),
                kernels.rounding_floor(X, y, theta, **options),
                kernels.gradient_difference((X, y, s), (X, 1.0 - y), theta),
                kernels.gradient_difference((X, y, s), None, theta),
            )
        )

    expected = results(*plain)
    for last in (False, True):
        found = results(fenced_rows(X, last), *(fenced(a, last) for a in plain[1:]))
        assert_array_equal(found, expected)  # and where an array lies changes no bit
