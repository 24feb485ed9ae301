"""One fitted state after another, and bad input, which leaves the state before."""

import copy
import pickle
import signal
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from estimators import ESTIMATORS, data, each_estimator, theta
from numpy.testing import assert_allclose, assert_array_equal
from problems import FAMILIES, drebin, in_pairs
from sklearn.exceptions import ConvergenceWarning, NotFittedError

import expunge as ex
from expunge import _core
from expunge.models.base import set_theta

# No fit stops short of its tolerance unless a test says so.
pytestmark = pytest.mark.filterwarnings("error::sklearn.exceptions.ConvergenceWarning")

with_and_without_intercept = pytest.mark.parametrize("fit_intercept", [False, True])


# One fitted state after another


FITTED = ("coef_", "intercept_", "n_iter_", "residual_", "n_features_in_", "feature_names_in_", "classes_")

each_copy = pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]
)


def fitted(model):
    """The fitted attributes that a model has."""
    return {name: getattr(model, name) for name in FITTED if hasattr(model, name)}


def answers_during(ask, changes):
    """What two threads were answered while this one made the changes, some of it after each one."""
    answers, done, interval = [], threading.Event(), sys.getswitchinterval()

    def ask_on():
        while not done.is_set():
            answers.append(ask())

    with ThreadPoolExecutor(2) as pool:
        askers = [pool.submit(ask_on) for _ in range(2)]
        sys.setswitchinterval(1e-5)  # let them be interrupted anywhere
        try:
            for change in changes:
                change()
                before = len(answers)
                # two may have been on the way, the third was asked for after the change
                while len(answers) < before + 3 and not any(asker.done() for asker in askers):
                    time.sleep(0)
        finally:
            sys.setswitchinterval(interval)
            done.set()
    for asker in askers:
        asker.result()
    return answers


def distinct(arrays):
    return {(array.shape, array.tobytes()) for array in arrays}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("Estimator", "fit_intercept", "method"),
    [
        (ex.Ridge, True, "predict"),
        (ex.LogisticRegression, False, "predict"),
        (ex.LogisticRegression, True, "decision_function"),
        (ex.LogisticRegression, True, "predict_proba"),
    ],
)
def test_threads_predict_with_the_theta_before_or_after_a_change(Estimator, fit_intercept, method):
    X, y, _ = data(Estimator)
    model = Estimator(fit_intercept=fit_intercept).fit(X, y)
    thetas = theta(model), 1.0 - theta(model)

    def change(to):
        set_theta(model, to, 0.0)

    expected = []
    for to in thetas:
        change(to)
        expected.append(getattr(model, method)(X))
    answers = answers_during(lambda: getattr(model, method)(X), 100 * [partial(change, to) for to in thetas])
    assert distinct(answers) == distinct(expected)


@pytest.mark.slow
@each_estimator
def test_threads_predict_with_the_columns_before_or_after_a_change(Estimator):
    pd = pytest.importorskip("pandas")
    X, y, _ = data(Estimator)
    X = pd.DataFrame(X, columns=list("abcd"))
    model = Estimator()
    models = [Estimator().fit(X[list(names)], y) for names in ("abcd", "ac", "bcd")]
    model.fit(X, y)

    def change(to):
        set_theta(model, theta(to), 0.0, names=list(to.feature_names_in_))

    answers = answers_during(lambda: model.predict(X), 40 * [partial(change, to) for to in models])
    assert distinct(answers) == distinct(to.predict(X) for to in models)


@each_estimator
def test_threads_predict_while_requests_are_applied(Estimator):
    pd = pytest.importorskip("pandas")
    X, y, _ = data(Estimator, d=8)
    X = pd.DataFrame(X, columns=list("abcdefgh"))
    un = ex.Unlearner(Estimator().fit(X, y), X, y)
    expected = [un.model.predict(X)]

    def change(request):
        un.apply(request)
        expected.append(un.model.predict(X))

    requests = [request for i in range(2) for request in (ex.RemoveRows([i]), ex.RevokeFeatures([i]))]
    answers = answers_during(lambda: un.model.predict(X), [partial(change, request) for request in requests])
    expected, at_first = distinct(expected), distinct(expected[:1])
    assert distinct(answers) | at_first == expected  # nobody may have asked before the first request
    assert un.model.n_features_in_ == 6


