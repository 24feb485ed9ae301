"""Class weights: a request leaves what scikit-learn would fit with the same dict to the corrected data."""

import json
import pickle
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from problems import csr
from sklearn import linear_model
from strategies import CASES
from unlearning import Data, by_value, inside, represented, represented_by_value

import expunge as ex
from expunge import baselines
from expunge.audit import audit_certificate

C = 0.5
WEIGHTS = {"no": 3.0, "yes": 0.7}
N, D = 150, 5

each_storage = pytest.mark.parametrize("represent", [np.array, csr], ids=["dense", "csr"])
each_intercept = pytest.mark.parametrize("fit_intercept", [False, True], ids=["plain", "intercept"])
each_weighting = pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])


def make_data(weighted=False, n=N, seed=0):
    rng = np.random.default_rng(seed)
    X = np.where(rng.uniform(size=(n, D)) < 0.6, rng.standard_normal((n, D)), 0.0)
    y = np.where(X[:, 0] - X[:, 1] + rng.standard_normal(n) > 0.5, "yes", "no")
    s = rng.integers(0, 9, n) / 4.0 if weighted else np.ones(n)
    return Data(X, y, s, np.ones(n, dtype=bool), np.ones(D, dtype=bool), weighted)


def flipped(y):
    return np.where(y == "no", "yes", "no")


def requests_for(data, weighted=False):
    """One of each kind, and all of them in one; weights of added rows where `weighted`."""
    X, y = data.X, data.y
    new = X[:4] + 0.5
    s = [0.5, 2.0, 0.0, 1.25] if weighted else None
    rows = np.array([1, 8, 40, 41])
    kinds = {
        "remove": [ex.RemoveRows([3, 50, 51])],
        "relabel": [ex.CorrectLabels(rows, flipped(y[rows]))],
        "relabel all alike": [ex.CorrectLabels(np.arange(20, 60), "yes")],
        "relabel one": [ex.CorrectLabels(9, str(flipped(y[9])))],
        "values": [ex.CorrectValues([5, 6], [1], 2.0)],
        "add": [ex.AddRows(new, np.array(["no", "yes", "no", "yes"]), s)],
        "revoke": [ex.RevokeFeatures([2])],
    }
    there_and_back = [ex.CorrectLabels([12], flipped(y[12:13])), ex.CorrectLabels([12], y[12:13])]
    of_new = [ex.CorrectLabels([N, N + 3], np.array(["yes", "no"]))]
    moved = [ex.CorrectLabels([5, 60], flipped(y[[5, 60]]))]
    order = ("remove", "relabel", "values", "add", "revoke")
    kinds["mixed"] = [r for name in order for r in kinds[name]] + there_and_back + of_new + moved
    return kinds


def theirs(fit_intercept=True, **parameters):
    parameters = {"class_weight": WEIGHTS, "tol": 1e-13, "max_iter": 10_000} | parameters
    return linear_model.LogisticRegression(C=C, fit_intercept=fit_intercept, **parameters)


def ours(fit_intercept=True, **parameters):
    parameters = {"class_weight": WEIGHTS, "tol": 1e-11} | parameters
    return ex.LogisticRegression(1.0 / C, fit_intercept=fit_intercept, **parameters)


def fitted(model, *rows):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of solvers that rounding ends
        return model.fit(*rows)


def unlearner(data, represent=np.array, fit_intercept=True, make=ours, **options):
    X, y, s = data.rows
    X = represent(X)
    return ex.Unlearner(fitted(make(fit_intercept), X, y, s), X, y, s, **options)


def assert_refit(model, data, fit_intercept=True):
    """It is what scikit-learn fits to these data with the same dict, as near as the residual says."""
    refit = fitted(theirs(fit_intercept, solver="newton-cholesky"), *data.rows)
    left = ex.residual(model, *data.rows) * C  # least eigenvalue 1 / C
    assert left <= 1e-8 * C
    assert_allclose(np.ravel(model.coef_), np.ravel(refit.coef_), rtol=1e-10, atol=1e-10 + left)
    assert_allclose(np.ravel(model.intercept_), np.ravel(refit.intercept_), rtol=1e-10, atol=1e-10 + left)


