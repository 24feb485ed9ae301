"""What strategies have in common: the face of an Unlearner; a request succeeds or changes nothing."""

import gc
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from problems import REPRESENTATIONS, dense
from sklearn import linear_model
from sklearn.exceptions import ConvergenceWarning
from starting import each_start
from strategies import CASES, COLUMN, FLIPPED, OURS, ROWS, VALUES, fresh
from unlearning import ALPHA, make_data, theta_of

import expunge as ex
from expunge import baselines
from expunge.engine.data import CorrectedData

PACKAGE = Path(ex.__file__).parent
TRACED = tuple(str(PACKAGE / part) for part in ("baselines", "engine/fitted.py", "engine/attached.py"))
each_strategy = pytest.mark.parametrize("name", CASES)
SINGLE = [name for name in CASES if name != "sisa"]


def learnt(model):
    """All that a model has learnt, bit for bit."""
    return np.array(model.coef_).tobytes(), np.array(model.intercept_).tobytes()


def held(strategy):
    """What a request may change."""
    X, y, s = strategy.corrected_data()
    return learnt(strategy.model), dense(X).tobytes(), y.tobytes(), None if s is None else s.tobytes()


def test_every_strategy_is_in_the_list_of_the_tests():
    kinds = {case.kind for case in CASES.values()} | {baselines.Ensemble, baselines.Privacy}
    assert kinds == {getattr(baselines, name) for name in baselines.__all__}


@each_strategy
@pytest.mark.parametrize("represent", ["float64_c", "csr_int32"])
@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
def test_data_follow_each_request_and_the_update_says_what_was_done(name, represent, weighted):
    for request in CASES[name].takes:
        strategy, data = fresh(name, represent=REPRESENTATIONS[represent], weighted=weighted)
        update = strategy.apply(request)
        data = data.after(request)
        for found, expected in zip(strategy.corrected_data(), data.rows, strict=True):
            assert_array_equal(None if found is None else dense(found), expected)
        assert update.method == strategy.name
        assert isinstance(update.passes, int)
        assert update.seconds > 0.0
        assert strategy.model.predict(strategy.corrected_data()[0]).shape == data.rows[1].shape
        assert strategy.model.n_features_in_ == data.kept.sum()
        assert update.features_revoked == (request is COLUMN)
        n = len(data.rows[1])
        assert n * (update.passes - 1) < strategy.gradients <= n * update.passes or update.passes == 0
        if CASES[name].passes is not None:
            assert update.passes == CASES[name].passes


@pytest.mark.parametrize("name", SINGLE)
def test_the_residual_is_that_of_the_model_and_a_distance_bounds_the_true_one(name):
    strategy, data = fresh(name)
    strategy.apply(CASES[name].takes[0])
    assert strategy.residual() == pytest.approx(
        ex.residual(strategy.model, *strategy.corrected_data()), rel=1e-6, abs=1e-9
    )
    if name == "private":  # of an objective with noise
        return
    fit = ex.LogisticRegression(ALPHA, tol=1e-10).fit(*data.after(CASES[name].takes[0]).rows)
    un = ex.Unlearner(fit, *data.after(CASES[name].takes[0]).rows)
    away = theta_of(strategy.model) - theta_of(fit)
    assert strategy.distance() >= 0.999 * (np.abs(away) / un.standard_errors()).max() - 1e-8


@pytest.mark.parametrize("name", [name for name in SINGLE if name not in OURS])
def test_what_a_strategy_does_not_measure_it_does_not_claim(name):
    strategy, _ = fresh(name)
    update = strategy.apply(CASES[name].takes[0])
    if update.residual is None:
        assert update.residual_bound == update.distance == np.inf
        assert update.shortfall == f"{strategy.name} promises nothing: method='auto' does"
    else:
        assert update.residual == pytest.approx(strategy.residual(), rel=1e-6)
        assert update.distance <= 0.01


@each_strategy
def test_requests_that_a_paper_does_not_define_are_refused_with_the_reason(name):
    for request in (ROWS, FLIPPED, VALUES, COLUMN):
        if request in CASES[name].takes:
            continue
        strategy, _ = fresh(name)
        before = held(strategy)
        with pytest.raises(ValueError, match=f"does not define {type(request).__name__}: .*Retraining"):
            strategy.apply(request)
        assert held(strategy) == before


