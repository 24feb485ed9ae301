"""Columns far from 0: in every representation and request as exact as on columns that are not (E43)."""

import warnings

import mpmath
import numpy as np
import pytest
import scipy.sparse as sp
import sklearn.linear_model
from problems import in_pairs
from sklearn.exceptions import ConvergenceWarning

import expunge as ex
from expunge.engine.shift import shift_of, with_stored

N, FAR = 400, 1e8
MODELS = {
    "ridge": ex.Ridge,
    "logistic": ex.LogisticRegression,
    "their_ridge": sklearn.linear_model.Ridge,
    "their_logistic": sklearn.linear_model.LogisticRegression,
}


def problem(kind="C", dtype=np.float64, seed=0):
    """X with two columns far from 0, one of them constant; what is near 0 is sparse in CSR."""
    rng = np.random.default_rng(seed)
    near = rng.normal(size=(N, 3)) * (rng.random((N, 3)) < 0.7)
    far = FAR + rng.integers(-40, 40, size=N) / 4 if dtype == np.float64 else 2e3 + rng.normal(size=N)
    X = np.column_stack([far, near, np.full(N, -1e7)]).astype(dtype)
    eta = (X[:, 0].astype(float) - np.median(X[:, 0])) / 5 + near @ [1.0, -2.0, 0.5]
    y = (rng.random(N) < 1 / (1 + np.exp(-eta))).astype(float)
    layouts = {"C": np.ascontiguousarray, "F": np.asfortranarray, "csr": sp.csr_array}
    return layouts[kind](X), y


def minimiser(X, y, loss):
    """Of E1 with alpha = 1, in long double on columns less their means: coefficients and predictions."""
    X = np.asarray(X.toarray() if sp.issparse(X) else X).astype(np.longdouble)
    A = np.column_stack([X - X.mean(axis=0), np.ones(len(X))])
    penalty = np.append(np.ones(X.shape[1]), 0.0).astype(np.longdouble)
    theta = np.zeros(A.shape[1], dtype=np.longdouble)
    for _ in range(40 if loss == "logistic" else 3):
        eta = A @ theta
        p = 1 / (1 + np.exp(-eta))
        d1, d2 = (p - y, p * (1 - p)) if loss == "logistic" else (eta - y, np.ones_like(eta))
        g = A.T @ d1 + penalty * theta
        H = ((A.T * d2) @ A).astype(float) + np.diag(penalty.astype(float))
        theta -= np.linalg.solve(H, g.astype(float))
    return theta[:-1].astype(float), (A @ theta).astype(float)


def minimiser_in_60_digits(X, y, loss, start):
    """The same coefficients, of X as it is, by Newton steps from a model's."""
    with mpmath.workdps(60):
        A = np.array([[mpmath.mpf(x) for x in row] for row in np.column_stack([X, np.ones(len(X))])])
        y = np.array([mpmath.mpf(t) for t in y])
        theta = np.array([mpmath.mpf(t) for t in np.append(start.coef_, start.intercept_)])
        penalty = np.append(np.ones(X.shape[1]), 0.0)
        for _ in range(8 if loss == "logistic" else 2):
            eta = A @ theta
            p = np.array([1 / (1 + mpmath.exp(-t)) for t in eta])
            d1, d2 = (p - y, p * (1 - p)) if loss == "logistic" else (eta - y, np.ones_like(eta))
            H = mpmath.matrix(((A.T * d2) @ A + np.diag(penalty)).tolist())
            g = A.T @ d1 + penalty * theta
            theta = theta - np.array(list(mpmath.lu_solve(H, mpmath.matrix(g.tolist()))))
        assert max(abs(A.T @ d1 + penalty * theta)) < 1e-3  # at the last step but one
        return theta[:-1].astype(float)


def eta_of(model, X):
    X = X.toarray() if sp.issparse(X) else X
    return X.astype(np.longdouble) @ np.ravel(model.coef_) + np.longdouble(np.ravel(model.intercept_)[0])


