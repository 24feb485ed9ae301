"""Distances in standard errors (E41): proven after every request, beside minimisers in extended precision."""

import pickle

import numpy as np
import pytest
from long_double import distance_to_minimum, parts
from problems import INTERCEPT, dense, in_pairs
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from unlearning import inside, theta_of

import expunge as ex

KINDS = {"squared": ex.Ridge, "logistic": ex.LogisticRegression}
each_loss = pytest.mark.parametrize("loss", KINDS)
each_intercept = pytest.mark.parametrize("fit_intercept", [False, True])
METHODS = ["auto", "exact", "second_order", "first_order"]


def problem(loss, n=120, d=4, seed=0, shape="plain"):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    s = None
    if shape == "scaled":
        X *= 10.0 ** np.linspace(-2, 1, d)
    if shape == "heavy tails":
        X = rng.standard_t(2.5, size=(n, d))
    if shape == "far":
        X += np.array([1e6, 0, -1e4, 0])[:d]
    if shape == "weights":
        s = 10.0 ** rng.uniform(-2, 2, n)
    if shape == "equal rows":
        X = X[rng.integers(0, 9, n)]
    eta = (X - X.mean(axis=0)) @ rng.standard_normal(d) / X.std(axis=0).max()
    y = eta + rng.standard_normal(n) if loss == "squared" else (rng.random(n) < 1 / (1 + np.exp(-eta))) * 1.0
    y[:2] = y[:2] if loss == "squared" else [0.0, 1.0]
    return X, y, s


def true_distance(un, loss):
    """From the model's theta to the minimum on the current data, by Newton steps in long double."""
    model, fit_intercept = un.model, un.model.fit_intercept
    X, y, s = un.corrected_data()
    theta = np.append(np.ravel(model.coef_), np.ravel(model.intercept_) if fit_intercept else [])
    return distance_to_minimum(loss, dense(X), y, s, theta, model.alpha, fit_intercept)


ROUNDED = 1e-9  # below it the model's theta, rounded to doubles, is what is measured


@in_pairs(
    loss=list(KINDS),
    fit_intercept=INTERCEPT,
    shape=["plain", "scaled", "heavy tails", "far", "weights", "equal rows"],
    alpha=[1e-2, 1.0],
)
def test_what_is_proven_after_every_request_holds(loss, fit_intercept, shape, alpha):
    fit_intercept |= shape == "far"  # without one nothing is taken off
    X, y, s = problem(loss, shape=shape)
    model = KINDS[loss](alpha, fit_intercept=fit_intercept).fit(X, y, s)
    un = ex.Unlearner(model, X, y, s, within=0.1)
    rng = np.random.default_rng(5)
    rows, proven = rng.permutation(np.arange(2, 120))[:24], 0
    for k, row in enumerate(rows.tolist()):
        request = [
            ex.RemoveRows(row),
            ex.CorrectLabels(row, float(k % 2)),
            ex.CorrectValues([row], [0], X[row, 0] + 0.5),
        ][k % 3 if k % 4 else 0]
        update = un.apply(request, method=METHODS[k % 7] if k % 7 < 4 else "auto")
        true = true_distance(un, loss)
        assert true <= update.distance * (1 + 1e-6) + ROUNDED, (k, update)
        if update.method in ("auto", "exact"):
            assert update.distance <= 0.1
        assert true <= un.distance() * (1 + 1e-6) + ROUNDED
        proven += update.distance < np.inf
    assert proven >= 15


@each_loss
@each_intercept
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("alpha", [1.0, 1e-4])
def test_revoked_columns_are_read_until_the_promise_is_proven_and_no_further(
    loss, fit_intercept, form, alpha
):
    X, y, s = problem(loss, n=400, d=8)
    X = form(X)
    passes = {}
    for method in ("auto", "exact"):
        un = ex.Unlearner(KINDS[loss](alpha, fit_intercept=fit_intercept).fit(X, y, s), X, y, s)
        update = un.apply(ex.RevokeFeatures([1, 4, 5]), method=method)
        assert (update.method, update.settled) == (method, True)
        assert true_distance(un, loss) <= update.distance + ROUNDED
        assert update.distance <= un.within
        assert update.residual == update.residual_bound > 0.0
        passes[method] = update.passes
        more = un.apply(ex.RemoveRows([2, 3]))
        assert true_distance(un, loss) <= more.distance + ROUNDED
        assert more.distance <= un.within
    # One step ends least squares, and beside a small penalty the last step of either is the same.
    assert passes["auto"] + (loss == "logistic" and alpha == 1.0) <= passes["exact"]


