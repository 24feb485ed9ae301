"""Certified releases, and every way in which they are refused."""

import copy
from fractions import Fraction
from math import sqrt
from types import SimpleNamespace

import numpy as np
import pytest
from long_double import coefficients_to_minimum
from numpy.testing import assert_allclose, assert_array_equal
from releasing import exact_profile, noisy
from scipy import sparse, stats
from unlearning import ALPHA, TOLERANCE, each_intercept, each_loss, inside, make_data, theta_of, unlearner

import expunge as ex
from expunge import accounting, noise, reference, release
from expunge.engine import verified as verified_module
from expunge.losses import get_loss
from expunge.models.base import set_theta

EPSILON, DELTA = 0.5, 1e-5
each_mechanism = pytest.mark.parametrize("mechanism", ["output", "rounding"])


# releases


@each_mechanism
@each_loss
@each_intercept
def test_a_release_is_a_certified_copy_and_changes_nothing(fit_intercept, loss, mechanism):
    data = make_data(loss, weighted=True)
    un = unlearner(data, loss, fit_intercept)
    un.apply([ex.RemoveRows([3]), ex.RevokeFeatures([1])])
    data = data.after(ex.RemoveRows([3]), ex.RevokeFeatures([1]))
    state, theta, rows = inside(un).state, theta_of(un.model), un.corrected_data()
    released = un.release(1.0, 1e-2, mechanism=mechanism)
    assert inside(un).state is state
    assert_array_equal(theta_of(un.model), theta)
    assert_array_equal(un.corrected_data()[0], rows[0])
    assert not hasattr(un.model, "certificate_")
    assert type(released) is type(un.model)
    assert released.get_params() == un.retrain().get_params()
    assert released.n_features_in_ == 5
    assert released.residual_ is None
    assert released.predict(data.rows[0]).shape == (59,)
    held = released.certificate_
    assert (held.mechanism, held.epsilon, held.delta) == (mechanism, 1.0, 1e-2)
    assert (held.tolerance, held.strong_convexity, held.theta_bound) == (TOLERANCE, ALPHA, 100.0)
    assert (held.against, held.void) == ("retraining", None)
    assert held.residual_bound <= min(TOLERANCE, held.residual + held.floor)
    settled = copy.copy(un.model)  # where the model's own residual does not do
    set_theta(settled, inside(un).within(TOLERANCE).theta, None)
    assert exact_profile(settled, data) <= held.residual + held.floor
    assert {status for _, status in held.assumptions} == {"checked", "taken on trust"}
    assert held.outside
    moved = np.abs(np.ravel(released.coef_) - np.ravel(un.model.coef_))
    assert 0.0 < moved.max() < 10 * (held.sigma or held.grid)


@each_mechanism
def test_two_releases_differ_and_a_seed_repeats_and_voids(mechanism):
    un = unlearner(make_data("logistic"), "logistic", True)
    first, second = (un.release(1.0, 1e-2, mechanism=mechanism) for _ in range(2))
    assert (first.coef_ != second.coef_).all()
    seeded = [un.release(1.0, 1e-2, mechanism=mechanism, random_state=4) for _ in range(2)]
    assert_array_equal(*(model.coef_ for model in seeded))
    assert_array_equal(*(model.intercept_ for model in seeded))
    assert seeded[0].certificate_.void == "noise reproducible"
    assert str(seeded[0].certificate_).startswith("void: noise reproducible")


@each_loss
def test_the_scale_depends_on_public_constants_only(loss):
    held = []
    for n, d, seed in ((60, 6, 0), (500, 3, 1), (30, 40, 2)):
        un = unlearner(make_data(loss, n=n, d=d, seed=seed), loss, True)
        held.append(un.release(1.0, 1e-5).certificate_)
    assert held[0] == held[1] == held[2]
    shift = 2 * Fraction(TOLERANCE) / Fraction(ALPHA)
    needed = shift / Fraction(accounting.mu(1.0, 1e-5))
    assert needed <= Fraction(held[0].sigma) <= needed * (1 + Fraction(1, 2**20))
    assert shift / Fraction(held[0].sigma) <= Fraction(held[0].mu)
    assert held[0].mu == pytest.approx(shift / Fraction(held[0].sigma), rel=1e-15)


