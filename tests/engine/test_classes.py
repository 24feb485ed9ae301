"""More than two classes: requests leave what scikit-learn fits to the corrected data; a class may leave."""

import copy
import json
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from problems import bits_of, csr, nothing_densifies
from scipy import sparse
from sklearn import linear_model

import expunge as ex
from expunge import reference as binary
from expunge import reference_multinomial as reference
from expunge.engine.row_names import NOBODY
from expunge.release import best_intercept, measure

C = 0.5
LABELS = {3: np.array(["ash", "fir", "oak"]), 10: np.arange(10) * 3}

STORAGES = {"dense": np.array, "csr": csr, "float32": lambda X: X.astype(np.float32)}
each_K = pytest.mark.parametrize("K", LABELS)
each_storage = pytest.mark.parametrize("represent", STORAGES.values(), ids=STORAGES)
each_intercept = pytest.mark.parametrize("fit_intercept", [False, True], ids=["plain", "intercept"])
each_weighting = pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])


def make_data(K, weighted=False, n=240, d=5, seed=0, far=0.0):
    """X (n, d), labels (n,), weights (n,) or None."""
    rng = np.random.default_rng(seed)
    X = np.where(rng.uniform(size=(n, d)) < 0.7, rng.standard_normal((n, d)), 0.0).astype(np.float32)
    eta = X @ rng.standard_normal((d, K)) + rng.standard_normal(K)
    y = (eta + rng.gumbel(size=(n, K))).argmax(axis=1)
    y[: 3 * K] = np.tile(np.arange(K), 3)
    X = X.astype(np.float64)
    X[:, 0] += far
    return X, LABELS[K][y], rng.integers(1, 9, n) / 4.0 if weighted else None