@each_loss
@each_intercept
def test_streams_are_proven_and_the_bound_is_not_far_from_the_truth(loss, fit_intercept):
    X, y, _ = problem(loss, n=2000, d=5)
    un = ex.Unlearner(KINDS[loss](1.0, fit_intercept=fit_intercept).fit(X, y), X, y, within=0.05)
    for first in range(2, 200, 20):
        updates = un.apply_each([ex.RemoveRows(row) for row in range(first, first + 20)])
        assert (updates.distance <= 0.05).all()
        true = true_distance(un, loss)
        assert true <= updates.distance[-1] + ROUNDED
        if loss == "logistic" and true > 1e-6:
            assert updates.distance[-1] <= 200 * true


@each_loss
@pytest.mark.parametrize("form", [sparse.csr_array, lambda X: X.astype(np.float32), np.asfortranarray])
@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_every_form_and_solver_keeps_the_promise(loss, form, solver):
    X, y, _ = problem(loss, n=200, d=6)
    X = form(np.where(np.abs(X) > 0.3, X, 0.0))
    un = ex.Unlearner(KINDS[loss](1.0, solver=solver).fit(X, y), X, y, within=0.01)
    for row in range(2, 20):
        update = un.apply(ex.RemoveRows(row))
        assert update.distance <= 0.01
        assert true_distance(un, loss) <= update.distance + ROUNDED


@each_loss
def test_it_does_not_depend_on_the_scale_of_columns_with_their_penalties_nor_on_that_of_y(loss):
    X, y, _ = problem(loss)
    found = []
    for scale in (1.0, 2.0**10):
        target = y * scale if loss == "squared" else y
        model = KINDS[loss](1.0 * scale**2, fit_intercept=False).fit(X * scale, target)
        un = ex.Unlearner(model, X * scale, target, within=0.5)
        found.append([un.apply(ex.RemoveRows(row)).distance for row in range(2, 12)])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6, atol=1e-12)


def test_detached_requests_are_proven_too():
    X, y, _ = problem("logistic", n=2000)
    apart = ex.Unlearner(ex.LogisticRegression(1.0).fit(X, y), X, y, within=0.05).detach()
    left = np.arange(2000)
    for row in range(2, 6):
        update = apart.apply(ex.Edit(before=(X[row : row + 1], y[row : row + 1])))
        assert update.distance <= 0.05
        left = left[left != row]
    data = X[left], y[left]
    retrained = ex.Unlearner(ex.LogisticRegression(1.0).fit(*data), *data)
    gap = np.append(
        apart.model.coef_ - retrained.model.coef_, apart.model.intercept_ - retrained.model.intercept_
    )
    assert 0 < np.abs(gap / retrained.standard_errors()).max() <= update.distance
    with pytest.raises(ex.ToleranceExceeded, match="distance in standard errors") as refused:
        apart.apply(ex.Edit(before=(X[left[:600]], y[left[:600]])))
    assert refused.value.bound > refused.value.tolerance == 0.05


@each_loss
@each_intercept
def test_standard_errors_are_roots_of_the_inverse_hessian(loss, fit_intercept):
    X, y, s = problem(loss, shape="weights")
    un = ex.Unlearner(KINDS[loss](2.0, fit_intercept=fit_intercept).fit(X, y, s), X, y, s)
    A = np.column_stack([X, np.ones(len(X))]) if fit_intercept else X
    theta = np.append(np.ravel(un.model.coef_), np.ravel(un.model.intercept_) if fit_intercept else [])
    _, H, squares = parts(loss, A, y, s, theta, 2.0, fit_intercept)
    expected = np.sqrt(np.diag(np.linalg.inv(H)))
    if loss == "squared":
        G = (A.T * s) @ A
        expected = expected * np.sqrt(squares / (s.sum() - np.trace(np.linalg.solve(H, G))))
    np.testing.assert_allclose(un.standard_errors(), expected, rtol=1e-8)
    np.testing.assert_allclose(un.standard_errors(columns=[2, 0]), expected[[2, 0]], rtol=1e-8)


