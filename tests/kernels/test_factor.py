"""The Cholesky factor and its edits."""

import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from problems import bits_of, float32_values, in_pairs

import expunge
from expunge import kernels, reference

pytestmark = pytest.mark.isa


# The Cholesky factor


def positive_definite(p, condition=1e2, seed=0):
    """H (p, p), symmetric, with eigenvalues from 1 to condition."""
    rng = np.random.default_rng([p, seed])
    Q, _ = np.linalg.qr(rng.standard_normal((p, p)))
    H = (Q * np.geomspace(1.0, condition, p)) @ Q.T
    return (H + H.T) / 2


ORDERS = [1, 2, 5, 40, 300]
each_size = pytest.mark.parametrize("p", ORDERS)
each_size_of_a_twin = pytest.mark.parametrize(
    "p", [*ORDERS[:-1], pytest.param(ORDERS[-1], marks=pytest.mark.slow)]
)


@each_size
def test_factor_times_its_transpose_is_the_matrix(p):
    H = positive_definite(p)
    factor = kernels.CholeskyFactor(H)
    L = factor.lower
    assert factor.shape == (p, p)
    assert_array_equal(L, np.tril(L))
    assert np.linalg.norm(L @ L.T - H) <= 1e-15 * p * np.linalg.norm(H)
    assert np.linalg.norm(L - reference.CholeskyFactor(H).lower) <= 1e-13 * np.linalg.norm(L)
    L[...] = np.nan  # a copy
    assert np.isfinite(factor.lower).all()


@each_size
@pytest.mark.parametrize("order", ["C", "F"])
def test_solve_finds_x_from_b(p, order):
    H = positive_definite(p, condition=1e4)
    factor = kernels.CholeskyFactor(np.asarray(H, order=order))
    X = np.random.default_rng(6).standard_normal((p, 7))
    B = np.asarray(H @ X, order=order)
    bound = 1e-15 * p * 1e4  # forward error: p u cond
    assert np.linalg.norm(factor.solve(B) - X) <= bound * np.linalg.norm(X)
    assert factor.solve(B).shape == (p, 7)
    x = factor.solve(B[:, 2])  # a strided column
    assert x.shape == (p,)
    assert np.linalg.norm(x - X[:, 2]) <= bound * np.linalg.norm(X[:, 2])


@pytest.mark.parametrize("p", [2, 5, 40])
def test_deleting_any_coordinate_gives_the_factor_of_the_submatrix(p):
    H = positive_definite(p)
    b = np.random.default_rng(7).standard_normal((p, 2))
    for i in range(p):
        rest = np.delete(np.arange(p), i)
        fresh = reference.CholeskyFactor(H[np.ix_(rest, rest)])
        factor = kernels.CholeskyFactor(H)
        factor.delete(i)
        assert factor.shape == (p - 1, p - 1)
        L = factor.lower
        assert_array_equal(L, np.tril(L))
        bound = 1e-15 * 1e2  # oracle: 1e-15 sqrt(edits) |H| / lambda_min
        assert np.linalg.norm(L - fresh.lower) <= bound * np.linalg.norm(fresh.lower)
        assert_allclose(factor.solve(b[rest]), fresh.solve(b[rest]), rtol=0, atol=1e-13 * np.linalg.norm(b))


def test_deleting_many_coordinates_in_turn():
    p = 40
    H, left = positive_definite(p), np.arange(p)
    factor = kernels.CholeskyFactor(H)
    rng = np.random.default_rng(8)
    for edits in range(1, p):
        i = int(rng.integers(len(left)))
        factor.delete(i)
        left = np.delete(left, i)
        fresh = reference.CholeskyFactor(H[np.ix_(left, left)]).lower
        assert np.linalg.norm(factor.lower - fresh) <= 1e-15 * np.sqrt(edits) * 1e2 * np.linalg.norm(fresh)
    assert factor.shape == (1, 1)