@each_mechanism
def test_the_scale_is_never_less_than_what_numbers_up_to_the_bound_need(mechanism):
    """2**20 steps of a grid on which numbers up to theta_bound have 53 bits."""
    for bound, exponent in ((100.0, 7 - 53), (2.0**40, 40 - 53), (2.0**40 * (1 + 2.0**-52), 41 - 53)):
        terms = release.Terms(mechanism, 4.0, 0.9, "retraining", 1e-11, ALPHA, bound)
        assert terms.grid(6).width == 2.0 ** (exponent + 20)
        scale = terms.apply(np.ones(6), 0)[1]
        assert scale["resolution"] == 2.0**exponent
        if mechanism == "output":
            assert Fraction(scale["mu"]) >= 2 * Fraction(1e-11) / Fraction(ALPHA) / Fraction(scale["sigma"])


@each_mechanism
def test_what_does_not_fit_float64_is_refused(mechanism):
    def terms(tolerance):
        return release.Terms(mechanism, 1e-3, 1e-3, "retraining", tolerance, 1e-3, 1.0)

    for far in (2.0**54, -1e300):  # whatever theta_bound says
        with pytest.raises(ex.CertificateError, match="does not fit 53 bits"):
            terms(1e-16).apply(np.array([1.0, far]), 0)
    with pytest.raises(ex.CertificateError, match="above the largest float64"):
        terms(1e308).apply(np.zeros(2), 0)


@pytest.mark.parametrize("mechanism", ["output", "rounding", "objective"])
def test_a_delta_below_what_a_machine_can_promise_is_refused(mechanism):
    data = make_data("logistic")
    un, _ = noisy(data, random_state=0)
    for delta in (2.0**-54, 1e-20, 1e-300, 1e-320):
        with pytest.raises(ex.CertificateError, match=r"below 2\*\*-53"):
            un.release(EPSILON, delta, mechanism=mechanism)
    with pytest.raises(ex.CertificateError, match=r"below 2\*\*-53"):
        noisy(data, epsilon=EPSILON, delta=1e-20)


@each_mechanism
def test_released_coefficients_are_multiples_of_their_grid(mechanism):
    un = unlearner(make_data("squared"), "squared", True)
    released = un.release(1.0, 1e-2, mechanism=mechanism)
    held = released.certificate_
    step = noise.grid_of(Fraction(held.sigma or held.grid), held.theta_bound).step
    assert (held.sigma or held.grid) / step in range(2**20, 2**21)
    assert_array_equal(np.fmod(released.coef_, step), 0.0)


@pytest.mark.parametrize("against", [None, "retraining", "minimiser"])
def test_the_scale_is_that_of_the_mathematics(against):
    """E16 at alpha = 1, (1, 1e-5): 3.73063 times the shift."""
    data = make_data("squared")
    un = unlearner(data, "squared", False, alpha=1.0, tolerance=1e-4, theta_bound=10.0)
    held = un.release(1.0, 1e-5, against=against).certificate_
    shift = 1e-4 if against == "minimiser" else 2e-4
    assert_allclose(held.sigma, 3.73063 * shift, rtol=3e-6)
    assert held.against == (against or "retraining")
    assert accounting.delta(1.0, held.mu) <= 1e-5
    rounded = un.release(1.0, 1e-2, against=against, mechanism="rounding").certificate_
    assert 1.0 - 1e-15 <= rounded.grid / (sqrt(6) * shift / 1e-2) <= 1.0 + 2.0**-19  # steps are even