@pytest.mark.slow
def test_threads_predict_labels_of_the_fit_before_or_after():
    X, y, _ = data(ex.LogisticRegression)
    fits = [(X, np.where(y, "yes", "no")), (1.0 - X[:60], y[:60]), (X, np.where(y, 3, 7))]
    expected = [ex.LogisticRegression().fit(*to).predict(X) for to in fits]
    model = ex.LogisticRegression().fit(*fits[0])
    answers = answers_during(lambda: model.predict(X), 100 * [partial(model.fit, *to) for to in fits])
    assert distinct(answers) == distinct(expected)


@each_estimator
@pytest.mark.parametrize(
    ("change", "parameters"),
    [
        (lambda X, y: (spoil(X, np.nan), y), {}),
        (lambda X, y: (X, spoil(y, np.nan)), {}),
        (lambda X, y: (X, np.full(len(y), "a word")), {}),
        (lambda X, y: (X, y, -1.0), {}),
        (lambda X, y: (X, y, np.zeros(len(y))), {}),
        (lambda X, y: (X, y), {"alpha": -1.0}),
        (lambda X, y: (X, y), {"max_iter": 0}),
        (lambda X, y: (X, y), {"tol": 1e-30}),  # warns, which is an error here
    ],
)
def test_a_fit_that_fails_leaves_the_model(Estimator, change, parameters):
    pd = pytest.importorskip("pandas")
    X, y, _ = data(Estimator)
    model = Estimator().fit(pd.DataFrame(X, columns=list("abcd")), y)
    before = fitted(model)
    assert set(before) == set(FITTED) - ({"classes_"} if Estimator is ex.Ridge else set())
    again = change(*data(Estimator, n=60, d=3, seed=1)[:2])
    model.set_params(**parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((ValueError, ConvergenceWarning)):
            model.fit(*again)
        with pytest.raises((ValueError, ConvergenceWarning)):
            (fresh := Estimator(**parameters)).fit(*again)
    after = fitted(model)
    assert all(after.pop(name) is value for name, value in before.items())
    assert not after
    assert not fitted(fresh)


@each_estimator
def test_fit_after_columns_were_revoked_is_a_first_fit(Estimator):
    pd = pytest.importorskip("pandas")
    X, y, _ = data(Estimator)
    frame = pd.DataFrame(X, columns=list("abcd"))
    un = ex.Unlearner(Estimator().fit(frame, y), frame, y)
    un.apply(ex.RevokeFeatures(["b", "d"]))
    assert list(un.model.feature_names_in_) == ["a", "c"]
    for given in (frame, X):
        now, expected = fitted(un.model.fit(given, y)), fitted(Estimator().fit(given, y))
        assert set(now) == set(expected)
        for name, value in expected.items():
            assert_array_equal(now[name], value)


@each_estimator
def test_a_model_has_no_fitted_attribute_before_fit(Estimator):
    model = Estimator()
    assert not fitted(model)
    for name in FITTED:
        for touch in (getattr, delattr):
            with pytest.raises(
                AttributeError, match=f"'{Estimator.__name__}' object has no attribute '{name}'"
            ):
                touch(model, name)


@each_estimator
@with_and_without_intercept
def test_coefficients_are_written_without_a_copy_and_read_only(Estimator, fit_intercept):
    X, y, _ = data(Estimator)
    model = Estimator(fit_intercept=fit_intercept).fit(X, y)
    new = theta(model)[1:]
    set_theta(model, new, None)
    assert np.shares_memory(model.coef_, new)
    assert np.shares_memory(model.intercept_, new) == (fit_intercept and Estimator is ex.LogisticRegression)
    assert_array_equal(theta(model), new)
    assert model.n_features_in_ == 3
    assert model.residual_ is None
    with pytest.raises(ValueError, match="read-only"):
        new[0] = 0.0


@each_estimator
@each_copy
@with_and_without_intercept
def test_a_copy_is_read_only_too_and_goes_its_own_way(Estimator, duplicate, fit_intercept):
    X, y, _ = data(Estimator)
    model = Estimator(fit_intercept=fit_intercept).fit(X, y)
    before, twin = fitted(model), duplicate(model)
    for name, value in before.items():
        assert_array_equal(getattr(twin, name), value)
        assert type(getattr(twin, name)) is type(value)
    for some in (model, twin):
        for array in (some.coef_, some.intercept_):
            if np.ndim(array):
                with pytest.raises(ValueError, match="read-only"):
                    array[...] = 0.0
    twin.fit(X[:50, :2], y[:50])
    assert all(getattr(model, name) is value for name, value in before.items())
    assert twin.n_features_in_ == 2


@each_estimator
def test_coefficients_may_be_assigned_by_hand(Estimator):
    X, _, _ = data(Estimator)
    shape = (4,) if Estimator is ex.Ridge else (1, 4)
    model, coef = Estimator(), np.arange(4.0).reshape(shape)
    model.coef_, model.intercept_, model.classes_ = coef, np.ones(1), np.array([0, 1])
    predictor = model.predict if Estimator is ex.Ridge else model.decision_function
    assert_array_equal(predictor(X), X @ np.arange(4.0) + 1.0)
    coef *= 2.0  # still the user's own
    assert model.coef_ is coef
    assert copy.copy(model).coef_ is coef
    assert coef.flags.writeable
    del model.coef_
    assert set(fitted(model)) == {"intercept_", "classes_"}
    with pytest.raises(NotFittedError):
        predictor(X)


# Bad input


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        *(("alpha", value) for value in (0, -1.0, np.nan, np.inf, "1", None, [1.0], 1j)),
        *(("tol", value) for value in (-1e-9, np.nan, np.inf, "0")),
        *(("within", value) for value in (0.0, -1e-9, np.nan, np.inf, "0", None)),
        *(("max_iter", value) for value in (0, -1, 1.5, "9", None)),
    ],
)
def test_bad_parameters_are_refused_by_name(parameter, value):
    for Estimator in ESTIMATORS.values():
        X, y, _ = data(Estimator)
        with pytest.raises(ValueError, match=f"{parameter} must be"):
            Estimator(**{parameter: value}).fit(X, y)