@pytest.mark.parametrize("i", [-1, 5, 10**6])
def test_deleting_out_of_range_changes_nothing(i):
    factor = kernels.CholeskyFactor(positive_definite(5))
    lower, solution = factor.lower, factor.solve(np.arange(5.0))
    with pytest.raises(IndexError, match="out of range"):
        factor.delete(i)
    assert factor.shape == (5, 5)
    assert factor.lower.tobytes() == lower.tobytes()
    assert factor.solve(np.arange(5.0)).tobytes() == solution.tobytes()


def state(factor):
    """Bits of the factor, its shape in front."""
    return factor.shape, factor.lower.tobytes()


def columns(p, k, seed=0):
    """V (p, k), of norm about 1."""
    return np.random.default_rng([p, k, seed]).standard_normal((p, k)) / np.sqrt(max(1, p * k))


# rotations, and where there are more columns a factor anew
WIDTHS = [0, 1, 2, 5, 45, 400]
each_width = pytest.mark.parametrize("k", WIDTHS)


@each_size_of_a_twin
@each_width
def test_an_update_gives_the_factor_of_the_sum(p, k):
    H, V = positive_definite(p), columns(p, k)
    factor, twin = kernels.CholeskyFactor(H), reference.CholeskyFactor(H)
    factor.update(V)
    twin.update(V)
    fresh = reference.CholeskyFactor(H + V @ V.T).lower
    L = factor.lower
    assert_array_equal(L, np.tril(L))
    for lower in (L, twin.lower):
        assert np.linalg.norm(lower - fresh) <= 1e-15 * 1e2 * np.linalg.norm(fresh)


@each_size_of_a_twin
@each_width
def test_a_downdate_gives_the_factor_of_the_difference(p, k):
    H, V = positive_definite(p), columns(p, k)
    factor, twin = kernels.CholeskyFactor(H + V @ V.T), reference.CholeskyFactor(H + V @ V.T)
    factor.downdate(V)
    twin.downdate(V)
    fresh = reference.CholeskyFactor(H).lower
    L = factor.lower
    assert_array_equal(L, np.tril(L))
    for lower in (L, twin.lower):
        assert np.linalg.norm(lower - fresh) <= 1e-15 * 1e2 * np.linalg.norm(fresh)


@in_pairs(p=ORDERS, k=WIDTHS, size=[1e-3, 1.0, 30.0])
def test_what_was_added_can_be_taken_out(p, k, size):
    H, V = positive_definite(p), size * columns(p, k)
    factor = kernels.CholeskyFactor(H)
    L = factor.lower
    factor.update(V)
    factor.downdate(V)
    bound = 1e-15 * 1e2 * (1.0 + size**2)  # the digits that H + V V^T has not kept of H
    assert np.linalg.norm(factor.lower - L) <= bound * np.linalg.norm(L)


@each_size
def test_one_column_may_be_a_vector(p):
    H, v = positive_definite(p), columns(p, 1)
    one, other = kernels.CholeskyFactor(H), kernels.CholeskyFactor(H)
    for factor, given in ((one, v[:, 0]), (other, v)):
        factor.update(given)
        factor.update(given)
        factor.downdate(given)
    assert state(one) == state(other)


@each_size
def test_no_columns_change_no_bit(p):
    factor = kernels.CholeskyFactor(positive_definite(p))
    before = state(factor)
    factor.update(np.empty((p, 0)))
    factor.downdate(np.empty((p, 0)))
    factor.update(np.zeros(p))
    factor.downdate(np.zeros((p, 1)))
    assert state(factor) == before


@each_size
def test_columns_of_any_layout_give_the_same_bits_and_stay_as_they_are(p):
    H, V = positive_definite(p), float32_values(columns(p, 2))
    factors = []
    for given in (V, np.asfortranarray(V), V.astype(np.float32), np.repeat(V, 2, axis=1)[:, ::2]):
        before = bits_of(given)
        factor = kernels.CholeskyFactor(H)
        factor.update(given)
        factor.downdate(given)
        factors.append(state(factor))
        assert bits_of(given) == before
    assert len(set(factors)) == 1