def test_noise_of_a_release_has_the_scale_that_it_says():
    data = make_data("squared", n=30, d=500)
    un = unlearner(data, "squared", False, tolerance=1e-3)
    exact = np.ravel(unlearner(data, "squared", False).model.coef_)
    draws = []
    for _ in range(20):
        released = un.release(1.0, 1e-5)
        draws.append((released.coef_ - exact) / released.certificate_.sigma)
    assert stats.kstest(np.ravel(draws), "norm").pvalue > 1e-6
    assert abs(np.std(draws) - 1.0) < 0.04
    assert np.abs(np.corrcoef(draws)[np.triu_indices(20, 1)]).max() < 0.3


@pytest.mark.parametrize("weighted", [False, True])
@each_loss
def test_the_intercept_is_the_best_beside_the_released_coefficients(loss, weighted):
    data = make_data(loss, weighted=weighted, n=5000)
    un = unlearner(data, loss, True, tolerance=1e-2)
    released = un.release(0.1, 1e-5)
    X, y, s = data.rows
    gradient = reference.gradient(
        X, y, theta_of(released), alpha=ALPHA, loss=loss, sample_weight=s, fit_intercept=True
    )
    assert abs(gradient[-1]) <= 1e-9
    assert abs(theta_of(released)[-1] - theta_of(un.model)[-1]) > 1e-8


@each_loss
def test_the_best_intercept_does_not_depend_on_threads(loss):
    """Else bits would tell the two worlds apart."""
    threadpoolctl = pytest.importorskip("threadpoolctl")
    data, coef, found = make_data(loss, n=100_000, d=3), np.array([0.5, -1.0, 2.0]), []
    for threads in (1, 2):
        with threadpoolctl.threadpool_limits(threads, user_api="blas"):
            found.append(release.best_intercept([(data.X, data.y, data.s)], coef, get_loss(loss)))
    assert found[0] == found[1]


def test_the_best_intercept_is_found_where_rounding_makes_the_slope_flat():
    """Brent's method then takes more than a hundred steps."""
    root, steps = 1e-6, []

    def d1(y, eta):
        steps.append(eta)
        return np.where((eta < root) & (eta > root - 1e-12), -5e-17, 57.0 * (eta - root))

    rows = [(np.zeros((1, 1)), np.zeros(1), np.ones(1))]
    assert release.best_intercept(rows, np.zeros(1), SimpleNamespace(d1=d1)) == pytest.approx(root, rel=1e-14)
    assert len(steps) > 100


@pytest.mark.slow
@each_loss
@pytest.mark.parametrize("form", [np.array, np.asfortranarray, sparse.csr_array], ids=["C", "F", "csr"])
def test_rounding_gives_the_numbers_of_retraining(loss, form):
    """E17, bit for bit, intercept included: the two worlds share the offset, nothing else."""
    data = make_data(loss, n=4200, d=8, zeros=True)
    asked = [
        ex.RemoveRows([3, 4100]),
        ex.CorrectValues([7], [1], 2.5),
        ex.CorrectLabels([8], 1.0),
        ex.RevokeFeatures([2]),
        ex.AddRows(form(np.ones((3, 7))), [0.0, 1.0, 1.0]),
        ex.RemoveRows([4200]),
    ]
    un = unlearner(data, loss, True, represent=form, tolerance=1e-7)
    un.apply(asked)
    X, y, s = data.after(*asked).rows
    kind = ex.Ridge if loss == "squared" else ex.LogisticRegression
    again = ex.Unlearner(kind(ALPHA, tol=1e-7).fit(form(X), y, s), form(X), y, s, tolerance=1e-7)
    assert (np.ravel(un.model.coef_) != np.ravel(again.model.coef_)).any()
    same = 0
    for seed in range(20):
        one, other = (u.release(1.0, 1e-3, mechanism="rounding", random_state=seed) for u in (un, again))
        same += np.array_equal(theta_of(one), theta_of(other))
    assert same == 20