def assert_own_rows(un, data):
    """The data come back with the weights of their own, not with what they count."""
    X, y, s = un.corrected_data()
    expected_X, expected_y, expected_s = data.rows
    assert_array_equal(X.toarray() if hasattr(X, "toarray") else X, expected_X)
    assert_array_equal(y, expected_y)
    assert (s is None) == (expected_s is None)
    if s is not None:
        assert_array_equal(s, expected_s)


# The estimator


@each_weighting
@each_intercept
@each_storage
def test_a_fit_is_that_of_scikit_learn(represent, fit_intercept, weighted):
    data = make_data(weighted)
    X, y, s = data.rows
    assert_refit(ours(fit_intercept).fit(represent(X), y, s), data, fit_intercept)


@pytest.mark.parametrize(
    ("labels", "class_weight", "same"),
    [
        ([0, 1], {1: 2.5}, {0: 1.0, 1: 2.5}),
        ([False, True], {False: 2, True: 0.5}, {False: 2.0, True: 0.5}),
        ([-1.0, 1.0], {-1: 2}, {-1.0: 2.0, 1.0: 1.0}),
        (["a", "b"], {}, None),
    ],
)
def test_labels_of_any_type_and_missing_ones_count_1(labels, class_weight, same):
    X, y, _ = make_data().rows
    y = np.where(y == "yes", labels[1], labels[0])
    fit = ours(class_weight=class_weight).fit(X, y)
    refit = fitted(theirs(class_weight=class_weight, solver="newton-cholesky"), X, y)
    assert_allclose(fit.coef_, refit.coef_, rtol=1e-10, atol=1e-10)
    assert_array_equal(fit.coef_, ours(class_weight=same).fit(X, y).coef_)


def test_a_model_without_class_weights_is_bit_for_bit_that_with_none():
    X, y, _ = make_data().rows
    models = [ours(class_weight=weights).fit(X, y) for weights in (None, {}, {"no": 1.0, "yes": 1})]
    for model in models[1:]:
        assert_array_equal(model.coef_, models[0].coef_)
        assert_array_equal(model.intercept_, models[0].intercept_)


refused = pytest.mark.parametrize(
    ("class_weight", "error", "message"),
    [
        ({"no": 1.0, "maybe": 2.0}, ValueError, "are not in class_weight"),
        ({"no": 0.0}, ValueError, r"class_weight\['no'\] must be a finite number > 0, got 0.0: leave rows"),
        ({"no": -1.0}, ValueError, r"class_weight\['no'\] must be a finite number > 0"),
        ({"yes": np.inf}, ValueError, r"class_weight\['yes'\] must be a finite number > 0"),
        ({"yes": np.nan}, ValueError, r"class_weight\['yes'\] must be a finite number > 0"),
        ({"yes": "2"}, ValueError, r"class_weight\['yes'\] must be a finite number > 0"),
        ("equal", TypeError, "class_weight must be None, 'balanced' or a dict"),
        ([1.0, 2.0], TypeError, "class_weight must be None, 'balanced' or a dict"),
    ],
)


@refused
def test_bad_class_weights_are_refused_by_fits_and_unlearners(class_weight, error, message):
    X, y, _ = make_data().rows
    model = ours(class_weight=class_weight)
    with pytest.raises(error, match=message):
        model.fit(X, y)
    assert not hasattr(model, "coef_")
    adopted = theirs(class_weight=None).fit(X, y).set_params(class_weight=class_weight)
    with pytest.raises(error, match=message):
        ex.Unlearner(adopted, X, y)