@each_size
def test_an_update_does_not_square_its_columns(p):
    """H + V V^T would overflow."""
    for k in (1, 2, p + 1):
        factor = kernels.CholeskyFactor(positive_definite(p))
        factor.update(np.full((p, k), 1e200))
        assert np.isfinite(factor.lower).all()
        assert_allclose(factor.lower[0, 0], np.sqrt(k) * 1e200, rtol=1e-14)


@each_size
def test_appending_gives_the_factor_of_the_larger_matrix(p):
    H = positive_definite(p + 1)
    factor, twin = kernels.CholeskyFactor(H[:p, :p]), reference.CholeskyFactor(H[:p, :p])
    factor.append(H[p])
    twin.append(H[p])
    fresh = reference.CholeskyFactor(H).lower
    assert factor.shape == twin.shape == (p + 1, p + 1)
    L = factor.lower
    assert_array_equal(L, np.tril(L))
    for lower in (L, twin.lower):
        assert np.linalg.norm(lower - fresh) <= 1e-15 * 1e2 * np.linalg.norm(fresh)


@each_size
def test_appending_and_deleting_the_last_coordinate_undo_each_other(p):
    H = positive_definite(p + 1)
    factor = kernels.CholeskyFactor(H)
    L = factor.lower
    factor.delete(p)
    factor.append(H[p])
    assert np.linalg.norm(factor.lower - L) <= 1e-15 * 1e2 * np.linalg.norm(L)
    before = kernels.CholeskyFactor(H[:p, :p])
    after = kernels.CholeskyFactor(H[:p, :p])
    after.append(H[p])
    after.delete(p)
    assert state(after) == state(before)


def test_a_factor_grows_from_nothing():
    H = positive_definite(6)
    factor = kernels.CholeskyFactor(H[:1, :1])
    factor.delete(0)
    assert factor.shape == (0, 0)
    factor.update(np.empty((0, 3)))
    factor.downdate(np.empty((0, 3)))
    for p in range(6):
        factor.append(H[p, : p + 1])
    assert np.linalg.norm(factor.lower - reference.CholeskyFactor(H).lower) <= 1e-14


@pytest.mark.parametrize("p", [3, 12, 60])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_mixed_edits_keep_the_digits_of_the_first_factor(p, seed):
    """Rows of X come and go, and so do its columns, in H = X^T X + I."""
    rng = np.random.default_rng([p, seed])
    N, X = 200, rng.standard_normal((2 * p, p)) * np.geomspace(1.0, 10.0, p)

    def hessian():
        return X.T @ X + np.eye(X.shape[1])

    factor, size = kernels.CholeskyFactor(hessian()), np.linalg.norm(hessian(), 2)
    for _ in range(N):
        n, q = X.shape
        k = int(rng.integers(1, 4))
        edit = rng.choice(["update", "downdate", "append", "delete"])
        if edit == "update":
            rows = rng.standard_normal((k, q))
            factor.update(rows.T)
            X = np.vstack([X, rows])
        elif edit == "downdate" and n > k:
            gone = rng.choice(n, k, replace=False)
            factor.downdate(X[gone].T)
            X = np.delete(X, gone, axis=0)
        elif edit == "append":
            x = rng.standard_normal(n)
            factor.append(np.append(X.T @ x, x @ x + 1.0))
            X = np.column_stack([X, x])
        elif edit == "delete" and q > 1:
            i = int(rng.integers(q))
            factor.delete(i)
            X = np.delete(X, i, axis=1)
    H = hessian()
    fresh = reference.CholeskyFactor(H).lower
    bound = 1e-15 * np.sqrt(N) * size / np.linalg.eigvalsh(H)[0]
    assert np.linalg.norm(factor.lower - fresh) <= bound * np.linalg.norm(fresh)