@each_strategy
def test_a_refused_request_changes_nothing_and_the_next_one_finds_all_as_it_was(name):
    strategy, _ = fresh(name)
    twin, _ = fresh(name)
    before, first = held(strategy), CASES[name].takes[0]
    bad = (
        [first, type(first)(*[[999]] * len([v for v in vars(first).values() if isinstance(v, list)]))]
        if first is not COLUMN
        else [COLUMN, COLUMN]
    )
    for request in (bad, 7, ex.Edit(before=([[0.0] * 6], [0.0]))):
        with pytest.raises((ValueError, TypeError)):
            strategy.apply(request)
        assert held(strategy) == before
    strategy.apply(first)
    twin.apply(first)
    assert held(strategy) == held(twin)


@pytest.mark.parametrize("name", [name for name in CASES if name not in OURS])
def test_an_interrupt_in_a_strategy_leaves_model_and_data_as_they_were(name, monkeypatch):
    strategy, _ = fresh(name)
    twin, _ = fresh(name)
    before = held(strategy)

    def stopped(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        for module in ("engine.fitted", "baselines.sisa"):  # where it is the last act of a request
            patch.setattr(f"expunge.{module}.assign_all", stopped)
        with pytest.raises(KeyboardInterrupt):
            strategy.apply(CASES[name].takes[0])
    assert held(strategy) == before
    for each in (strategy, twin):
        each.apply(CASES[name].takes[0])
    if name != "fine_tuning":  # whose order of rows has moved on
        assert held(strategy) == held(twin)


@pytest.mark.parametrize("name", SINGLE)
def test_a_model_that_others_changed_is_refused(name):
    strategy, _ = fresh(name)
    strategy.model.coef_ = np.array(strategy.model.coef_) + 1.0
    with pytest.raises(ValueError, match="was changed outside"):
        strategy.apply(CASES[name].takes[0])


@each_strategy
def test_a_second_request_goes_on_from_the_first(name):
    strategy, data = fresh(name)
    first, kind = CASES[name].takes[0], type(CASES[name].takes[0])
    second = kind([4]) if kind is not ex.CorrectLabels else kind([4], 1.0)
    strategy.apply(first)
    update = strategy.apply(second)
    assert_array_equal(dense(strategy.corrected_data()[0]), data.after(first, second).rows[0])
    assert update.rows_touched > 0


@each_strategy
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_models_of_scikit_learn_are_taken(name, loss):
    X, y, _ = make_data(loss).rows
    kind = linear_model.Ridge if loss == "squared" else linear_model.LogisticRegression
    options = {"alpha": ALPHA} if loss == "squared" else {"C": 1 / ALPHA, "tol": 1e-8, "max_iter": 1000}
    model = kind(fit_intercept=CASES[name].fit_intercept, **options).fit(X, y)
    if loss == "squared" and name in ("private", "lbfgs"):
        with pytest.raises(ValueError, match=r"no bound|unknown solver 'lbfgs'"):
            CASES[name].of(X, y, model=model)
        return
    strategy = CASES[name].of(X, y, model=model)
    strategy.apply(CASES[name].takes[0])
    assert (strategy.model is model) == (name not in ("sisa", "private"))


@pytest.mark.parametrize("name", [name for name in CASES if name not in OURS])
def test_models_that_no_paper_is_about_are_refused(name):
    X = np.random.default_rng(0).standard_normal((40, 3))
    y = np.arange(40) % 2.0
    others = ex.PoissonRegressor(), ex.LinearSVC(), linear_model.TweedieRegressor(power=0)
    for model in others:
        with pytest.raises(TypeError, match="baselines are of Ridge and LogisticRegression"):
            CASES[name].kind(model.fit(X, y), X, y)


@each_strategy
def test_data_that_the_model_was_not_fitted_to_are_refused(name):
    X, y, _ = make_data("logistic", n=200).rows
    model = ex.LogisticRegression(ALPHA, fit_intercept=CASES[name].fit_intercept).fit(X, y)
    if name in ("sisa", "private"):  # these train their own
        return
    with pytest.raises(ex.NotFittedToThisData):
        CASES[name].of(X, 1.0 - y, model=model)


@each_strategy
def test_bad_input_is_refused_before_anything_is_trained(name):
    X, y, _ = make_data("logistic").rows
    with pytest.raises(TypeError, match="is not supported"):
        CASES[name].of(X, y, model=linear_model.Lasso().fit(X, y))
    strategy, _ = fresh(name)
    with pytest.raises(ValueError, match=r"shape|columns|match|inconsistent"):
        CASES[name].of(X, y[:-1], model=strategy.model if name != "sisa" else CASES["cold"].of(X, y).model)


@pytest.mark.parametrize("name", [name for name in CASES if name != "private"])
def test_columns_far_from_zero_and_frames(name):
    pandas = pytest.importorskip("pandas")
    X, y, _ = make_data("logistic").rows
    far = X + np.array([0.0, 1e5, 0.0, 0.0, 0.0, 0.0])
    frame = pandas.DataFrame(far, columns=list("abcdef"))
    strategy = CASES[name].of(frame, y)
    request = ex.RevokeFeatures(["b"]) if CASES[name].takes == (COLUMN,) else ROWS
    zeroed = strategy.model.predict(frame.assign(b=0.0))
    if name == "lbfgs":
        with pytest.warns(ConvergenceWarning, match=r"scikit-learn's lbfgs ended .*scale the columns"):
            strategy.apply(request)
        return
    strategy.apply(request)
    if name == "occlusion":
        assert_array_equal(strategy.model.predict(frame.drop(columns="b")), zeroed)
        return
    if name in ("fine_tuning", "deltagrad", "projective", "first_order"):  # they see where columns have 0
        assert np.isfinite(strategy.residual())
        return
    near = CASES[name].of(X, y)
    near.apply(request)
    found, expected = (each.model.decision_function(rows) for each, rows in ((strategy, frame), (near, X)))
    assert_allclose(found, expected, rtol=0, atol=2e-3)


@each_strategy
def test_a_question_in_the_middle_of_a_request_is_refused(name, monkeypatch):
    strategy, _ = fresh(name)
    asked = []

    def ask(self, *_):
        for question in (strategy.corrected_data, lambda: strategy.apply(ROWS)):
            with pytest.raises(RuntimeError, match="in the middle of a request of the same thread"):
                question()
            asked.append(question)
        raise KeyboardInterrupt

    kind = type(CASES[name].takes[0])
    monkeypatch.setattr(kind, "edit", ask)
    if name == "auto":
        monkeypatch.setattr(kind, "by_number", ask)
    before = strategy.model.coef_.copy()
    with pytest.raises(KeyboardInterrupt):
        strategy.apply(CASES[name].takes[0])
    assert len(asked) == 2
    assert_array_equal(strategy.model.coef_, before)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name not in OURS])