def test_weights_that_overflow_together_are_refused():
    X, y, _ = make_data().rows
    with pytest.raises(ValueError, match="sample_weight times class_weight overflows"):
        ours(class_weight={"no": 1e200}).fit(X, y, np.full(N, 1e200))
    un = unlearner(make_data())
    before = pickle.dumps(un.model)
    with pytest.raises(ValueError, match="sample_weight times class_weight overflows"):
        un.apply(ex.AddRows(X[:1], ["no"], [1e308]))
    assert pickle.dumps(un.model) == before


# Requests


@each_weighting
@each_intercept
@each_storage
@pytest.mark.parametrize("kind", requests_for(make_data()))
def test_every_request_leaves_what_scikit_learn_refits(kind, represent, fit_intercept, weighted):
    data = make_data(weighted)
    requests = requests_for(data, weighted)[kind]
    un = unlearner(data, represent, fit_intercept)
    data = data.after(*requests)
    update = un.apply(represented(requests, represent))
    assert update.distance <= un.within
    un.apply([], method="exact")
    assert_refit(un.model, data, fit_intercept)
    assert ex.distance(un.retrain(), *data.rows) <= 1e-6
    assert_own_rows(un, data)
    assert un.residual() == pytest.approx(ex.residual(un.model, *un.corrected_data()), abs=1e-10)
    assert ex.distance(un.model, *un.corrected_data()) < 1e-6


@pytest.mark.parametrize("method", ["exact", "second_order", "first_order"])
def test_every_method_is_of_the_weighted_data(method):
    data = make_data(weighted=True)
    requests = requests_for(data, True)["mixed"]
    un = unlearner(data)
    un.apply(requests, method=method)
    un.apply([], method="exact")
    assert_refit(un.model, data.after(*requests))


def test_weights_given_first_by_added_rows_are_kept():
    data = make_data()
    requests = requests_for(data, True)["mixed"]
    un = unlearner(data)
    un.apply(requests)
    un.apply([], method="exact")
    data = data.after(*requests)
    assert data.weighted
    assert_own_rows(un, data)
    more = [ex.CorrectLabels([N + 1, 4], flipped(data.y[[N + 1, 4]]))]
    un.apply(more)
    un.apply([], method="exact")
    assert_refit(un.model, data.after(*more))


@each_weighting
@each_storage
def test_streams_change_weights_with_labels(represent, weighted):
    """In one native call: no request needs a pass, and what is promised holds of the weighted data."""
    data = make_data(weighted, n=3000)
    un = unlearner(data, represent, within=0.5)
    requests = []
    for k in range(6):
        rows = np.array([10 * k, 10 * k + 1])
        requests += [ex.CorrectLabels(rows, flipped(data.y[rows])), ex.RemoveRows([10 * k + 5])]
        requests += [ex.CorrectLabels(10 * k + 2, str(flipped(data.y[10 * k + 2])))]
    updates = un.apply_each(requests)
    data = data.after(*requests)
    assert updates.passes.sum() == 0
    assert (updates.distance <= un.within).all()
    assert un.residual() <= updates.residual_bound[-1] * (1.0 + 1e-9)
    assert un.distance() <= un.within
    assert_own_rows(un, data)
    un.apply([], method="exact")
    assert_refit(un.model, data)
    alone = unlearner(make_data(weighted, n=3000), represent)
    for request in requests:
        alone.apply(request)
    alone.apply([], method="exact")
    assert_refit(alone.model, data)


@each_weighting
def test_a_refused_request_leaves_weights_as_they_were(weighted):
    data = make_data(weighted)
    un = unlearner(data)
    before = pickle.dumps(un.model)
    requests = requests_for(data, True)["mixed"]
    for last in (ex.RemoveRows([3]), ex.CorrectLabels([0], "maybe"), ex.RevokeFeatures([2])):
        with pytest.raises(ValueError):  # row 3 has left, "maybe" is no class, column 2 was revoked
            un.apply([*requests, last])
        assert pickle.dumps(un.model) == before
        assert_own_rows(un, data)
    with pytest.raises(ex.StreamStopped):
        un.apply_each([ex.CorrectLabels([0], flipped(data.y[:1])), ex.CorrectLabels([1], "maybe")])
    granted = [
        ex.CorrectLabels([0], flipped(data.y[:1])),
        ex.AddRows(data.X[:2], np.array(["no", "yes"]), [3.0, 0.25]),
        ex.CorrectLabels([N, 5], "yes"),
    ]
    un.apply(granted[1:])
    un.apply([], method="exact")
    data = data.after(*granted)
    assert_own_rows(un, data)
    assert_refit(un.model, data)