def check(model, X, y, loss, rtol=1e-8):
    coef, eta = minimiser(X, y, loss)
    np.testing.assert_allclose(np.ravel(model.coef_), coef, rtol=rtol, atol=rtol)
    # an intercept near 1e8 has digits down to 1e-8, and so have predictions
    np.testing.assert_allclose(eta_of(model, X).astype(float), eta, atol=4e-8 * (1 + abs(coef).max()) + rtol)


def requests(kind):
    def rows(values):
        return sp.csr_array(np.array(values)) if kind == "csr" else values

    return {
        "remove": ex.RemoveRows(range(30)),
        "label": ex.CorrectLabels([33, 35], 1),
        "value": ex.CorrectValues([44, 49], [0], FAR + 3.0),
        "zero": ex.CorrectValues([57], [1], 0.0),
        "add": ex.AddRows(rows([[FAR + 2.0, 1.0, 0.0, 1.0, -1e7]]), [1]),
        "revoke_far": ex.RevokeFeatures([0]),
        "revoke_near": ex.RevokeFeatures([2]),
        "constant": ex.RevokeFeatures([4]),
    }


@pytest.mark.parametrize("kind", ["C", "F", "csr"])
@pytest.mark.parametrize("name", MODELS)
def test_requests_match_the_minimiser_in_long_double(name, kind):
    X, y = problem(kind)
    loss = "logistic" if "logistic" in name else "squared"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's lbfgs does not converge on such columns
        model = MODELS[name]().fit(X, y)
    un = ex.Unlearner(model, X, y, refit=name == "their_logistic", tolerance=1e-8)
    check(un.model, X, y, loss)
    for request in requests(kind).values():
        un.apply(request)
        data, targets, _ = un.corrected_data()
        check(un.model, data, targets, loss)
    assert un.residual() <= un.tolerance


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", ["C", "csr"])
def test_methods_agree(kind, dtype):
    X, y = problem(kind, dtype)
    for method in ("exact", "second_order", "auto"):
        un = ex.Unlearner(ex.LogisticRegression().fit(X, y), X, y)
        un.apply(ex.RemoveRows(range(5)), method=method)
        un.apply(ex.CorrectLabels([10], 0), method="exact")
        check(un.model, *un.corrected_data()[:2], "logistic")


def test_a_first_order_step_is_that_over_x_as_it_came():
    rng = np.random.default_rng(1)
    X = np.column_stack([rng.normal(size=N), 1000 + rng.normal(size=N)])
    y = X[:, 0] + 0.1 * (X[:, 1] - 1000)
    model = ex.Ridge().fit(X, y)
    theta, tau = np.append(model.coef_, model.intercept_), 1e-9
    A = np.column_stack([X, np.ones(N)])[1:]
    g = A.T @ (A @ theta - y[1:]) + np.append(theta[:-1], 0.0)
    un = ex.Unlearner(model, X, y)
    un.apply(ex.RemoveRows([0]), method="first_order", tau=tau)
    found = np.append(un.model.coef_, un.model.intercept_) - theta
    np.testing.assert_allclose(found[:-1], -tau * g[:-1], rtol=1e-3)
    np.testing.assert_allclose(found[-1], -tau * g[-1], rtol=1e-3, atol=1e-12)
    default = ex.Unlearner(ex.Ridge().fit(X, y), X, y).apply(ex.RemoveRows([0]), method="first_order")
    L = np.linalg.eigvalsh(A.T @ A)[-1] + 1.0
    assert 0.4 / L < default.tau < 1.0 / L


