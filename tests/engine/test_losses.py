"""Losses with means e^eta and of fractions: requests, bounds with c (E34), and where a minimiser exists."""

import numpy as np
import pytest
from glm import KINDS, Rows, data_of, requests_of
from long_double import coefficients_to_minimum, distance_to_minimum, residual
from numpy.testing import assert_allclose, assert_array_equal
from problems import INTERCEPT, WEIGHTED, in_pairs, retrain
from scipy import sparse
from unlearning import inside, theta_of

import expunge as ex
from expunge import _core, kernels, reference
from expunge.losses import get_loss
from expunge.updates import local_tau

MODELS = {
    "poisson": lambda **parameters: ex.PoissonRegressor(0.5, **parameters),
    "tweedie(1.5)": lambda **parameters: ex.TweedieRegressor(0.5, power=1.5, **parameters),
    "tweedie(1.9)": lambda **parameters: ex.TweedieRegressor(0.5, power=1.9, **parameters),
    "tweedie(2.0)": lambda **parameters: ex.TweedieRegressor(0.5, power=2, **parameters),
}
each_model = pytest.mark.parametrize("loss", MODELS)
METHODS = {"auto": {}, "exact": {"method": "exact"}, "newton": {"method": "second_order"}}


@in_pairs(
    loss=MODELS,
    kind=KINDS,
    method=METHODS,
    fit_intercept=INTERCEPT,
    weighted=WEIGHTED,
    form={"dense": np.array, "float32": np.float32, "csr": sparse.csr_array},
    solver=["cholesky", "cg"],
)
def test_every_request_leads_to_retraining(loss, kind, method, fit_intercept, weighted, form, solver):
    name = next(key for key, make in MODELS.items() if make is loss)
    X, y, s = data_of(name, weighted=weighted)
    X = X.astype(np.float32).astype(np.float64)
    model = loss(fit_intercept=fit_intercept, solver=solver).fit(form(X), y, s)
    un = ex.Unlearner(model, form(X), y, s)
    request = requests_of(name, 5, weighted)[kind]
    update = un.apply(request, **method)
    X, y, s = Rows(X, y, s).granted(request).now
    options = {"alpha": 0.5, "loss": name, "fit_intercept": fit_intercept}
    best, theta = retrain(X, y, sample_weight=s, **options), theta_of(model)
    H = reference.hessian(X, theta, y=y, sample_weight=s, **options)
    away = float(np.sqrt((theta - best) @ H @ (theta - best)))
    assert away <= update.distance * (1.0 + 1e-3) + 1e-9
    if method.get("method") != "second_order":
        assert update.distance <= un.within
    if method.get("method") == "exact":
        assert away <= 1e-6
    assert_allclose(theta_of(un.retrain()), best, rtol=0, atol=1e-5)


@each_model
def test_statistics_of_corrected_labels_are_those_of_the_rows_as_they_are(loss):  # E6 fails
    X, y, _ = data_of(loss)
    un = ex.Unlearner(MODELS[loss]().fit(X, y), X, y, tolerance=1e3)
    before = inside(un).statistics.anchor
    un.apply(ex.CorrectLabels([4, 9], [2.5, 4.0]))
    anchor, y[[4, 9]] = inside(un).statistics.anchor, [2.5, 4.0]
    assert_array_equal(anchor.theta, before.theta)
    options = {"alpha": 0.5, "loss": loss, "fit_intercept": True}
    expected = reference.hessian(X, anchor.theta, y=y, **options)
    b = np.arange(1.0, 7.0)
    assert_allclose(anchor.solve(b), np.linalg.solve(expected, b), rtol=1e-10)
    stale = np.abs(before.solve(b) - np.linalg.solve(expected, b)).max()
    assert stale > 1e-6 if get_loss(loss).curvature_of_targets else stale < 1e-10


# What is proven