def spoil(array, value):
    array = np.array(array, dtype=np.float64)
    array.flat[3] = value
    return array


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y, s: (spoil(X, np.nan), y, s), "X contains NaN"),
        (lambda X, y, s: (spoil(X, np.inf), y, s), "X contains infinity"),
        (lambda X, y, s: (X, spoil(y, np.nan), s), "y contains NaN"),
        (lambda X, y, s: (X, y, spoil(s, np.nan)), "sample_weight contains NaN"),
        (lambda X, y, s: (X, y, spoil(s, np.inf)), "sample_weight contains NaN or inf"),
        (lambda X, y, s: (X, y, spoil(s, -1.0)), "sample_weight must not be negative"),
        (lambda X, y, s: (X, y, s[:-1]), r"sample_weight has shape \(79,\), expected \(80,\)"),
        (lambda X, y, s: (X, y, s[:, None]), r"sample_weight has shape \(80, 1\), expected \(80,\)"),
        (lambda X, y, s: (X, y, 0.0), "sample_weight"),
        (lambda X, y, s: (X, y, -1.0), "sample_weight must not be negative"),
        (lambda X, y, s: (X, y, ["heavy"] * 80), "sample_weight must hold real numbers"),
        (lambda X, y, s: (X, y[:-1], s), "inconsistent numbers of samples"),
        (lambda X, y, s: (X, np.column_stack([y, y]), s), "1d array"),
        (lambda X, y, s: (X[:, 0], y, s), "Expected 2D array"),
        (lambda X, y, s: (X[:0], y[:0], s[:0]), "0 sample"),
        (lambda X, y, s: (X[:, :0], y, s), "0 feature"),
        (lambda X, y, s: (X * 1j, y, s), "Complex data"),
        (lambda X, y, s: (X.astype(str).astype(object) + "cm", y, s), "could not convert"),
    ],
)
def test_bad_data_are_refused_with_a_reason(change, message):
    for Estimator in ESTIMATORS.values():
        with pytest.raises(ValueError, match=message):
            Estimator().fit(*change(*data(Estimator)))