@pytest.mark.parametrize("kind", ["C", "csr"])
@pytest.mark.parametrize("loss", ["ridge", "logistic"])
def test_files_and_detached_ones_too(tmp_path, kind, loss):
    X, y = problem(kind)
    un = ex.Unlearner(MODELS[loss]().fit(X, y), X, y)
    un.apply(ex.RemoveRows(range(20)))
    un.apply(ex.AddRows(X[:1], y[:1]))
    for with_rows in (False, True):
        un.save(tmp_path / "saved", include_rows=with_rows)
        loaded = ex.Unlearner.load(tmp_path / "saved")
        assert np.array_equal(loaded.model.coef_, un.model.coef_)
        assert loaded.model.intercept_ == un.model.intercept_
        if not with_rows:
            loaded.apply(ex.Edit(before=(X[40:41], y[40:41])), method="second_order")
            loaded.apply(
                ex.Edit(before=(X[41:42], y[41:42]), after=(X[41:42], 1 - y[41:42])), method="second_order"
            )
            data = un.corrected_data()
            keep = np.arange(data[0].shape[0]) != 20
            targets = data[1].copy()
            targets[21] = 1 - targets[21]
            loaded.attach(data[0][keep], targets[keep])
        loaded.apply(ex.RemoveRows([100]), method="exact")
        check(loaded.model, *loaded.corrected_data()[:2], MODELS[loss]._loss)


def test_a_column_of_a_detached_ridge_is_revoked():
    X, y = problem()
    un = ex.Unlearner(ex.Ridge().fit(X, y), X, y).detach()
    un.apply(ex.RevokeFeatures([0]))
    check(un.model, X[:, 1:], y, "squared")
    un.apply(ex.Edit(before=(X[:1, 1:], y[:1])))
    check(un.model, X[1:, 1:], y[1:], "squared")


def test_releases_do_not_depend_on_what_left():
    X, y = problem()
    un = ex.Unlearner(ex.LogisticRegression().fit(X, y), X, y)
    un.apply(ex.RemoveRows(range(150)))
    released = un.release(1.0, 1e-3, mechanism="rounding", random_state=0)
    again = ex.Unlearner(ex.LogisticRegression().fit(X[150:], y[150:]), X[150:], y[150:])
    other = again.release(1.0, 1e-3, mechanism="rounding", random_state=0)
    assert np.array_equal(released.coef_, other.coef_)
    assert released.intercept_ == other.intercept_


def test_a_request_is_undone_with_its_shift():
    X, y = problem("csr")
    un = ex.Unlearner(ex.Ridge().fit(X, y), X, y)
    before = un.model.coef_, un.model.intercept_, un.corrected_data()[0].toarray()
    with pytest.raises(ValueError, match="row 0"):
        un.apply(
            [ex.RevokeFeatures([0]), ex.AddRows(X[:1, 1:], [0.0]), ex.RemoveRows([0]), ex.RemoveRows([0])]
        )
    assert un.model.coef_ is before[0]
    assert un.model.intercept_ == before[1]
    assert np.array_equal(un.corrected_data()[0].toarray(), before[2])


# --- what is taken off


def test_a_few_rows_do_not_move_it():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(5000, 2)) + np.array([1e8, 0.0])
    c = shift_of(X)
    X[::40] = 1e10
    assert np.array_equal(shift_of(X), c)
    assert abs(c[0] - 1e8) < 8
    assert c[1] == 0.0


@pytest.mark.parametrize("of", [0.0, 30.0, -50.0])
def test_columns_near_0_stay(of):
    X = np.random.default_rng(0).normal(size=(1000, 4)) + of
    assert shift_of(X) is None
    assert shift_of(sp.csr_array(X)) is None
    assert shift_of(np.ones((10, 2))) is None
    assert shift_of(np.zeros((0, 2))) is None


def test_sparse_columns_with_zeros_stay():
    X = np.column_stack([np.full(1000, 1e6), np.full(1000, 1e6)])
    X[777, 1] = 0.0
    assert np.array_equal(shift_of(sp.csr_array(X)), [1e6, 0.0])
    assert np.array_equal(shift_of(X), [1e6, 1e6])


def test_it_tells_a_median_to_the_spread_alone():
    X = np.random.default_rng(0).normal(size=(3000, 1)) + 12345678.9
    unit = shift_of(X)[0]
    assert unit % 2 == 0
    assert abs(unit - 12345678.9) < 8