def theirs(X, y, s, fit_intercept, class_weight=None):
    model = linear_model.LogisticRegression(
        C=C,
        fit_intercept=fit_intercept,
        class_weight=class_weight,
        solver="newton-cholesky",
        tol=1e-14,
        max_iter=1000,
    )
    X = X.toarray() if sparse.issparse(X) else np.asarray(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of line searches that rounding ends
        return model.fit(X.astype(np.float64), y, s)


def ours(X, y, s=None, fit_intercept=True, **parameters):
    return ex.LogisticRegression(1.0 / C, fit_intercept=fit_intercept, **parameters).fit(X, y, s)


def assert_refitted(un, fit_intercept, class_weight=None, atol=2e-7):
    """The model is what scikit-learn fits to the corrected data."""
    X, y, s = un.corrected_data()
    expected = theirs(X, y, s, fit_intercept, class_weight)
    assert_array_equal(un.model.classes_, expected.classes_)
    assert_allclose(un.model.coef_, expected.coef_, atol=atol)
    assert_allclose(un.model.intercept_, expected.intercept_, atol=atol)
    assert un.distance() <= un.within


def true_distance(un, fit_intercept):
    """From what scikit-learn fits, in standard errors."""
    X, y, s = un.corrected_data()
    best = theirs(X, y, s, fit_intercept)
    at, away = (
        np.column_stack([coef, intercept])[:, : X.shape[1] + fit_intercept]
        for coef, intercept in (
            (un.model.coef_, un.model.intercept_),
            (un.model.coef_ - best.coef_, un.model.intercept_ - best.intercept_),
        )
    )
    X = X.toarray() if sparse.issparse(X) else X
    how = {"alpha": 1.0 / C, "sample_weight": s, "fit_intercept": fit_intercept}
    return np.sqrt(np.sum(away * reference.hvp(X, at, away, **how)))


def bits(un):
    data = un._fitted.engine.data
    model = un.model
    return [
        *(np.asarray(part).tobytes() for part in (model.coef_, model.intercept_, model.classes_)),
        *bits_of(data.X),
        data.register.live().tobytes(),
        *(part.tobytes() for part in data.register.base),
        data.kept.tobytes(),
    ]


def requests_for(X, y):
    new = X[:4] + 0.5
    return {
        "remove": [ex.RemoveRows([50, 51, 60])],
        "relabel": [ex.CorrectLabels([1, 8, 40], y[[2, 9, 41]])],
        "relabel one": [ex.CorrectLabels(9, y[10].item())],
        "values": [ex.CorrectValues([5, 6], [1], 2.0)],
        "add": [ex.AddRows(new, y[:4], [0.5, 2.0, 1.0, 1.25])],
        "revoke": [ex.RevokeFeatures([2])],
        "mixed": [
            ex.RemoveRows([50, 60]),
            ex.CorrectLabels([1, 8], y[[2, 9]]),
            ex.CorrectValues([5], [1, 3], [[0.0, 1.0]]),
            ex.AddRows(new, y[:4]),
            ex.RevokeFeatures([2, 4]),
        ],
    }


@each_K
@each_storage
@each_intercept
def test_every_request_leaves_what_scikit_learn_fits_to_the_corrected_data(K, represent, fit_intercept):
    X, y, s = make_data(K, weighted=fit_intercept)
    held = represent(X)
    for requests in requests_for(X, y).values():
        un = ex.Unlearner(ours(held, y, s, fit_intercept), held, y, s)
        with nothing_densifies():
            update = un.apply(requests, method="exact")
        assert update.distance <= 1e-6
        assert_refitted(un, fit_intercept)
        un.apply(requests[:0])
        auto = ex.Unlearner(ours(held, y, s, fit_intercept), held, y, s)
        update = auto.apply(requests)
        assert true_distance(auto, fit_intercept) <= update.distance <= auto.within
        retrained = auto.retrain()
        step = np.abs(auto.model.coef_ - retrained.coef_)
        errors = auto.standard_errors()
        assert (step <= auto.within * errors[:, : step.shape[1]]).all()


@each_K
@each_intercept
@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_solvers_agree_and_closed_forms_go_most_of_the_way(K, fit_intercept, solver):
    X, y, s = make_data(K, True)
    model = ours(X, y, s, fit_intercept, solver=solver)
    un = ex.Unlearner(model, X, y, s, within=1e-7)
    for request in requests_for(X, y)["mixed"]:
        un.apply(request)
    assert_refitted(un, fit_intercept)
    un = ex.Unlearner(ours(X, y, s, fit_intercept, solver=solver), X, y, s)
    before = np.concatenate([un.model.coef_.ravel(), un.model.intercept_])
    un.apply(ex.RemoveRows([3 * K, 3 * K + 1]), method="second_order")
    after = np.concatenate([un.model.coef_.ravel(), un.model.intercept_])
    exact = theirs(*un.corrected_data(), fit_intercept)
    minimum = np.concatenate([exact.coef_.ravel(), exact.intercept_])
    assert np.linalg.norm(after - minimum) < 0.1 * np.linalg.norm(before - minimum)
    residual = un.residual()
    un.apply(ex.RemoveRows([3 * K + 2]), method="first_order")
    assert un.residual() < residual + 10.0
    value = un.residual()
    un.apply([], method="first_order")
    assert un.residual() < value


@each_K
def test_a_stream_of_requests_is_granted_by_bounds(K):
    X, y, _ = make_data(K, n=2000)
    un = ex.Unlearner(ours(X, y), X, y)
    requests = [ex.RemoveRows(3 * K + i) for i in range(10)] + [ex.CorrectLabels(100, y[101].item())]
    updates = un.apply_each(requests, thetas=True)
    assert (updates.distance <= un.within).all()
    assert updates.passes[0] == 0
    assert true_distance(un, True) <= updates.distance[-1]
    assert updates.thetas[0].shape == (K * (X.shape[1] + 1),)
    assert json.loads(updates.receipt(0))["model"]["n_features"] == X.shape[1]


@each_intercept
def test_columns_far_from_0_cost_no_digit(fit_intercept):
    X, y, _ = make_data(3)
    far, _, _ = make_data(3, far=2.0**27)
    near, moved = (ex.Unlearner(ours(A, y), A, y) for A in (X, far))
    for un in (near, moved):
        un.apply([ex.RemoveRows([20, 30]), ex.CorrectLabels(40, y[41])], method="exact")
    assert_allclose(moved.model.coef_, near.model.coef_, atol=1e-8)
    assert abs(moved.model.intercept_.sum()) <= 1e-6 * abs(moved.model.intercept_).max()
    assert_allclose(moved.standard_errors()[:, :-1], near.standard_errors()[:, :-1], rtol=1e-6)


@each_K
@each_intercept
def test_standard_errors_are_those_of_the_hessian_where_intercepts_add_up_to_0(K, fit_intercept):
    X, y, s = make_data(K, True)
    un = ex.Unlearner(ours(X, y, s, fit_intercept), X, y, s)
    theta = np.column_stack([un.model.coef_, un.model.intercept_])[:, : X.shape[1] + fit_intercept]
    H = reference.hessian(X, theta, alpha=1.0 / C, sample_weight=s, fit_intercept=fit_intercept)
    expected = np.sqrt(np.diag(np.linalg.pinv(H, rcond=1e-12))).reshape(theta.shape)
    assert_allclose(un.standard_errors(), expected, rtol=1e-6)
    assert_allclose(un.standard_errors([1, 3]), expected[:, [1, 3]], rtol=1e-6)
    by_products = ex.Unlearner(ours(X, y, s, fit_intercept, solver="cg"), X, y, s)
    assert_allclose(by_products.standard_errors([1, 3]), expected[:, [1, 3]], rtol=1e-5)


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg", "newton-cholesky", "sag", "saga"])
def test_models_of_scikit_learn_are_adopted_and_stay_theirs(solver):
    X, y, s = make_data(3, True)
    model = linear_model.LogisticRegression(C=C, solver=solver, max_iter=10_000, random_state=0)
    model.fit(X, y, s)
    model.intercept_ = model.intercept_ + 1.0  # a constant for all classes changes nothing
    un = ex.Unlearner(model, X, y, s)
    assert un.model is model
    assert abs(model.intercept_.sum()) < 1e-12
    un.apply([ex.RemoveRows([20]), ex.RevokeFeatures([0])], method="exact")
    assert model.coef_.shape == (3, 4)
    assert model.predict(X[:, 1:]).shape == y.shape
    assert_refitted(un, True)
    un.apply(ex.RevokeClass("fir"), method="exact")
    assert model.coef_.shape == (1, 4)
    assert model.intercept_.shape == (1,)
    assert set(model.predict(X[:, 1:])) == {"ash", "oak"}
    assert_refitted(un, True)


@pytest.mark.parametrize("seed", range(40))
def test_the_proven_distance_is_never_below_the_true_one(seed):  # E41, E30
    rng = np.random.default_rng(seed)
    K, d, fit_intercept = int(rng.integers(3, 7)), int(rng.integers(1, 7)), bool(rng.integers(2))
    n = int(rng.integers(50, 300))
    X = rng.standard_normal((n, d)) * 10.0 ** rng.uniform(-1, 1, d) + rng.uniform(-2, 2, d)
    y = (X @ rng.standard_normal((d, K)) + rng.gumbel(size=(n, K))).argmax(axis=1)
    y[: 2 * K] = np.tile(np.arange(K), 2)
    s = rng.integers(1, 9, n) / 4.0
    held = csr(X) if rng.integers(2) else X
    un = ex.Unlearner(ours(held, y, s, fit_intercept), held, y, s, within=float(10.0 ** rng.uniform(-2, 0)))
    edits = rng.choice(np.arange(2 * K, n), 8, replace=False)
    un.apply(ex.RemoveRows(edits[:2]))
    un.apply(ex.CorrectLabels(edits[2:5], rng.integers(0, K, 3)))
    update = un.apply(ex.CorrectValues(edits[5:7], [0], 2.0))
    assert true_distance(un, fit_intercept) <= update.distance + 1e-9
    updates = un.apply_each([ex.RemoveRows(int(edits[7])), ex.RemoveRows(int(edits[2]))])
    assert true_distance(un, fit_intercept) <= updates.distance[-1] + 1e-9
    assert un.residual() <= updates.residual_bound[-1] * (1.0 + 1e-9) + 1e-12


# --- a class leaves


@each_K
@each_storage
@each_intercept
@each_weighting
def test_a_class_that_leaves_leaves_the_model_of_the_others(K, represent, fit_intercept, weighted):
    X, y, s = make_data(K, weighted)
    held = represent(X)
    un = ex.Unlearner(ours(held, y, s, fit_intercept), held, y, s)
    un.apply(requests_for(X, y)["mixed"])
    label = LABELS[K][1]
    rows = int((un.corrected_data()[1] == label).sum())
    update = un.apply(ex.RevokeClass(label), method="exact")
    assert update.rows_touched == rows
    assert update.settled
    assert update.distance <= 1e-6
    assert label not in un.model.classes_
    assert un.model.classes_.size == K - 1
    assert_refitted(un, fit_intercept)
    y_now = un.corrected_data()[1]
    un.apply([ex.RemoveRows([30], missing="ignore"), ex.AddRows(un.corrected_data()[0][:3], y_now[:3])])
    un.apply([], method="exact")
    assert_refitted(un, fit_intercept)


@each_intercept
def test_auto_keeps_its_promise_when_a_class_leaves_and_serves_what_follows(fit_intercept):
    X, y, _ = make_data(10, n=2000)
    un = ex.Unlearner(ours(X, y, None, fit_intercept), X, y)
    update = un.apply(ex.RevokeClass(3))
    assert true_distance(un, fit_intercept) <= update.distance <= un.within
    assert un.apply(ex.RemoveRows([100], missing="ignore")).passes == 0  # statistics are there at once


@each_intercept
def test_three_classes_become_the_binary_model(fit_intercept):
    X, y, s = make_data(3, True)
    model = ours(X, y, s, fit_intercept)
    un = ex.Unlearner(model, X, y, s)
    un.apply(ex.RevokeClass("ash"), method="exact")
    assert model.coef_.shape == (1, X.shape[1])
    assert model.intercept_.shape == (1,)
    rows = y != "ash"
    assert_allclose(model.coef_, ours(X[rows], y[rows], s[rows], fit_intercept).coef_, atol=1e-7)
    assert model.predict_proba(X).shape == (X.shape[0], 2)
    with pytest.raises(ValueError, match=r"the classes \['fir', 'oak'\] alone"):
        un.apply(ex.RevokeClass("fir"))
    assert_refitted(un, fit_intercept)
    un.apply(ex.CorrectLabels(np.flatnonzero(rows)[:2], "oak"))


def test_methods_of_a_class_that_leaves():
    X, y, _ = make_data(3)
    for method in ("second_order", "first_order"):
        un = ex.Unlearner(ours(X, y), X, y)
        fir, ash = (np.append(un.model.coef_[k], un.model.intercept_[k]) for k in (1, 0))
        update = un.apply(ex.RevokeClass("oak"), method=method)
        assert update.method == method
        rows = y != "oak"
        start = binary.gradient(X[rows], y[rows] == "fir", fir - ash, alpha=1.0 / C, fit_intercept=True)
        assert_allclose(update.gradient_difference, start, atol=1e-8)
        assert un.model.classes_.size == 2
        assert un.residual() < np.linalg.norm(update.gradient_difference)
    with pytest.raises(ValueError, match="RevokeClass takes hessian='corrected'"):
        ex.Unlearner(ours(X, y), X, y).apply(ex.RevokeClass("oak"), method="second_order", hessian="original")


@each_intercept
def test_weights_of_classes_go_with_their_class(fit_intercept):
    X, y, s = make_data(3, True)
    weights = {"ash": 2.0, "fir": 0.5, "oak": 1.5}
    un = ex.Unlearner(ours(X, y, s, fit_intercept, class_weight=weights), X, y, s)
    un.apply([ex.CorrectLabels([20, 21], ["ash", "oak"]), ex.RemoveRows(30)], method="exact")
    assert_refitted(un, fit_intercept, weights)
    un.apply(ex.RevokeClass("fir"), method="exact")
    assert un.model.class_weight == {"ash": 2.0, "oak": 1.5}
    assert weights["fir"] == 0.5
    assert_refitted(un, fit_intercept, un.model.class_weight)
    un.apply(ex.CorrectLabels([20], "oak"), method="exact")
    assert_refitted(un, fit_intercept, un.model.class_weight)


def test_people_of_a_class_that_left_are_forgotten():
    X, y, _ = make_data(3)
    ids = [f"{label} {i % 7}" for i, label in enumerate(y)]
    un = ex.Unlearner(ours(X, y), X, y, ids=ids)
    un.apply(ex.RevokeClass("fir"))
    held = un._fitted.engine.data.row_names.ids
    assert all((held[row] is NOBODY) == (label == "fir") for row, label in enumerate(y))
    assert un.is_forgotten("fir 1")
    assert not un.is_forgotten("oak 1")
    with pytest.raises(ex.AlreadyForgotten):
        un.apply(ex.RemoveRows(ids=["fir 1"]))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (lambda y: ex.RevokeClass("elm"), "'elm' is not one of the classes"),
        (lambda y: [ex.RevokeClass("ash"), ex.RemoveRows(40)], "apply it by itself"),
        (lambda y: ex.AddRows(np.ones((1, 5)), ["elm"]), "'elm' is not one of the classes"),
        (lambda y: ex.CorrectLabels(3, "elm"), "'elm' is not one of the classes"),
        (lambda y: ex.RemoveRows(np.flatnonzero(y == "fir")), "one of the 3 classes: RevokeClass takes"),
        (lambda y: ex.CorrectLabels(np.flatnonzero(y == "fir"), "oak"), "RevokeClass takes a class out"),
    ],
)
def test_what_cannot_be_granted_leaves_all_as_it_was(request_, message):
    X, y, _ = make_data(3)
    un = ex.Unlearner(ours(X, y), X, y)
    before = bits(un)
    with pytest.raises(ValueError, match=message):
        un.apply(request_(y))
    assert bits(un) == before
    assert_refitted(un, True)