@pytest.mark.parametrize("make", [ours, theirs])
def test_a_change_of_the_parameter_is_noticed(make):
    un = unlearner(make_data(), make=lambda _: make(class_weight=dict(WEIGHTS)))
    un.model.class_weight["no"] = 17.0  # in place
    with pytest.raises(ValueError, match=r"class_weight from \{'no': 3.0.*\} to \{'no': 17.0.* was changed"):
        un.apply(ex.RemoveRows([1]))
    un.model.set_params(class_weight={"no": 1.0})
    with pytest.raises(ValueError, match=r"class_weight from \{.*\} to \{'no': 1.0\} was changed"):
        un.apply(ex.RemoveRows([0]))
    un.model.set_params(class_weight=dict(WEIGHTS))
    un.apply(ex.RemoveRows([0]))


# Models of scikit-learn


@each_weighting
@each_storage
@pytest.mark.parametrize("solver", ["lbfgs", "newton-cholesky", "liblinear"])
def test_models_of_scikit_learn_are_adopted(solver, represent, weighted):
    data = make_data(weighted)
    requests = requests_for(data, weighted)["mixed"]
    fit_intercept = solver != "liblinear"
    un = unlearner(data, represent, fit_intercept, lambda fit_intercept: theirs(fit_intercept, solver=solver))
    assert un.distance_on_entry < 0.1
    un.apply(represented(requests, represent))
    un.apply([], method="exact")
    assert_refit(un.model, data.after(*requests), fit_intercept)


@pytest.mark.filterwarnings("ignore")
def test_the_choice_of_cross_validation_is_adopted():
    data = make_data(weighted=True)
    X, y, s = data.rows
    model = linear_model.LogisticRegressionCV(
        Cs=[C], cv=3, class_weight=WEIGHTS, tol=1e-10, max_iter=10_000
    ).fit(X, y, sample_weight=s)
    un = ex.Unlearner(model, X, y, s)
    requests = requests_for(data, True)["mixed"]
    un.apply(requests)
    un.apply([], method="exact")
    assert_refit(model, data.after(*requests))


def test_other_class_weights_than_those_of_the_fit_are_found_out():
    X, y, _ = make_data().rows
    model = ours().fit(X, y).set_params(class_weight={"no": 1.0})
    with pytest.raises(ex.NotFittedToThisData):
        ex.Unlearner(model, X, y)


# Without the rows, files, receipts


@each_weighting
@each_storage
def test_detached_rows_leave_and_come_with_the_weights_of_their_classes(represent, weighted):
    data = make_data(weighted, n=2000)
    rows = np.array([4, 9, 44])
    requests = [
        ex.RemoveRows([3, 50]),
        ex.CorrectLabels(rows, flipped(data.y[rows])),
        ex.CorrectValues([5], [1], 2.0),
        ex.AddRows(data.X[:2], np.array(["no", "yes"]), [0.5, 2.0] if weighted else None),
    ]
    un = unlearner(data, represent).detach()
    update = un.apply(represented_by_value(by_value(data, requests), represent), method="second_order")
    data = data.after(*requests).renumbered()
    X, y, s = data.rows
    assert ex.residual(un.model, X, y, s) <= update.residual_bound
    un.attach(represent(X), y, s)
    un.apply([], method="exact")
    assert_refit(un.model, data)
    wrong = unlearner(data, represent).detach()
    with pytest.raises(ValueError, match=r"the gradient of these rows|rows of positive weight by class"):
        wrong.attach(represent(X), flipped(y), s)