def test_what_is_not_stored_is_stored_as_0():
    X = sp.csr_array(np.array([[0.0, 1.0, 0.0], [2.0, 0.0, 3.0]]))
    stored = with_stored(X, np.array([5.0, 0.0, 7.0]))
    assert np.array_equal(stored.toarray(), X.toarray())
    assert np.array_equal(np.diff(stored.indptr), [3, 2])
    assert stored.has_sorted_indices
    assert with_stored(stored, np.array([5.0, 0.0, 7.0])) is stored


def test_without_an_intercept_nothing_is_taken_off():
    X, y = problem()
    with pytest.warns(ConvergenceWarning, match="what rounding may hide"):
        model = ex.Ridge(fit_intercept=False).fit(X, y)
    A = X.astype(np.longdouble)
    g = (A.T @ (A @ model.coef_ - y) + model.coef_).astype(float)
    assert np.linalg.norm(g) <= 2 * model.residual_ + ex.kernels.rounding_floor(
        X, y, model.coef_, alpha=1.0, loss="squared", fit_intercept=False
    )


def test_a_forged_shift_is_refused(tmp_path):
    from expunge.files import archive, saved

    X, y = problem()
    un = ex.Unlearner(ex.Ridge().fit(X, y), X, y)
    un.save(tmp_path / "a")
    entries = archive.read(tmp_path / "a", saved.KIND, saved.READABLE)
    entries["shift"] = entries["shift"] + 1.0
    archive.write(tmp_path / "b", saved.KIND, saved.VERSION, entries)
    with pytest.raises(ValueError, match="shift"):
        ex.Unlearner.load(tmp_path / "b")


# --- rows that are far larger than the others


@pytest.mark.slow
@in_pairs(
    name=["ridge", "logistic"],
    size=[1e10, 3e10],
    kind=["C", "F", "csr"],
    promise={"distance": {}, "residual": {"tolerance": 1e-8}},
)
@pytest.mark.filterwarnings("ignore:the tolerance")  # below the rounding floor of such rows
@pytest.mark.filterwarnings("ignore:the minimum is proven to be within")  # likewise
def test_an_outlier_comes_and_goes(tmp_path, name, size, kind, promise):
    X, y = problem("C")
    X = X[:, :4]
    outlier = np.array([[size, 2 * size, 3 * size, -size]])
    layout = {"C": np.ascontiguousarray, "F": np.asfortranarray, "csr": sp.csr_array}[kind]
    un = ex.Unlearner(MODELS[name]().fit(X, y), layout(X), y, **promise)
    un.apply(ex.AddRows(layout(outlier), [1]))
    whole = np.vstack([X, outlier]), np.append(y, 1.0)
    coef = minimiser_in_60_digits(*whole, MODELS[name]._loss, un.model)
    np.testing.assert_allclose(np.ravel(un.model.coef_), coef, rtol=1e-4, atol=1e-4)
    fitted = MODELS[name]().fit(layout(whole[0]), whole[1])
    np.testing.assert_allclose(np.ravel(fitted.coef_), coef, rtol=1e-4, atol=1e-4)
    un.save(tmp_path / "saved", include_rows=True)
    loaded = ex.Unlearner.load(tmp_path / "saved")
    for held in (un, loaded):
        held.apply(ex.RemoveRows([N]))
        check(held.model, X, y, MODELS[name]._loss)
    un.save(tmp_path / "saved")
    un.detach()


def test_what_cannot_be_told_apart_is_said(tmp_path):
    X, y = problem("C")
    un = ex.Unlearner(ex.Ridge().fit(X[:, :4], y), X[:, :4], y)
    un.apply(ex.AddRows([[1e10, 2e10, 3e10, -1e10]], [1.0]))
    with pytest.raises(ex.NotPositiveDefiniteError, match="lose digits"):
        un.detach()
    with pytest.raises(ex.NotPositiveDefiniteError, match=r"overflow\. Scale its columns"):
        ex.LogisticRegression().fit(X[:, :4] * 1e200, y)