def test_rounded_coefficients_lie_on_the_grid():
    un = unlearner(make_data("logistic"), "logistic", False, tolerance=1e-6)
    released = un.release(0.0, 1e-3, mechanism="rounding", random_state=1)
    grid = released.certificate_.grid
    steps = noise.grid_of(Fraction(grid), un.theta_bound, even=True)
    assert steps.width == grid
    middles = noise.round_with_offset(np.zeros(6), steps, 1)  # of the cells around 0
    assert_array_equal(np.fmod(np.ravel(released.coef_) - middles, grid), 0.0)
    away = np.abs(np.ravel(released.coef_) - np.ravel(un.model.coef_)).max()
    assert away <= 0.5 * (grid + steps.step) * (1 + 1e-9)


@each_loss
def test_a_release_settles_where_it_must_and_leaves_the_model_alone(loss):
    data = make_data(loss, n=300)
    un = unlearner(data, loss, True)
    un.apply(ex.RemoveRows(range(10, 40)), method="first_order")
    left = data.after(ex.RemoveRows(range(10, 40)))
    theta = theta_of(un.model)
    assert un.residual() > 1e-2
    released = un.release(1.0, 1e-5)
    assert_array_equal(theta_of(un.model), theta)
    assert released.certificate_.residual_bound <= TOLERANCE
    exact = unlearner(left, loss, True)
    assert_allclose(theta_of(released), theta_of(exact.model), atol=1e-5)


def between(sigma=None, fit_intercept=True):
    """An Unlearner that is off the minimum, its data, and a tolerance between its distance and residual."""
    found, wanted = [], 1e-12
    for _ in range(2):
        data = make_data("logistic", n=2000)
        X, y, _ = data.rows
        noise_of = {} if sigma is None else {"noise": sigma, "random_state": 0}
        model = ex.LogisticRegression(ALPHA, fit_intercept=fit_intercept, **noise_of).fit(X, y)
        un = ex.Unlearner(model, X, y, within=0.5, tolerance=wanted)
        un.apply(ex.RemoveRows(range(10, 40)))
        at = verified_module._distance(inside(un).engine), inside(un).measured(inside(un).state.theta)
        wanted = sqrt(at[0] * at[1].residual)
        found.append(un)
    assert at[0] < 0.3 * at[1].residual
    return found[1], data.after(ex.RemoveRows(range(10, 40))), wanted


@each_mechanism
@each_intercept
def test_a_distance_within_the_tolerance_will_do_where_the_residual_is_above(
    fit_intercept, mechanism, monkeypatch
):
    """E24: no iterations, and the coefficients are as near as the certificate says."""
    un, left, tolerance = between(fit_intercept=fit_intercept)
    engine = inside(un).engine
    found, forged = verified_module._distance(engine), copy.copy(engine)
    forged.state = engine.state._replace(statistics=None, anchor=None)
    assert verified_module._distance(forged) == found  # what was kept has no part in it
    monkeypatch.setattr(verified_module, "_settled", None)
    held = un.release(1.0, 1e-2, mechanism=mechanism).certificate_
    assert held.residual_bound < held.tolerance == tolerance < held.residual
    X, y, _ = left.rows
    options = "logistic", X, y, None, theta_of(un.model), ALPHA, fit_intercept
    assert 0.0 < coefficients_to_minimum(*options) <= held.residual_bound


def test_noise_in_the_objective_hides_a_residual_and_no_distance():
    """E15: there a distance within the tolerance will not do."""
    _, _, tolerance = between(sigma=1e-4)
    sigma = tolerance / accounting.guo_mu(EPSILON, DELTA)
    un = between(sigma=sigma)[0]
    held = un.release(EPSILON, DELTA, mechanism="objective").certificate_
    assert held.residual + held.floor == held.residual_bound <= held.tolerance
    assert inside(un).measured(inside(un).state.theta).residual > held.tolerance
    output = un.release(EPSILON, DELTA).certificate_
    assert output.residual_bound < output.tolerance < output.residual