class Random:
    """A problem of either loss, an anchor near its minimum, and the data after a request."""

    def __init__(self, seed):
        rng = self.rng = np.random.default_rng(seed)
        self.loss = ["fractional", *MODELS][seed % 5]
        self.fit_intercept, d, n = bool(rng.integers(2)), int(rng.integers(1, 5)), int(rng.integers(10, 50))
        self.X, self.y, self.s = data_of(
            "fractional" if seed % 5 == 0 else self.loss, n=n, d=d, seed=seed, weighted=True
        )
        self.s *= 10.0 ** rng.uniform(-2, 2, n) if seed % 3 else 1.0
        self.alpha = 10.0 ** rng.uniform(-1, 1)
        best = _core.minimize(self.objective(), np.zeros(d + self.fit_intercept), 1e-9, 200).theta
        size = (1.0 + np.abs(best).max()) * 10.0 ** rng.uniform(-4, 0)
        self.anchor = best + size * rng.standard_normal(best.size)
        self.second = best + 0.1 * size * rng.standard_normal(best.size)

    def objective(self):
        penalty = np.append(np.full(self.X.shape[1], self.alpha), np.zeros(int(self.fit_intercept)))
        norm = float(np.sqrt((self.X**2).sum(axis=1).max()))
        block = [(self.X, self.y, self.s)]
        return _core.Objective(block, self.loss, penalty, self.fit_intercept, largest_norm=norm)

    def statistics(self, *, second):
        J = self.objective()
        at, floor = J.evaluate(self.anchor), J.rounding_floor(self.anchor)
        norm = float(np.sqrt((self.X**2).sum(axis=1).max()))
        first = _core.AnchoredStatistics(J, _core.Anchor(J, self.anchor), at, floor, norm)
        return first.measure_beside(J, self.second)[0] if second else first

    def edited(self, statistics):
        """A row leaves, one comes, one gets another label."""
        k, j = self.rng.choice(np.arange(2, len(self.y)), 2, replace=False)
        came = 1.5 * self.X[:1], self.y[:1].clip(0.5, 1.0), np.full(1, 2.0)
        rows = [k, j]
        before = [tuple(part[rows].copy() for part in (self.X, self.y, self.s))]
        y_j = np.array([0.75])
        after = [(self.X[[j]], y_j, self.s[[j]].copy()), came]
        statistics, _ = statistics.edit(before, after, None, self.second, bool(self.rng.integers(2)))
        self.y[j] = 0.75
        gone = np.arange(len(self.y)) == k
        self.X, self.y, self.s = (
            np.concatenate([part[~gone], more])
            for part, more in zip((self.X, self.y, self.s), came, strict=True)
        )
        return statistics

    @property
    def there(self):
        return self.loss, self.X, self.y, self.s

    @property
    def options(self):
        return self.alpha, self.fit_intercept


def bounds_hold(seeds, *, second):
    """How many of the bounds of residual and distance were there."""
    found = np.zeros(3)
    for seed in seeds:
        problem = Random(seed)
        statistics = problem.statistics(second=second)
        if seed % 4:
            statistics = problem.edited(statistics)
        if second and statistics.second is None:
            continue
        theta, bound, distance = statistics.step()
        coefficients = statistics.coefficient_distance()
        assert residual(*problem.there, theta, *problem.options) <= bound
        if distance < np.inf:
            true = distance_to_minimum(*problem.there, theta, *problem.options)
            assert true <= distance * (1.0 + 1e-6) + 1e-9
        if coefficients < np.inf:
            true = coefficients_to_minimum(*problem.there, theta, *problem.options)
            assert true <= coefficients * (1.0 + 1e-6) + 1e-9
        found += bound < np.inf, distance < np.inf, coefficients < np.inf
    return found / len(seeds)


@pytest.mark.parametrize("second", [False, True], ids=["E10", "E26"])
def test_bounds_hold_for_random_problems(second):
    found = bounds_hold(range(300), second=second)
    assert (found > (0.2 if second else 0.5)).all()


def test_bounds_are_those_of_the_reference():
    compared = 0
    for seed in range(150):
        problem = Random(seed)
        statistics = problem.statistics(second=True)
        if statistics.second is None:
            continue
        theta, bound, distance = statistics.step()
        expected, residual_bound, sharper, _ = reference.chord_step(
            problem.X,
            problem.y,
            problem.anchor,
            problem.second,
            alpha=problem.alpha,
            loss=problem.loss,
            sample_weight=problem.s,
            fit_intercept=problem.fit_intercept,
        )
        if not 1e-4 < residual_bound < 1e3:
            continue
        assert_allclose(theta, expected, rtol=1e-5, atol=1e-7)
        assert bound == pytest.approx(residual_bound, rel=1e-2)
        assert distance >= sharper * (1.0 - 1e-3)  # rows there are bounded by the longest one
        compared += 1
    assert compared > 50


@each_model
def test_statistics_are_added_to_subtracted_from_and_merged(loss):
    X, y, s = data_of(loss, weighted=True)
    options = {"alpha": 0.5, "loss": loss, "fit_intercept": True}
    theta, first, rest = 0.1 * np.arange(6.0), slice(40), slice(40, None)
    twin = reference.AnchoredStatistics(X, y, theta, sample_weight=s, **options)
    ours = kernels.AnchoredStatistics(X[first], y[first], theta, sample_weight=s[first], **options)
    other = kernels.AnchoredStatistics(X[rest], y[rest], theta, sample_weight=s[rest], **options)
    ours = ours.merge(other)
    for statistics in (ours, twin):
        statistics.subtract(X[:3], y[:3], s[:3])
        statistics.add(X[:2], y[:2] + 1.0, s[:2])
    assert_allclose(ours.theta(), twin.theta(), rtol=1e-9, atol=1e-11)
    assert ours.residual_bound() == pytest.approx(twin.residual_bound(), rel=1e-6)
    X, y, s = np.vstack([X[3:], X[:2]]), np.append(y[3:], y[:2] + 1.0), np.append(s[3:], s[:2])
    g = reference.gradient(X, y, ours.theta(), sample_weight=s, **options)
    assert np.linalg.norm(g) <= ours.residual_bound()