@pytest.mark.parametrize("p", [1, 5, 40])
@pytest.mark.parametrize("scale", [1.0, 30.0])  # of rows that come, beside those that were there
def test_a_stream_of_single_rows_keeps_the_digits_of_the_first_factor(p, scale):
    """Two rows come, two leave, in H = X^T X + I: oracle 9 after 30, 300 and 3,000 of them."""
    rng = np.random.default_rng([p, 17])
    X = rng.standard_normal((10 * p, p)) * np.geomspace(1.0, 10.0, p)
    H = X.T @ X + np.eye(p)
    factor, largest = kernels.CholeskyFactor(H), np.linalg.norm(H, 2)
    for edits in range(1, 3001):
        if edits % 4 in (1, 2):
            X = np.vstack([X, scale * rng.standard_normal(p)])
            factor.update(X[-1])
        else:
            row = int(rng.integers(len(X)))
            factor.downdate(X[row])
            X = np.delete(X, row, axis=0)
        L = factor.lower
        largest = max(largest, np.linalg.norm(L.T @ L))  # what came and went was rounded beside that
        if edits in (30, 300, 3000):
            H = X.T @ X + np.eye(p)
            fresh = reference.CholeskyFactor(H).lower
            bound = 1e-15 * np.sqrt(edits) * largest / np.linalg.eigvalsh(H)[0]
            assert np.linalg.norm(L - fresh) <= bound * np.linalg.norm(fresh)


@in_pairs(p=ORDERS, k=[1, 2, 45, 400], left=[-1e3, -0.2, -1e-12, 0.0, 1e-12])
def test_a_downdate_to_an_indefinite_matrix_is_refused_and_changes_nothing(p, k, left):
    factor = kernels.CholeskyFactor(positive_definite(p))
    V = columns(p, k)
    W = np.linalg.solve(factor.lower, V)
    V *= np.sqrt(1.0 - left) / np.linalg.norm(
        W, 2
    )  # the smallest eigenvalue of I - V^T H^-1 V becomes `left`
    before = state(factor)
    with pytest.raises(expunge.NotPositiveDefiniteError, match="factor the changed matrix anew") as caught:
        factor.downdate(V)
    assert state(factor) == before
    name, number = re.search(r"\((.*) = (.*)\): ", str(caught.value)).groups()
    assert name == ("1 - v^T H^-1 v" if k == 1 else "smallest eigenvalue of I - V^T H^-1 V")
    assert abs(float(number) - left) <= 1e-5 * (abs(left) + 1e-7)


def test_the_message_of_a_refused_downdate_is_that_of_the_twin():
    for V in ([1.2, 0.0], [[1.2, 0.0, 0.1], [0.0, 1.5, 0.2]]):
        with pytest.raises(expunge.NotPositiveDefiniteError) as expected:
            reference.CholeskyFactor(np.eye(2)).downdate(V)
        with pytest.raises(expunge.NotPositiveDefiniteError) as caught:
            kernels.CholeskyFactor(np.eye(2)).downdate(V)
        assert str(caught.value) == str(expected.value)
    with pytest.raises(expunge.NotPositiveDefiniteError) as caught:
        kernels.CholeskyFactor([[5.0]]).downdate([np.sqrt(6.0)])
    assert str(caught.value) == (
        "the factor would lose positive definiteness (1 - v^T H^-1 v = -0.2): "
        "factor the changed matrix anew, or check that these rows were in it"
    )


@each_size
@pytest.mark.parametrize("left", [2e-8, 1e-4])
def test_a_downdate_that_leaves_little_is_done(p, left):
    factor = kernels.CholeskyFactor(positive_definite(p))
    v = columns(p, 1)[:, 0]
    v *= np.sqrt(1.0 - left) / np.linalg.norm(np.linalg.solve(factor.lower, v))
    L = factor.lower
    factor.downdate(v)
    # det(H - v v^T) = det H (1 - v^T H^-1 v)
    ratio = np.prod(np.diag(factor.lower) / np.diag(L)) ** 2
    assert abs(ratio - left) <= 1e-13 * p
    L_after, H = factor.lower, L @ L.T
    assert np.linalg.norm(L_after @ L_after.T + np.outer(v, v) - H) <= 1e-15 * p * np.linalg.norm(H)