def test_a_class_that_cannot_leave_because_iterations_fail_leaves_all_as_it_was(monkeypatch):
    X, y, _ = make_data(3)
    un = ex.Unlearner(ours(X, y), X, y, ids=list(y))
    before, engine = bits(un), un._fitted.engine
    with monkeypatch.context() as patch:
        patch.setattr("expunge.engine.fitted.fitted_attributes", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            un.apply(ex.RevokeClass("oak"))
    assert bits(un) == before
    assert un._fitted.engine is engine
    assert not un.is_forgotten("oak")
    un.apply(ex.RevokeClass("oak"))
    assert un.is_forgotten("oak")


# --- files, sums, receipts, releases


@each_K
@each_intercept
@each_storage
def test_files_with_rows_go_on_where_they_were(K, fit_intercept, represent, tmp_path):
    X, y, s = make_data(K, True, far=2.0**20 if fit_intercept else 0.0)
    held = represent(X)
    un = ex.Unlearner(ours(held, y, s, fit_intercept), held, y, s)
    un.apply([ex.RemoveRows([40, 41]), ex.RevokeFeatures([1])])
    un.apply(ex.RevokeClass(LABELS[K][0]))
    un.save(tmp_path / "file", include_rows=True)
    loaded = ex.Unlearner.load(tmp_path / "file")
    assert_array_equal(loaded.model.coef_, un.model.coef_)
    assert_array_equal(loaded.model.intercept_, un.model.intercept_)
    for each in (un, loaded):
        each.apply(ex.CorrectLabels(45, un.model.classes_[0].item(), missing="ignore"), method="exact")
    assert_allclose(loaded.model.coef_, un.model.coef_, atol=1e-9)


@each_K
@each_intercept
def test_sums_alone_take_rows_by_value(K, fit_intercept, tmp_path):
    X, y, _ = make_data(K, n=4000)
    un = ex.Unlearner(ours(X, y, None, fit_intercept), X, y)
    un = ex.Unlearner(un.model, X, y, within=0.5)
    un.save(tmp_path / "file")
    left, joined = (X[:5], y[:5]), (X[7:9] + 0.25, y[7:9])
    for sums in (ex.Unlearner.load(tmp_path / "file"), un.detach()):
        edits = [ex.Edit(before=left, after=joined), ex.Edit((X[9:10], [y[9]]), (X[9:10], [y[10]]))]
        # of ten classes in these few rows nothing is proven without them
        update = sums.apply(edits, method="auto" if K == 3 else "second_order")
        retrained = ours(
            np.concatenate([X[5:9], X[9:], joined[0]]),
            np.concatenate([y[5:9], y[10:11], y[10:], joined[1]]),
            None,
            fit_intercept,
        )
        assert K > 3 or update.distance <= sums.within
        assert_allclose(sums.model.coef_, retrained.coef_, atol=1e-2)
        with pytest.raises(ex.RowsRequired, match="attach the current rows first"):
            sums.apply(ex.RevokeClass(LABELS[K][0]))
        with pytest.raises(
            ValueError, match=f"more rows would leave than there are of one of the {K} classes"
        ):
            sums.apply(ex.Edit(before=(np.repeat(X[:1], 4000, axis=0), np.repeat(y[:1], 4000))))
    now = np.concatenate([X[5:], joined[0]]), np.concatenate([y[5:9], y[10:11], y[10:], joined[1]])
    un.attach(*now).apply([], method="exact")
    assert_refitted(un, fit_intercept)


def test_receipts_name_the_classes_before_and_after():
    X, y, _ = make_data(3)
    key = b"0123456789abcdef"
    model = ours(X, y)
    un = ex.Unlearner(model, X, y)
    before = ex.receipts.state_hash(model, key)
    receipt = un.apply(ex.RevokeClass("ash")).receipt(key)
    content = ex.receipts.verify(receipt, key)
    assert content["state"] == {"before": before, "after": ex.receipts.state_hash(model, key)}
    assert content["model"]["classes"] == 2
    assert content["model"]["n_features"] == X.shape[1]
    assert content["requests"][0]["kind"] == "RevokeClass"
    assert "ash" not in receipt
    assert ex.receipts.find(receipt, key, row=int(np.flatnonzero(y == "ash")[0]))
    assert not ex.receipts.find(receipt, key, row=int(np.flatnonzero(y == "fir")[0]))


@each_K
@each_intercept
@pytest.mark.parametrize("mechanism", ["output", "rounding"])
def test_releases_are_within_the_public_tolerance(K, fit_intercept, mechanism):  # E31
    X, y, s = make_data(K, True)
    un = ex.Unlearner(ours(X, y, s, fit_intercept), X, y, s)
    un.apply(ex.RemoveRows([40]))
    released = un.release(1.0, 1e-5, mechanism=mechanism, random_state=0)
    assert released.coef_.shape == un.model.coef_.shape
    assert released.certificate_.residual_bound <= released.certificate_.tolerance
    assert_allclose(released.coef_, un.retrain().coef_, atol=0.05)
    engine = un._fitted.engine
    if fit_intercept:
        best = best_intercept(engine.data.panels(), released.coef_, engine.problem.row_loss)
        assert_array_equal(released.intercept_, best)
        theta = np.column_stack([released.coef_, best])
        data = un.corrected_data()
        g = reference.gradient(
            data[0],
            np.searchsorted(LABELS[K], data[1]),
            theta,
            alpha=1.0 / C,
            sample_weight=data[2],
            fit_intercept=True,
        )
        assert np.abs(g[:, -1]).max() <= 1e-11
    with pytest.raises(ex.CertificateError, match="needs a model that was trained with noise"):
        un.release(0.5, 1e-5, mechanism="objective")


@each_K
@each_intercept
def test_a_measured_profile_residual_is_that_of_the_twin(K, fit_intercept):  # E31, E32
    X, y, s = make_data(K, True)
    un = ex.Unlearner(ours(X, y, s, fit_intercept), X, y, s)
    engine = un._fitted.engine
    theta = engine.state.theta + np.random.default_rng(1).standard_normal(engine.state.theta.size)
    found = measure(engine.data.panels(), theta, engine.problem, engine.data.kept)
    g = reference.gradient(
        X,
        np.searchsorted(LABELS[K], y),
        theta.reshape(K, -1),
        alpha=1.0 / C,
        sample_weight=s,
        fit_intercept=fit_intercept,
    )
    R = np.linalg.norm(X, axis=1).max()
    expected = reference.profile_bound(g, R) if fit_intercept else np.linalg.norm(g)
    assert_allclose(found.residual, expected, rtol=1e-12)
    assert 0.0 < found.floor < 1e-9 * expected


def test_intercepts_are_found_at_margins_that_leave_no_curvature():
    rng = np.random.default_rng(0)
    X, y = 800.0 * rng.standard_normal((60, 2)), rng.integers(0, 4, 60).astype(float)
    y[:4] = np.arange(4)
    coef = rng.standard_normal((4, 2))
    best = best_intercept([(X, y, np.ones(60))], coef, None)
    g = reference.gradient(X, y, np.column_stack([coef, best]), alpha=1.0, fit_intercept=True)
    assert np.abs(g[:, -1]).sum() <= 1e-9
    assert abs(best.sum()) <= 1e-9 * np.abs(best).max()


def test_an_unlearner_leaves_a_copy_of_the_model_alone():
    X, y, _ = make_data(3)
    model = ours(X, y)
    kept = copy.copy(model)
    ex.Unlearner(model, X, y).apply(ex.RevokeClass("ash"))
    assert kept.classes_.size == 3
    assert kept.predict_proba(X).shape == (X.shape[0], 3)