def equal_rows(loss, delta, *, weight=3.0, x=2.0):
    """A step up by `delta` where d2 grows as fast as it may: the residual after it, and its bound."""
    c, y = get_loss(loss).remainder, np.zeros(4)
    X, s, theta = np.full((4, 1), x), np.full(4, weight), np.zeros(1)
    d1, d2 = (get_loss(loss).d1(0.0, 0.0), get_loss(loss).d2(0.0, 0.0))
    alpha, added = 1e-9, np.array([1.0])
    # rows of another kind, far off, pull theta up: theta_a - g / H is delta / x
    H, g = 4 * weight * x * x * float(d2), 4 * weight * x * float(d1)
    J = _core.Objective([(X, y, s)], loss, np.full(1, alpha), False, noise=-added * (g + H * delta / x))
    at = J.evaluate(theta)
    statistics = _core.AnchoredStatistics(J, _core.Anchor(J, theta), at, J.rounding_floor(theta), x)
    stepped, bound, _ = statistics.step()
    assert_allclose(stepped, delta / x, rtol=1e-6)
    assert c == pytest.approx(float(get_loss(loss).d2(0.0, 1e-6) / d2 - 1.0) * 1e6, rel=1e-5)
    return J.evaluate(stepped).residual, bound


@pytest.mark.parametrize("delta", [0.01, 1.0, 3.0])
@pytest.mark.parametrize("loss", ["poisson", "tweedie(1.5)", "tweedie(1.3)"])
def test_the_bound_is_attained_where_the_curvature_grows_as_fast_as_it_may(loss, delta):  # c from either side
    exact, bound = equal_rows(loss, delta)
    assert 0.999 <= exact / bound <= 1.0


@pytest.mark.parametrize("fit_intercept", [False, True])
@each_model
def test_a_local_first_step_shrinks_the_residual_wherever_it_starts(loss, fit_intercept):  # E34
    X, y, _ = data_of(loss, n=60)
    far = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        theta = rng.standard_normal(5 + fit_intercept) * 10.0 ** rng.uniform(-1, 0.7)
        options = {"alpha": 0.5, "loss": loss, "fit_intercept": fit_intercept}
        g = reference.gradient(X, y, theta, **options)
        A = np.column_stack([X, np.ones(60)]) if fit_intercept else X
        gram = reference.gram(A, get_loss(loss).d2(y, A @ theta))
        R, L = np.linalg.norm(A, axis=1).max(), float(np.linalg.norm(gram, 2))
        tau = local_tau(L, 0.5, get_loss(loss).remainder * R * float(np.linalg.norm(g)))
        after = reference.gradient(X, y, theta - tau * g, **options)
        least = 0.0 if fit_intercept else 0.5
        assert np.linalg.norm(after) <= (1.0 - tau * least) * np.linalg.norm(g) * (1.0 + 1e-9)
        far += np.linalg.norm(reference.gradient(X, y, theta - g / (L + 0.5), **options)) > np.linalg.norm(g)
    assert far > 0 or loss != "poisson"  # where 1 / L alone is too far


@each_model
def test_a_first_order_update_takes_the_local_step(loss):
    X, y, _ = data_of(loss)
    X = X + 100.0  # columns far from 0
    un = ex.Unlearner(MODELS[loss]().fit(X, y), X, y)
    rest = np.delete(np.arange(len(y)), [3, 8])
    options = {"alpha": 0.5, "loss": loss, "fit_intercept": True}
    start = np.linalg.norm(kernels.gradient(X[rest], y[rest], theta_of(un.model), **options))
    update = un.apply(ex.RemoveRows([3, 8]), method="first_order")
    assert 0.0 < update.tau < 1.0
    end = np.linalg.norm(kernels.gradient(X[rest], y[rest], theta_of(un.model), **options))
    assert end < start


# Where a minimiser exists


def without_a_minimiser():
    X, y = np.random.default_rng(0).standard_normal((12, 2)), np.zeros(12)
    y[[3, 7]] = 2.0, 5.0
    return X, y