@each_size
@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_appending_to_an_indefinite_matrix_is_refused_and_changes_nothing(p, bad):
    H = positive_definite(p)
    h = np.append(H @ np.ones(p), np.ones(p) @ H @ np.ones(p) + bad)  # the new pivot is `bad`
    larger = np.vstack([np.column_stack([H, h[:p]]), h])
    factor = kernels.CholeskyFactor(H)
    before = state(factor)
    message = rf"^Hessian is not positive definite \(pivot {p}\): columns of X depend on each other"
    with pytest.raises(expunge.NotPositiveDefiniteError, match=message):
        factor.append(h)
    assert state(factor) == before
    if bad < 0.0:
        for refused in (
            lambda: kernels.CholeskyFactor(larger),
            lambda: reference.CholeskyFactor(H).append(h),
        ):
            with pytest.raises(expunge.NotPositiveDefiniteError, match=message):
                refused()


EDITS = {"update": (5,), "downdate": (5,), "append": (6,)}

each_edit = pytest.mark.parametrize("edit", EDITS)


@each_edit
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_edits_refuse_what_is_not_finite(edit, bad):
    factor = kernels.CholeskyFactor(positive_definite(5))
    before = state(factor)
    shapes = [EDITS[edit]] if edit == "append" else [(5,), (5, 1), (5, 40)]
    for shape in shapes:
        for position in (0, -1):
            given = np.full(shape, 1e-3)
            given.flat[position] = bad
            with pytest.raises(ValueError, match="contains NaN or infinity"):
                getattr(factor, edit)(given)
            with pytest.raises(ValueError, match="contains NaN or infinity"):  # the core's own check
                getattr(factor._factor, edit)(given)
    assert state(factor) == before


@each_edit
@pytest.mark.parametrize("shape", [(4,), (7,), (1, 5), (4, 2), (5, 1, 1), (6, 1)])
def test_edits_refuse_another_shape(edit, shape):
    factor = kernels.CholeskyFactor(positive_definite(5))
    before = state(factor)
    expected = "expected (6,)" if edit == "append" else "expected (5,) or (5, k)"
    with pytest.raises(ValueError) as caught:
        getattr(factor, edit)(np.ones(shape))
    assert f"has shape {shape}, {expected}" in str(caught.value)
    assert state(factor) == before


@each_edit
@pytest.mark.parametrize("given", [["a"] * 6, [1j] * 6])
def test_edits_refuse_what_is_no_real_number(edit, given):
    with pytest.raises(ValueError, match="must hold real numbers"):
        getattr(kernels.CholeskyFactor(positive_definite(5)), edit)(given)


@pytest.mark.parametrize(
    "H",
    [
        np.diag([1.0, 2.0, 3.0, -1.0, 1.0]),
        np.diag([1.0, 0.0]),
        np.ones((3, 3)) - 2.0 * np.eye(3),
        np.diag(np.where(np.arange(300) == 217, -1.0, 1.0)),
    ],
    ids=["negative", "singular", "indefinite", "blocked"],
)
def test_an_indefinite_matrix_is_refused_with_the_pivot(H):
    with pytest.raises(reference.NotPositiveDefiniteError) as expected:
        reference.CholeskyFactor(H)
    with pytest.raises(expunge.NotPositiveDefiniteError, match="columns of X depend on each other") as caught:
        kernels.CholeskyFactor(H)
    assert isinstance(caught.value, np.linalg.LinAlgError)
    assert str(caught.value) == str(expected.value)


@pytest.mark.parametrize("shape", [(4,), (6, 2), (1, 5), (5, 1, 1), ()])
def test_solve_refuses_another_shape(shape):
    factor = kernels.CholeskyFactor(positive_definite(5))
    with pytest.raises(ValueError, match="5") as caught:
        factor.solve(np.ones(shape))
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize(
    "H", [np.ones((2, 3)), np.ones(3), np.full((2, 2), np.nan)], ids=["2x3", "vector", "NaN"]
)
def test_the_factor_refuses_what_is_not_a_finite_square_matrix(H):
    with pytest.raises(ValueError):
        kernels.CholeskyFactor(H)