# every refusal


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((-1.0, DELTA), {}, "epsilon must be a finite number >= 0"),
        ((np.inf, DELTA), {}, "epsilon must be a finite number >= 0"),
        ((1.0, 0.0), {}, "delta must be a number above 0 and below 1"),
        ((1.0, 1.0), {}, "delta must be a number above 0 and below 1"),
        ((1.0, np.nan), {}, "delta must be a number above 0 and below 1"),
        (("1", DELTA), {}, "epsilon must be"),
        ((1.0, DELTA), {"mechanism": "laplace"}, "unknown mechanism 'laplace'"),
        ((1.0, DELTA), {"against": "nothing"}, "unknown comparison against='nothing'"),
    ],
)
def test_other_arguments_are_refused(arguments, options, message):
    un = unlearner(make_data("logistic"), "logistic", True)
    with pytest.raises(ValueError, match=message):
        un.release(*arguments, **options)


def test_epsilon_of_the_objective_mechanism_is_below_1():
    un, _ = noisy(make_data("logistic"))
    with pytest.raises(ValueError, match=r'0 < epsilon < 1 only.*mechanism="output"'):
        un.release(1.0, DELTA, mechanism="objective")


@each_loss
def test_the_objective_mechanism_needs_noise(loss):
    un = unlearner(make_data(loss), loss, True)
    with pytest.raises(ex.CertificateError, match="trained with noise"):
        un.release(EPSILON, DELTA, mechanism="objective")


@each_mechanism
def test_a_coefficient_above_its_bound_is_refused(mechanism):
    data = make_data("squared")
    largest = np.abs(unlearner(data, "squared", True).model.coef_).max()
    un = unlearner(data, "squared", True, theta_bound=0.9 * largest)
    with pytest.raises(ex.CertificateError, match="a released coefficient exceeds theta_bound"):
        un.release(1.0, DELTA, mechanism=mechanism)
    unlearner(data, "squared", True, theta_bound=1.1 * largest).release(1.0, DELTA, mechanism=mechanism)


@pytest.mark.filterwarnings("ignore:the tolerance")
@each_mechanism
@each_loss
def test_a_tolerance_below_the_rounding_floor_is_refused(loss, mechanism):
    data = make_data(loss)
    data.X[:, 0] *= 1e6
    un = unlearner(data, loss, True)
    before = inside(un).state
    with pytest.raises(ex.CertificateError, match="below 4 times the rounding floor"):
        un.release(1.0, DELTA, mechanism=mechanism)
    assert inside(un).state is before


def test_a_tolerance_of_zero_is_refused():
    data = make_data("squared")
    X, y, _ = data.rows
    with pytest.warns(match="rounding floor"):
        un = ex.Unlearner(ex.Ridge(ALPHA).fit(X, y), X, y, tolerance=0.0)
    with pytest.raises(ex.CertificateError, match="tolerance of 0"):
        un.release(1.0, DELTA)


def test_an_objective_whose_budget_is_below_the_floor_is_refused():
    data = make_data("logistic")
    un, _ = noisy(data, sigma=1e-13)
    with pytest.raises(ex.CertificateError, match="below 4 times the rounding floor"):
        un.release(EPSILON, DELTA, mechanism="objective")


@each_intercept
@each_loss
def test_without_rows_there_is_no_release(loss, fit_intercept):
    un = unlearner(make_data(loss), loss, fit_intercept).detach()
    with pytest.raises(ex.RowsRequired, match="attach"):
        un.release(1.0, DELTA)


def test_a_model_changed_from_outside_is_not_released():
    un = unlearner(make_data("squared"), "squared", True)
    un.model.coef_ = 2.0 * un.model.coef_
    with pytest.raises(ValueError, match="changed outside of this Unlearner"):
        un.release(1.0, DELTA)


def test_an_adopted_model_is_released_as_one_of_ours():
    from sklearn.linear_model import LogisticRegression

    data = make_data("logistic")
    labels = np.array(["no", "yes"])[data.y.astype(int)]
    un = ex.Unlearner(LogisticRegression(C=2.0).fit(data.X, labels), data.X, labels)
    released = un.release(1.0, DELTA)
    assert isinstance(released, ex.LogisticRegression)
    assert_array_equal(released.classes_, ["no", "yes"])
    assert set(released.predict(data.X)) == {"no", "yes"}