@pytest.mark.parametrize("loss", ["poisson", "tweedie(1.5)"])
def test_a_request_that_leaves_targets_of_0_alone_is_refused(loss):
    X, y = without_a_minimiser()
    for tolerance in (None, 10.0):
        un = ex.Unlearner(MODELS[loss]().fit(X, y), X, y, tolerance=tolerance)
        un.apply(ex.RemoveRows([3]))
        theta = theta_of(un.model)
        for request in (ex.RemoveRows([7]), ex.CorrectLabels([7], [0.0])):
            for method in ("auto", "exact"):
                with pytest.raises(ValueError, match="no intercept is the best"):
                    un.apply(request, method=method)
            with pytest.raises(ex.StreamStopped):
                un.apply_each([request, ex.RemoveRows([1])])
        assert_array_equal(theta_of(un.model), theta)
        assert un.corrected_data()[1].max() == 5.0
    plain = ex.Unlearner(MODELS[loss](fit_intercept=False).fit(X, y), X, y)
    plain.apply(ex.RemoveRows([3, 7]))  # without one there is a minimiser
    with pytest.raises(ValueError, match="no intercept is the best"):
        MODELS[loss]().fit(X, np.zeros(12))


def test_a_detached_model_is_not_left_without_a_minimiser():
    X, y = without_a_minimiser()
    un = ex.Unlearner(MODELS["poisson"]().fit(X, y), X, y, tolerance=100.0).detach()
    with pytest.raises(ex.RowsRequired, match="best intercept"):
        un.apply(ex.Edit((X[[3, 7]], y[[3, 7]]), None))


@each_model
def test_targets_out_of_the_domain_are_refused_wherever_they_come_in(loss):
    X, y, _ = data_of(loss)
    bad = -1.0 if loss != "tweedie(2.0)" else 0.0
    un = ex.Unlearner(MODELS[loss]().fit(X, y), X, y)
    for request in (ex.CorrectLabels([3], [bad]), ex.CorrectLabels([3], bad), ex.AddRows(X[:1], [bad])):
        with pytest.raises(ValueError, match=f"is {bad}"):
            un.apply(request)
    with pytest.raises(ValueError, match=f"is {bad}"):
        MODELS[loss]().fit(X, np.append(y[1:], bad))


@each_model
def test_predictors_of_800_are_fitted_to_the_end(loss):
    X, y, _ = data_of(loss)
    X[0] *= 800.0 / np.abs(X[0]).max()  # of a row whose mean is then next to 0, or out of range
    model = MODELS[loss]().fit(X, y)
    options = {"alpha": 0.5, "loss": loss, "fit_intercept": True}
    floor = kernels.rounding_floor(X, y, theta_of(model), **options)
    assert np.linalg.norm(kernels.gradient(X, y, theta_of(model), **options)) <= 1e-6 + floor
    un = ex.Unlearner(model, X, y)
    assert un.apply(ex.RemoveRows([0])).distance <= un.within


def test_powers_that_are_not_supported_say_why():
    X, y, _ = data_of("tweedie(2.0)")
    for power, reason in ((0, "fit Ridge"), (3, "not convex"), (-1, "not convex"), (0.5, "not convex")):
        with pytest.raises(ValueError, match=reason):
            ex.TweedieRegressor(power=power).fit(X, y)
    with pytest.raises(TypeError, match="number"):
        ex.TweedieRegressor(power="log").fit(X, y)
    assert_allclose(
        theta_of(ex.TweedieRegressor(power=1).fit(X, y)), theta_of(ex.PoissonRegressor().fit(X, y)), rtol=0
    )


# Files, detached, released


@each_model
def test_files_and_detached_models_take_requests(loss, tmp_path):
    X, y, _ = data_of(loss)
    un = ex.Unlearner(MODELS[loss]().fit(X, y), X, y, within=0.5)
    for rows in (True, False):
        un.save(tmp_path / "model", include_rows=rows)
        loaded = ex.Unlearner.load(tmp_path / "model")
        assert loaded.attached is rows
        assert type(loaded.model) is type(un.model)
        assert_array_equal(loaded.model.predict(X), un.model.predict(X))
    assert loaded.model.get_params() | {"within": None} == un.model.get_params() | {"within": None}
    rest = np.delete(np.arange(len(y)), [3])
    update = loaded.apply(ex.Edit((X[[3]], y[[3]]), None))
    best = retrain(X[rest], y[rest], alpha=0.5, loss=loss, fit_intercept=True)
    H = reference.hessian(X[rest], best, y=y[rest], alpha=0.5, loss=loss, fit_intercept=True)
    gap = theta_of(loaded.model) - best
    assert float(np.sqrt(gap @ H @ gap)) <= update.distance * 1.01 <= loaded.within * 1.01
    loaded.attach(X[rest], y[rest])


@each_model
def test_a_release_is_certified(loss):
    X, y, _ = data_of(loss)
    un = ex.Unlearner(MODELS[loss]().fit(X, y), X, y)
    un.apply(ex.RemoveRows([3]))
    released = un.release(1.0, 1e-5)
    assert released.certificate_.strong_convexity == 0.5
    assert_allclose(theta_of(released), theta_of(un.retrain()), rtol=0, atol=1e-4)