@each_weighting
@each_storage
@pytest.mark.parametrize("include_rows", [False, True])
def test_files_keep_them(represent, weighted, include_rows, tmp_path):
    data = make_data(weighted, n=1000)
    un = unlearner(data, represent)
    requests = requests_for(make_data(weighted), weighted)
    first = [ex.CorrectLabels([2, 6], flipped(data.y[[2, 6]])), *requests["remove"]]
    un.apply(first)
    data = data.after(*first)
    un.save(tmp_path / "file", include_rows=include_rows)
    loaded = ex.Unlearner.load(tmp_path / "file")
    assert loaded.model.class_weight == WEIGHTS
    assert_array_equal(loaded.model.coef_, un.model.coef_)
    more = [ex.CorrectLabels([11, 6], flipped(data.y[[11, 6]])), ex.RemoveRows([20])]
    if include_rows:
        assert_own_rows(loaded, data)
        loaded.apply(more)
        data = data.after(*more)
        assert_own_rows(loaded, data)
    else:
        loaded.apply(represented_by_value(by_value(data, more), represent), method="second_order")
        data = data.after(*more).renumbered()
        X, y, s = data.rows
        loaded.attach(represent(X), y, s)
    loaded.apply([], method="exact")
    assert_refit(loaded.model, data)
    again = ex.Unlearner.load(tmp_path / "file")
    again.save(tmp_path / "again", include_rows=include_rows)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "file").read_bytes()


def test_files_of_models_without_have_no_entry(tmp_path):
    X, y, _ = make_data().rows
    ex.Unlearner(ours(class_weight=None).fit(X, y), X, y).save(tmp_path / "file", include_rows=True)
    with np.load(tmp_path / "file") as entries:
        assert "class_weight" not in entries
    assert ex.Unlearner.load(tmp_path / "file").model.class_weight is None


def test_old_pickles_have_none():
    X, y, _ = make_data().rows
    model = ours(class_weight=None).fit(X, y)
    state = model.__getstate__()
    del state["class_weight"]
    old = ex.LogisticRegression.__new__(ex.LogisticRegression)
    old.__setstate__(state)
    assert old.get_params()["class_weight"] is None


def test_receipts_describe_them():
    data = make_data()
    un = unlearner(data)
    receipt = json.loads(un.apply(ex.RemoveRows([0])).receipt())
    assert receipt["model"]["class_weight"] == [3.0, 0.7]
    assert receipt["state"]["after"] == ex.receipts.state_hash(un.model)
    X, y, _ = data.rows
    without = ex.Unlearner(ours(class_weight=None).fit(X, y), X, y).apply(ex.RemoveRows([0]))
    assert "class_weight" not in json.loads(without.receipt())["model"]


# Releases, measures, other strategies


@each_weighting
def test_a_release_is_of_the_weighted_data(weighted):
    data = make_data(weighted)
    un = unlearner(data)
    requests = requests_for(data, weighted)["mixed"]
    un.apply(requests)
    released = un.release(1.0, 1e-5, random_state=0)
    retrained = un.retrain()
    assert ex.distance(retrained, *data.after(*requests).rows) <= 1e-6
    assert_allclose(released.coef_, retrained.coef_, atol=100.0 * released.certificate_.sigma)
    assert_allclose(released.intercept_, retrained.intercept_, atol=1000.0 * released.certificate_.sigma)
    assert released.class_weight == WEIGHTS