@each_loss
def test_the_distance_of_any_linear_model(loss):
    from sklearn import linear_model

    X, y, _ = problem(loss, n=300)
    if loss == "squared":
        model = linear_model.Ridge(1.0, solver="lsqr", tol=1e-2).fit(X, y)
    else:
        model = linear_model.LogisticRegression(C=1.0, tol=1e-2).fit(X, y)
    found = ex.distance(model, X, y)
    exact = ex.distance(KINDS[loss](1.0).fit(X, y), X, y)
    assert exact < 1e-6 < found < 10
    other = KINDS[loss](1.0).fit(X, y)
    gap = np.abs(np.ravel(model.coef_) - np.ravel(other.coef_))
    un = ex.Unlearner(other, X, y)
    assert (gap <= found * un.standard_errors()[:4] * (1 + 1e-3)).all()


@pytest.mark.parametrize("wrong", [0.0, -1.0, np.nan, np.inf, "1"])
def test_within_is_a_number_above_0(wrong):
    X, y, _ = problem("logistic")
    with pytest.raises((ValueError, TypeError), match="within"):
        ex.Unlearner(ex.LogisticRegression(1.0).fit(X, y), X, y, within=wrong)


@pytest.mark.parametrize("include_rows", [False, True])
def test_a_file_keeps_the_promise(include_rows, tmp_path):
    X, y, _ = problem("logistic", n=2000)
    un = ex.Unlearner(ex.LogisticRegression(1.0).fit(X, y), X, y, within=0.05)
    un.apply(ex.RemoveRows(3))
    un.save(tmp_path / "file", include_rows=include_rows)
    loaded = ex.Unlearner.load(tmp_path / "file")
    assert (loaded.within, loaded.tolerance) == (0.05, 1e-8)  # of so few rows
    if include_rows:
        assert loaded.apply_each([ex.RemoveRows(row) for row in range(4, 60)]).distance.max() <= 0.05
    else:
        assert loaded.apply(ex.Edit(before=(X[4:5], y[4:5]))).distance <= 0.05
        with pytest.raises(ex.ToleranceExceeded):
            loaded.apply(ex.Edit(before=(X[5:900], y[5:900])))
    plain = ex.Unlearner(ex.LogisticRegression(1.0).fit(X, y), X, y)
    plain.save(tmp_path / "plain")
    assert ex.Unlearner.load(tmp_path / "plain").within == 0.01
    tight = ex.Unlearner(ex.LogisticRegression(1.0).fit(X, y), X, y, tolerance=1e-8)
    tight.save(tmp_path / "tight")
    assert ex.Unlearner.load(tmp_path / "tight").within is None


# What is promised where nothing or something else was asked for