@pytest.mark.parametrize(
    ("y", "s", "message"),
    [
        (np.zeros(6), None, r"one class, .*0\.0.*: two classes are needed"),
        (["yes"] * 6, None, "one class, .*yes.*: two classes are needed"),
        (
            np.arange(6) % 3,
            np.arange(6) % 3,
            r"class 0 has no rows of positive sample_weight: fit without it",
        ),
        (np.linspace(0.0, 1.0, 6), None, "Unknown label type: continuous"),
        (np.arange(6) % 2, np.arange(6) % 2, "only one class has rows of positive sample_weight"),
    ],
)
def test_targets_without_two_classes_of_weight_are_refused(y, s, message):
    with pytest.raises(ValueError, match=message):
        ex.LogisticRegression().fit(np.eye(6), y, sample_weight=s)


@in_pairs(Estimator=ESTIMATORS, represent=FAMILIES)
def test_fit_and_predict_refuse_another_number_of_columns_and_what_is_not_finite(Estimator, represent):
    X, y, _ = data(Estimator)
    model = Estimator().fit(represent(X), y)
    with pytest.raises(ValueError, match=r"X has 3 features, but .* is expecting 4"):
        model.predict(represent(X[:, :3]))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        Estimator().fit(represent(X[:-1]), y)
    for bad, message in ((np.nan, "X contains NaN"), (np.inf, "X contains infinity")):
        with pytest.raises(ValueError, match=message):
            model.predict(represent(spoil(X, bad)))
        with pytest.raises(ValueError, match=message):
            Estimator().fit(represent(spoil(X, bad)), y)


@each_estimator
@with_and_without_intercept
def test_sum_and_mean_forms_have_the_same_minimiser(Estimator, fit_intercept):
    """A loss averaged over rows, with alpha / n, is the sum with alpha, divided by n."""
    X, y, s = data(Estimator)
    total = Estimator(1.5, fit_intercept=fit_intercept, tol=1e-10).fit(X, y, s)
    mean = Estimator(1.5 / 80, fit_intercept=fit_intercept, tol=1e-12).fit(X, y, s / 80)
    assert_allclose(theta(mean), theta(total), rtol=0, atol=2e-10)  # (1e-10 + 80 * 1e-12) / alpha, doubled


@pytest.mark.slow
@pytest.mark.parametrize("share", [1e-3, 1e-6, 1e-9, 1e-12])
def test_passes_over_drebin(share, monkeypatch):
    """To a share of the gradient at 0: where direct steps are refused, products go on."""
    data, passes, minimize = drebin(), [], _core.minimize

    def counted(*args, **kwargs):
        minimum = minimize(*args, **kwargs)
        passes.append(minimum.passes)
        return minimum

    monkeypatch.setattr(_core, "minimize", counted)
    at_zero = np.linalg.norm(data.X.T @ (0.5 - data.y))
    ex.LogisticRegression(1.0, fit_intercept=False, tol=share * at_zero).fit(data.X, data.y)
    assert passes[0] <= 20 - 8 * np.log10(share)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer on this platform")
def test_an_interrupt_is_heard_between_iterations(monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((250_000, 60))
    y = X[:, 0] + rng.standard_normal(250_000) > 0
    model = ex.LogisticRegression(1e-6)
    minimize = _core.minimize

    def interrupted(*args, **kwargs):
        signal.setitimer(signal.ITIMER_REAL, 0.005)  # well before the end: a pass over X takes about as long
        return minimize(*args, **kwargs)

    monkeypatch.setattr(_core, "minimize", interrupted)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, y)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    assert not hasattr(model, "coef_")