@each_weighting
def test_an_audit_honours_them(weighted):
    data = make_data(weighted, n=60)
    X, y, s = data.rows
    request = [ex.CorrectLabels([1, 2, 3], flipped(y[[1, 2, 3]])), ex.RemoveRows([9])]
    model = ours(tol=None)
    options = {"tolerance": 1e-6, "theta_bound": 10.0, "runs": 90, "random_state": 0}
    assert not audit_certificate(model, X, y, request, 1.0, 0.01, sample_weight=s, **options).falsified

    after = data.after(*request)
    kept = np.array([WEIGHTS[label] for label in y])[after.live] * after.s[after.live]
    wrong = ours(class_weight=None).fit(*after.rows[:2], kept)  # new labels at old weights
    promised = {"tolerance": 1e-6, "theta_bound": 10.0}

    def without(un, request):
        un.release = ex.Unlearner(wrong, *after.rows[:2], kept, **promised).release

    found = audit_certificate(model, X, y, request, 1.0, 0.01, sample_weight=s, unlearn=without, **options)
    assert found.falsified


@each_weighting
@pytest.mark.parametrize(
    "strategy",
    [
        baselines.Retraining,
        lambda *args: baselines.Retraining(*args, solver="lbfgs"),
        lambda *args: baselines.Sisa(*args, shards=1, within=1e-7),
    ],
    ids=["retraining", "retraining by scikit-learn", "sisa"],
)
def test_strategies_honour_them(strategy, weighted):
    data = make_data(weighted)
    X, y, s = data.rows
    other = strategy(ours().fit(X, y, s), X, y, s)
    requests = requests_for(data, weighted)["mixed"]
    other.apply(requests)
    assert_own_rows(other, data.after(*requests))
    un = unlearner(data.after(*requests).renumbered())
    away = np.ravel(other.model.coef_) - np.ravel(un.model.coef_)
    assert np.abs(away).max() < 0.01 * un.standard_errors().max()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_strategy_does_what_it_does_with_the_product_of_weights(case):
    data, weights = make_data(weighted=True), {"no": 0.25, "yes": 0.5}
    X, y, s = data.rows
    s = s / 2.0
    counted = s * np.where(y == "yes", 0.5, 0.25)
    fit_intercept = case.fit_intercept
    by_class = case.of(X, y, s, model=ours(fit_intercept, class_weight=weights).fit(X, y, s))
    product = case.of(X, y, counted, model=ours(fit_intercept, class_weight=None).fit(X, y, counted))
    for request in case.takes:
        if not isinstance(request, ex.CorrectLabels):
            by_class.apply(request)
            product.apply(request)
    assert_array_equal(by_class.model.coef_, product.model.coef_)
    assert_array_equal(by_class.model.intercept_, product.model.intercept_)


def test_private_training_hides_what_rows_count():
    data = make_data()
    X, y, _ = data.rows
    X = X / 10.0
    model = ours(fit_intercept=False, tol=None, class_weight={"no": 0.5}).fit(X, y)
    private = baselines.PrivateTraining(model, X, y, random_state=0)
    assert private.model.class_weight == {"no": 0.5, "yes": 1.0}
    private.apply([ex.RemoveRows([0]), ex.RemoveRows([1])])
    assert private.distance() < 1e-5
    with pytest.raises(ValueError, match="sample_weight is above 1, that of its class counted"):
        baselines.PrivateTraining(ours(fit_intercept=False).fit(X, y), X, y)


def test_weights_are_the_unlearners_own():
    data = make_data(weighted=True)
    X, y, s = data.rows
    given = s.copy()
    un = ex.Unlearner(ours().fit(X, y, given), X, y, given)
    given[:] = 17.0
    assert_own_rows(un, data)
    un.corrected_data()[2][:] = 17.0
    request = ex.CorrectLabels([1, 8], flipped(y[[1, 8]]))
    un.apply(request)
    un.apply([], method="exact")
    assert_refit(un.model, data.after(request))


def test_own_weights_are_kept_only_beside_class_weights():
    data = make_data(weighted=True)
    X, y, s = data.rows
    plain = ex.Unlearner(ours(class_weight=None).fit(X, y, s), X, y, s)
    plain.apply(ex.AddRows(X[:1], ["no"], [2.0]))
    assert inside(plain).data.own is None