def stream_of_every_kind(X, y, loss, rng):
    """Requests of every kind, one after the other, rows in CSR where X is."""
    n, d = X.shape
    rows = iter(rng.permutation(np.arange(2, n)).tolist())

    def added(m):
        new = rng.standard_normal((m, d))
        return sparse.csr_array(new) if sparse.issparse(X) else new

    label = (lambda row: y[row] + 1.0) if loss == "squared" else (lambda row: 1.0 - y[row])
    for _ in range(4):
        row = next(rows)
        yield ex.RemoveRows(next(rows))
        yield ex.CorrectLabels(row, label(row))
        yield ex.CorrectValues([next(rows)], [0], 2.0)
        yield ex.AddRows(added(2), [0.0, 1.0])
        yield [ex.RemoveRows([next(rows), next(rows)]), ex.CorrectValues([next(rows)], [1, 2], [0.0, -1.0])]
    yield ex.RevokeFeatures([d - 1])
    yield ex.RemoveRows([next(rows) for _ in range(n // 5)])
    yield ex.AddRows(added(1)[:, : d - 1], [1.0])


@in_pairs(
    loss=list(KINDS),
    fit_intercept=INTERCEPT,
    form={"dense": np.array, "csr": sparse.csr_array},
    seed=range(2),
)
def test_a_hundredth_of_a_standard_error_is_promised_by_default(loss, fit_intercept, form, seed):
    """And kept after every request, by a minimiser that shares nothing with the package."""
    X, y, _ = problem(loss, n=400, d=5, seed=seed)
    X = form(np.where(np.abs(X) > 0.3, X, 0.0))
    un = ex.Unlearner(KINDS[loss](1.0, fit_intercept=fit_intercept).fit(X, y), X, y)
    assert un.within == 0.01
    steps = 0
    for request in stream_of_every_kind(X, y, loss, np.random.default_rng(seed)):
        update = un.apply(request)
        true = true_distance(un, loss)
        assert true <= update.distance * (1 + 1e-6) + ROUNDED, update
        assert max(true, update.distance) <= 0.01, update
        coef, retrained = np.ravel(un.model.coef_), np.ravel(un.retrain().coef_)
        errors = un.standard_errors()[: coef.size]
        assert (np.abs(coef - retrained) <= 0.01 * errors * (1 + 1e-3)).all()
        steps += not update.settled
    assert steps >= 5  # without a pass; a settle that takes one is kept by its bound (E26)


def test_the_default_promise_is_the_distance_and_exact_goes_to_the_floor():
    X, y, _ = problem("logistic", n=500)
    plain = ex.Unlearner(ex.LogisticRegression(1.0).fit(X, y), X, y)
    assert (plain.within, plain.tolerance) == (0.01, 1e-8)
    update = plain.apply(ex.RemoveRows(3))
    assert update.distance <= 0.01
    assert update.residual_bound > 1e-8  # which is not promised
    assert plain.apply(ex.RemoveRows(4), method="exact").distance < 1e-9
    near = ex.Unlearner(ex.LogisticRegression(1.0).fit(X, y), X, y, within=0.5)
    assert near.within == 0.5
    assert near.apply(ex.RemoveRows(3)).residual_bound > 1e-8
    assert near.apply(ex.RemoveRows(4), method="exact").distance < 1e-9


@each_loss
@pytest.mark.parametrize("tolerance", [1e-8, 1e-3])
def test_a_tolerance_alone_bounds_the_residual_of_every_request(loss, tolerance):
    """As it did before distances were promised; certificates rest on it, too."""
    X, y, _ = problem(loss, n=400, d=5)
    un = ex.Unlearner(KINDS[loss](1.0).fit(X, y), X, y, tolerance=tolerance)
    assert (un.within, un.tolerance) == (None, tolerance)
    settled = 0
    for request in stream_of_every_kind(X, y, loss, np.random.default_rng(0)):
        update = un.apply(request)
        assert un.residual() <= update.residual_bound <= tolerance
        assert true_distance(un, loss) <= 10 * tolerance + ROUNDED  # alpha and the spread are near 1
        settled += update.settled
    assert settled >= (10 if loss == "logistic" and tolerance == 1e-8 else 1)
    assert un.release(1.0, 1e-5).certificate_.tolerance == tolerance
    apart = un.detach()
    if loss == "logistic":
        held = apart.model.coef_.shape[1]
        with pytest.raises(ex.ToleranceExceeded) as refused:
            apart.apply(ex.AddRows(np.full((2, held), 9.0), [0.0, 1.0]))
        assert refused.value.bound > refused.value.tolerance == tolerance


@each_loss
@pytest.mark.parametrize("tolerance", [1e-10, 1e-2])
def test_of_both_the_distance_is_promised_and_certificates_rest_on_the_tolerance(loss, tolerance):
    X, y, _ = problem(loss, n=400, d=5)
    un = ex.Unlearner(KINDS[loss](1.0).fit(X, y), X, y, within=0.05, tolerance=tolerance)
    alone = ex.Unlearner(KINDS[loss](1.0).fit(X, y), X, y, within=0.05)
    assert (un.within, un.tolerance, alone.tolerance) == (0.05, tolerance, 1e-8)
    above = 0
    for request in stream_of_every_kind(X, y, loss, np.random.default_rng(0)):
        update, same = un.apply(request), alone.apply(request)
        assert update.distance <= 0.05
        assert true_distance(un, loss) <= update.distance * (1 + 1e-6) + ROUNDED
        # the tolerance says nothing of requests
        np.testing.assert_array_equal(un.model.coef_, alone.model.coef_)
        assert (update.residual_bound, update.settled) == (same.residual_bound, same.settled)
        above += update.residual_bound > 1e-10
    assert above >= (10 if loss == "logistic" else 1)
    certificate = un.release(1.0, 1e-5).certificate_
    assert certificate.residual_bound <= certificate.tolerance == tolerance
    assert alone.release(1.0, 1e-5).certificate_.tolerance == 1e-8


@pytest.mark.parametrize("within", [None, 0.5])
@pytest.mark.parametrize("tolerance", [-1.0, np.nan, np.inf, "1"])
def test_a_tolerance_is_a_number_that_is_not_negative(tolerance, within):
    X, y, _ = problem("logistic")
    with pytest.raises((ValueError, TypeError), match="tolerance"):
        ex.Unlearner(ex.LogisticRegression(1.0).fit(X, y), X, y, tolerance=tolerance, within=within)


def test_what_rounding_does_not_let_be_proven_is_said():
    X, y, _ = problem("logistic", n=200)
    X[5] *= 1e7  # a row that is far larger than the others
    un = ex.Unlearner(ex.LogisticRegression(1.0).fit(X, y), X, y, within=1e-15)
    with pytest.warns(ConvergenceWarning, match="standard errors, not within 1e-15"):
        update = un.apply(ex.RemoveRows(7))
    assert update.distance > 1e-15


def test_a_budget_that_is_exhausted_settles_further_than_the_distance_asks():
    X, y, _ = problem("logistic", n=300)
    model = ex.LogisticRegression(1.0, noise=3.0, random_state=0).fit(X, y)
    un = ex.Unlearner(model, X, y, within=50.0, epsilon=0.5, delta=1e-5)
    assert not un.apply(ex.RemoveRows(2)).settled  # a step, whose gradient is not known
    update = un.apply(ex.CorrectLabels(range(3, 53), 1 - y[3:53]))
    assert update.settled
    assert un.budget.spent <= un.budget.total


def test_standard_errors_without_degrees_of_freedom_are_refused():
    X, y, _ = problem("squared", n=30)
    s = np.full(30, 0.01)
    un = ex.Unlearner(ex.Ridge(1e-6).fit(X, y, s), X, y, s)
    with pytest.raises(ValueError, match="effective parameters"):
        un.standard_errors()


@each_loss
def test_an_update_says_why_it_falls_short_of_the_promise(loss):
    X, y, _ = problem(loss)
    un = ex.Unlearner(KINDS[loss]().fit(X, y), X, y)
    update = un.apply(ex.RemoveRows(3))
    assert update.distance <= un.within
    assert update.shortfall is None
    assert "shortfall" not in repr(update)
    update = un.apply(ex.RemoveRows(slice(10, 40)), method="first_order")
    assert update.distance > un.within
    assert update.shortfall.startswith("first_order promises nothing")
    assert update.shortfall in repr(update)
    assert "promises nothing" in update._repr_html_()
    update = un.apply(ex.RemoveRows(4), method="second_order")
    assert (update.shortfall is None) == (update.distance <= un.within)
    with pytest.warns(ConvergenceWarning, match="what rounding may hide"):
        hidden = ex.Unlearner(un.model, *un.corrected_data(), within=1e-15, refit=True)
    with pytest.warns(ConvergenceWarning, match="what rounding may hide"):
        update = hidden.apply(ex.RemoveRows(5))
    assert update.distance > 1e-15
    assert update.shortfall.startswith("rounding may hide more")
    assert pickle.loads(pickle.dumps(update)).shortfall is None


def test_an_update_says_why_its_residual_is_above_the_tolerance():
    X, y, _ = problem("logistic")
    model = ex.LogisticRegression().fit(X, y)
    with pytest.warns(ConvergenceWarning, match="below the rounding floor"):
        un = ex.Unlearner(model, X, y, tolerance=1e-17)
    with pytest.warns(ConvergenceWarning, match="below the rounding floor"):
        update = un.apply(ex.RemoveRows(5))
    assert update.residual_bound > 1e-17
    assert update.shortfall.startswith("rounding may hide more")


@each_intercept
@pytest.mark.parametrize("by", ["remove", "correct", "stream", "detached", "added"])
@pytest.mark.parametrize(("wrong", "noise"), [(1e9, 1e-3), (1e12, 1.0), (1e12, 1e-3), (1e15, 1e-1)])
def test_a_wrong_target_that_leaves_takes_no_standard_error_with_it(by, fit_intercept, wrong, noise):
    """J was large with it, and what rounding left of that is no spread of the others' residuals."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 3))
    y = X @ [1.0, -2.0, 0.5] + noise * rng.standard_normal(60)
    told, left = y.copy(), slice(1, None)
    if by != "added":
        told[0] = wrong
    un = ex.Unlearner(ex.Ridge(1.0, fit_intercept=fit_intercept).fit(X, told), X, told)
    try:
        if by == "remove":
            found = un.apply(ex.RemoveRows(0)).distance
        elif by == "correct":
            found, left = un.apply(ex.CorrectLabels(0, y[0])).distance, slice(None)
        elif by == "stream":
            found = un.apply_each([ex.RemoveRows(0), ex.RemoveRows(1)]).distance[-1]
            left = slice(2, None)
        elif by == "detached":
            un = un.detach()
            found = un.apply(ex.Edit(before=(X[:1], told[:1])), method="second_order").distance
        else:
            un.apply(ex.AddRows(1.3 * X[:1], [wrong]))
            found, left = un.apply(ex.RemoveRows(60)).distance, slice(None)
    except ex.ToleranceExceeded:
        assert by == "detached"
        return
    theta = np.append(un.model.coef_, un.model.intercept_ if fit_intercept else [])
    true = distance_to_minimum("squared", X[left], y[left], None, theta, 1.0, fit_intercept)
    assert true <= found * (1 + 1e-6) + ROUNDED


def test_a_heavy_row_that_leaves_takes_no_weight_with_it():
    rng = np.random.default_rng(1)
    X, s = rng.standard_normal((60, 3)), np.ones(60)
    X[0], s[0] = 0.0, 1e17
    y = X @ [1.0, -2.0, 0.5] + 1e-6 * rng.standard_normal(60)
    y[0] = 0.0
    un = ex.Unlearner(ex.Ridge(1e-3, fit_intercept=False).fit(X, y, s), X, y, s)
    found = un.apply(ex.RemoveRows(0)).distance
    true = distance_to_minimum("squared", X[1:], y[1:], None, un.model.coef_, 1e-3, False)
    assert true <= found * (1 + 1e-6) + ROUNDED


def test_a_row_that_alone_told_two_columns_apart_may_come_and_go():
    """Without it H is nearly singular, and its leverage is 1 but for rounding."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        z = rng.standard_normal(60)
        X = np.column_stack([z, z + 1e-4 * rng.standard_normal(60)])
        y = z + rng.standard_normal(60)
        un = ex.Unlearner(ex.Ridge(5e-6, fit_intercept=False).fit(X, y), X, y)
        un.apply(ex.AddRows([[95.0, -95.0]], [0.0]))
        found = un.apply_each([ex.RemoveRows(60), ex.RemoveRows(0), ex.RemoveRows(1)]).distance[-1]
        true = distance_to_minimum("squared", X[2:], y[2:], None, un.model.coef_, 5e-6, False)
        assert true <= found * (1 + 1e-6) + ROUNDED, seed


def test_what_a_stream_left_above_the_promise_is_said():
    X, y, _ = problem("logistic", n=400)
    un = ex.Unlearner(ex.LogisticRegression(1.0).fit(X, y), X, y)
    updates = un.apply_each([ex.RemoveRows(slice(10, 90)), ex.RemoveRows(100)], method="first_order")
    assert updates.kept.tolist() == (updates.distance <= un.within).tolist()
    assert not updates.kept.all()
    assert "first_order" in updates.shortfall
    kept = un.apply_each([ex.RemoveRows(120), ex.RemoveRows(121)])
    assert kept.kept.all()
    assert kept.shortfall is None


def test_a_distance_is_measured_now_where_the_penalty_alone_bounds_nothing():
    X, y, _ = problem("logistic", n=400)
    un = ex.Unlearner(ex.LogisticRegression(1e-4, solver="cg").fit(X, y), X, y)
    un.apply(ex.RemoveRows(3))
    assert 0 < un.distance() <= un.within


def far_from_0(c, n=1000, d=4, seed=0):
    """Columns of spread 1 at c: too near to 0 to be moved, and far enough for rounding to show."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) + c
    return X, (2.0 * (X[:, 0] - c) + rng.logistic(size=n) > 0) * 1.0


def test_a_step_whose_residual_has_no_bound_is_granted_by_its_distance():
    """E10 knows rows by their lengths from 0, and overflows."""
    X, y = far_from_0(150.0, n=250, d=2)
    un = ex.Unlearner(ex.LogisticRegression(1.0).fit(X, y), X, y, within=1.0)
    updates = [un.apply(ex.CorrectLabels([k], [1.0 - y[k]])) for k in range(40)]
    assert any(update.residual_bound == np.inf for update in updates)
    assert all(update.distance <= 1.0 for update in updates)
    assert true_distance(un, "logistic") <= updates[-1].distance


def test_rounding_of_predictors_makes_few_more_passes():
    """It is a share of each curvature, and no number to take off the least eigenvalue."""
    passes = {}
    for c in (0.0, 128.0):
        X, y = far_from_0(c, n=4000, d=20)
        un = ex.Unlearner(ex.LogisticRegression(1.0).fit(X, y), X, y)
        assert inside(un).data.shift is None
        updates = [un.apply(ex.RemoveRows([k])) for k in range(60)]
        passes[c] = sum(update.passes for update in updates)
        assert true_distance(un, "logistic") <= updates[-1].distance <= 0.01
        assert un.distance() <= 0.01
    assert passes[128.0] <= passes[0.0] + 10


@pytest.mark.parametrize("how", ["corrected", "removed", "revoked"])
def test_what_has_left_does_not_make_requests_dearer(how):
    """A row, or a column, that is far from the others; a row that comes has no value in that column."""
    X, y = far_from_0(0.0, n=3000, d=4, seed=1)
    wide = X.copy()
    wide[7] *= 1e4
    wide[:, 3] += 1e6 * (how == "revoked")
    request = {
        "corrected": ex.CorrectValues([7], range(4), X[7:8]),
        "removed": ex.RemoveRows([7]),
        "revoked": [ex.RemoveRows([7]), ex.RevokeFeatures([3])],
    }[how]
    un = ex.Unlearner(ex.LogisticRegression(1.0).fit(wide, y), wide, y)
    kept = inside(un).held.largest_norm, inside(un).held.ball.radius
    refused = [*(request if how == "revoked" else [request]), ex.RemoveRows([10**6])]
    with pytest.raises(ValueError):
        un.apply(refused)
    assert (inside(un).held.largest_norm, inside(un).held.ball.radius) == kept
    un.apply(request, method="exact")
    if how == "revoked":
        un.apply(ex.AddRows(X[:1, :3], [1.0]))
    held = inside(un).held
    assert held.largest_norm < 10.0
    assert held.ball.radius < 10.0
    assert sum(un.apply(ex.RemoveRows([k])).passes for k in range(20, 60)) <= 6
    assert true_distance(un, "logistic") <= un.distance() + ROUNDED


def test_a_distance_is_infinite_where_no_curvature_is_left():
    X, y = far_from_0(0.0, n=100)
    model = ex.LogisticRegression(1.0).fit(X, y)
    model.intercept_ = model.intercept_ + 800.0
    assert ex.distance(model, X, y) == np.inf


@each_loss
@pytest.mark.parametrize("c", [1e7, 1e11])
def test_the_rounding_of_an_intercept_far_from_0_counts(loss, c):
    """It is that of theta over x - c less c times the coefficients, and has the last digits of that alone."""
    X, y = far_from_0(0.0, n=400, d=3)
    X = np.round(X * 2**10) / 2**10 + c  # exact in doubles
    y = y if loss == "logistic" else y + 0.1 * X[:, 1] - 0.1 * c
    model = KINDS[loss](1.0).fit(X, y)
    gap = distance_to_minimum(loss, X, y, np.ones(400), theta_of(model), np.ones(3), True)
    assert gap <= ex.distance(model, X, y)
    un = ex.Unlearner(model, X, y)
    un.apply(ex.RemoveRows([3]), method="exact")
    assert true_distance(un, loss) <= un.distance() < 0.01