def test_an_interrupt_at_any_line_leaves_all_as_before_or_as_after(name):
    """Each line of the strategies, and of how an engine publishes, once."""
    request = CASES[name].takes[0]

    def run(strategy, stop):
        """Applies the request, stopped at that line; how many lines there were."""
        lines = 0

        def trace(frame, event, _):
            nonlocal lines
            if not frame.f_code.co_filename.startswith(TRACED):
                return None
            if event == "line":
                lines += 1
                if lines == stop:
                    raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            strategy.apply(request)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        return lines

    twin, _ = fresh(name)
    before, lines = held(twin), run(twin, None)
    after = held(twin)
    assert lines > 10
    for stop in np.unique(np.linspace(1, lines, 25).astype(int)):
        strategy, _ = fresh(name)
        run(strategy, stop)
        found = held(strategy)
        assert found in (before, after), stop
        if found == before and name != "fine_tuning":  # whose order of rows has moved on
            strategy.apply(request)
            assert held(strategy) == after, stop


@pytest.mark.parametrize("name", ["rescaled", "projective", "sisa"])
def test_no_copy_of_a_removed_row_outlives_its_request(name, monkeypatch):
    strategy, _ = fresh(name)
    copies, get = [], CorrectedData.get

    def spy(data, rows):
        X, y, s = get(data, rows)
        copies.append(weakref.ref(X))
        return X, y, s

    monkeypatch.setattr(CorrectedData, "get", spy)
    strategy.apply(ROWS)
    gc.collect()
    assert copies
    assert [copy() for copy in copies] == [None] * len(copies)


def test_importing_expunge_does_not_import_baselines():
    code = "import sys, expunge; print(any('baselines' in name for name in sys.modules))"
    (done,) = each_start(code, {}, without=[], PYTHONPATH=str(ex.__path__[0]).removesuffix("/expunge"))
    assert done.stdout.strip() == "False", done.stderr


@each_strategy
def test_strategies_are_described_without_values(name):
    strategy, _ = fresh(name)
    assert repr(strategy).startswith(f"{type(strategy).__name__}(model=")
    assert "rows=60, features=6" in repr(strategy)
