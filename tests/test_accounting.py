"""expunge.accounting: (ε, δ) of a shift in Gaussian noise and its inverses, against 60 digits (E14, E15)."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad, trapezoid
from scipy.special import erfcx, log_ndtr, ndtr

from expunge.accounting import _profile, compose, delta, epsilon, guo_mu, log_delta, mu

EPSILONS = [0.0, 1e-6, 1e-3, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0]
DELTAS = [1e-300, 1e-200, 1e-100, 1e-50, 1e-20, 1e-10, 1e-5, 0.01, 0.1, 0.5, 0.9, 1 - 1e-6]
LOWEST = math.log(1e-300)

each_epsilon = pytest.mark.parametrize("eps", EPSILONS)
epsilons = st.sampled_from(EPSILONS) | st.floats(1e-12, 50) | st.floats(-12, 1.7).map(lambda e: 10.0**e)
mus = st.floats(-12, 1.3).map(lambda e: 10.0**e)


def exact_log_delta(eps, ratio):
    """E14 as it stands, of the floats that are given."""
    cancelled = 2 * abs(math.log10(ratio)) + 2 * math.log10(1 + eps / ratio)
    with mpmath.workdps(60 + int(cancelled)):
        eps, ratio = mpmath.mpf(eps), mpmath.mpf(ratio)
        a, b = ratio / 2 - eps / ratio, -ratio / 2 - eps / ratio
        return mpmath.log(mpmath.ncdf(a) - mpmath.exp(eps) * mpmath.ncdf(b))


def ratio_at(eps, t):
    """The mu at which ε/mu − mu/2 is t; log δ is about −t²/2 where t is large."""
    root = math.sqrt(t * t + 2 * eps)
    return 2 * eps / (root + t) if t > 0 else root - t


def ratios(eps):
    """mu at which δ goes from 1e-300 to nearly 1."""
    if eps == 0:
        return [10.0**k for k in range(-299, -20, 20)] + list(np.logspace(-16, 1.2, 60))
    return [ratio_at(eps, t) for t in np.linspace(-8, 36.9, 120)]


def error(value, eps, ratio):
    """Relative error of a δ that is given as its logarithm."""
    return abs(float(mpmath.expm1(value - exact_log_delta(eps, ratio))))


# δ(ε, μ)


@each_epsilon
def test_delta_is_exact_from_1e_minus_300_to_1(eps):
    points = [(ratio, exact_log_delta(eps, ratio)) for ratio in ratios(eps)]
    logs = [log for _, log in points]
    assert min(logs) < LOWEST + 10
    assert max(logs) > -1e-10
    for ratio, exact in points:
        if exact >= LOWEST:
            assert abs(mpmath.mpf(delta(eps, ratio)) / mpmath.exp(exact) - 1) <= 1e-11
            assert abs(log_delta(eps, ratio) - exact) <= 1e-11
            # and where 1 - δ is small, log δ keeps its digits
            assert abs(log_delta(eps, ratio) / exact - 1) <= 1e-11


def gaussian_excess(eps, ratio):
    """Φ(a) − e^ε Φ(b), also at ε < 0."""
    return ndtr(ratio / 2 - eps / ratio) - math.exp(eps) * ndtr(-ratio / 2 - eps / ratio)


def plain(eps, ratio):
    return math.log(max(1e-320, gaussian_excess(eps, ratio)))


def by_logarithms(eps, ratio):
    x = log_ndtr(ratio / 2 - eps / ratio)
    return x + math.log1p(-min(1 - 1e-17, math.exp(eps + log_ndtr(-ratio / 2 - eps / ratio) - x)))


def by_scaled_tails(eps, ratio):
    near, far = eps / ratio - ratio / 2, eps / ratio + ratio / 2
    scaled = (erfcx(near / math.sqrt(2)) - erfcx(far / math.sqrt(2))) / 2
    return math.log(max(1e-320, scaled)) - near**2 / 2


def without_epsilon(eps, ratio):
    return log_delta(0.0, ratio)


def without_half(eps, ratio):
    return log_delta(eps, 2 * ratio)


@pytest.mark.parametrize("wrong", [plain, by_logarithms, by_scaled_tails, without_epsilon, without_half])
def test_forms_that_lose_digits_and_wrong_ones_are_told_from_ours(wrong):
    points = [(eps, ratio) for eps in (1e-6, 1e-3, 1.0, 50.0) for ratio in (1e-8, 1e-7, 1e-5, 1e-3, 0.3, 5.0)]
    points = [(eps, ratio) for eps, ratio in points if exact_log_delta(eps, ratio) > LOWEST]
    assert len(points) >= 8
    assert max(error(log_delta(*point), *point) for point in points) <= 1e-11
    assert max(error(wrong(*point), *point) for point in points) > 1e-9


# Where one form of δ gives way to another: mu = 0.01 and mu = 0.01 near, a = 0, near = 50 with small mu
SEAMS = [
    *((eps, 0.01) for eps in (0.0, 1e-6, 1e-3, 0.005)),
    *((0.01 * t * t * 1.005, 0.01 * t) for t in (1.0, 2.0, 10.0, 30.0)),
    *((eps, math.sqrt(2 * eps)) for eps in (1e-6, 1e-4, 0.01, 1.0, 50.0)),
    *((50 * ratio, ratio) for ratio in (1e-8, 1e-3, 0.4, 0.6)),
]


@pytest.mark.parametrize(("eps", "ratio"), SEAMS)
def test_delta_is_exact_where_one_form_gives_way_to_another(eps, ratio):
    for side in (1 - 1e-9, 1.0, 1 + 1e-9):
        assert error(log_delta(eps, ratio * side), eps, ratio * side) <= 1e-11, side


@given(eps=st.floats(-12, 12).map(lambda e: 10.0**e), t=st.floats(-40, 60))
@settings(max_examples=400, deadline=None)
def test_rounding_is_within_its_bound(eps, t):
    ratio = ratio_at(eps, t)
    value, rounding = _profile(eps, ratio)
    assert abs(value - exact_log_delta(eps, ratio)) <= rounding
    if eps <= 50 and value >= LOWEST:
        assert rounding <= 1e-11


@given(eps=st.floats(1e-8, 1e4), exponent=st.floats(-11, 4))
@example(eps=1.0, exponent=-9.9999)  # on either side of 1e10, from where on −near²/2 is all
@example(eps=1.0, exponent=-10.0001)
@settings(max_examples=300, deadline=None)
def test_the_logarithm_goes_on_below_the_smallest_float(eps, exponent):
    ratio = 10.0**exponent
    exact = exact_log_delta(eps, ratio)
    assume(exact < LOWEST)
    assert abs(log_delta(eps, ratio) / exact - 1) <= 1e-13
    assert delta(eps, ratio) <= 1.01e-300


def test_nothing_and_everything():
    for eps in (*EPSILONS, 1e12, 1e300):
        assert delta(eps, 0.0) == 0.0
        assert log_delta(eps, 0.0) == -math.inf
        assert delta(eps, math.inf) == 1.0
        assert log_delta(eps, math.inf) == 0.0
    assert log_delta(1.0, 1e-200) == -math.inf  # the logarithm is below the lowest float
    assert log_delta(1e300, 1e-10) == -math.inf
    assert delta(1e300, 1e200) == 1.0
    assert delta(0.0, 1e300) == 1.0
    assert_close(log_delta(0.0, 5e-324), math.log(5e-324) - math.log(2 * math.pi) / 2)


def assert_close(value, expected, rtol=1e-12):
    assert abs(value - expected) <= rtol * abs(expected)


@pytest.mark.parametrize(
    ("eps", "ratio"), [(0.0, 0.3), (0.1, 0.03), (1.0, 1.0), (1.0, 0.4), (5.0, 2.0), (2.0, 4.0)]
)
def test_delta_is_what_the_definition_says(eps, ratio):
    """The most of P(T) − e^ε Q(T) over events T is the integral of the positive part of p − e^ε q."""

    x = np.linspace(-40.0, 40.0, 800_001)

    def most(p, q):
        excess = np.exp(-((x - p) ** 2) / 2) - np.exp(eps - (x - q) ** 2 / 2)
        return trapezoid(np.maximum(excess, 0.0), x) / math.sqrt(2 * math.pi)

    assert_close(delta(eps, ratio), most(ratio, 0.0), 1e-6)
    assert_close(delta(eps, ratio), most(0.0, ratio), 1e-6)


@given(eps=epsilons, ratio=mus, more=st.floats(1e-6, 1))
@settings(max_examples=400, deadline=None)
def test_delta_grows_with_mu_and_falls_with_epsilon(eps, ratio, more):
    value, rounding = _profile(eps, ratio)
    assume(-1e9 < value < -1e-9)
    assert log_delta(eps, ratio * (1 + more)) > value - rounding
    assert log_delta(eps + more * ratio, ratio) < value + rounding
    if more >= 0.01:
        assert log_delta(eps, ratio * (1 + more)) > value
        assert log_delta(eps + more * ratio, ratio) < value


# Its inverses


@each_epsilon
def test_mu_is_the_greatest_and_never_above_it(eps):
    """Oracle: δ(1 − 1e-9) ≤ δ(ε, mu*) ≤ δ."""
    for d in DELTAS:
        exact = exact_log_delta(eps, mu(eps, d))
        assert exact <= mpmath.log(mpmath.mpf(d)), d
        assert sum(_profile(eps, mu(eps, d))) <= math.log(d), d  # the rounding was taken off
        assert mpmath.exp(exact) >= mpmath.mpf(d) * (1 - mpmath.mpf(1e-9)), d
        if d <= 0.5:  # it can fail from the other side
            assert exact_log_delta(eps, mu(eps, d) * (1 + 1e-9)) > mpmath.log(mpmath.mpf(d)), d


@pytest.mark.parametrize("ratio", [1e-12, 1e-6, 1e-3, 0.1, 0.268051, 1.0, 3.0, 10.0])
def test_epsilon_is_the_least_and_never_below_it(ratio):
    for d in DELTAS:
        eps = epsilon(d, ratio)
        exact = exact_log_delta(eps, ratio)
        assert exact <= mpmath.log(mpmath.mpf(d)), d
        assert sum(_profile(eps, ratio)) <= math.log(d), d  # the rounding was added
        if eps > 0:
            assert mpmath.exp(exact) >= mpmath.mpf(d) * (1 - mpmath.mpf(1e-9)), d
            if d <= 0.5:  # it can fail from the other side
                assert exact_log_delta(eps - 1e-9 * max(eps, ratio), ratio) > mpmath.log(mpmath.mpf(d)), d
        assert (eps > 0) == (exact_log_delta(0.0, ratio) > mpmath.log(mpmath.mpf(d))), d


@pytest.mark.slow
@given(eps=epsilons, log10=st.floats(-300, -1e-3))
@settings(max_examples=300, deadline=None)
def test_the_inverses_are_safe_and_sharp_everywhere(eps, log10):
    d = 10.0**log10
    ratio = mu(eps, d)
    assert d * (1 - 1e-9) <= mpmath.exp(exact_log_delta(eps, ratio)) <= d
    # each undoes the other
    there = epsilon(d, ratio)
    assert d * (1 - 1e-9) <= mpmath.exp(exact_log_delta(there, ratio)) <= d or there == 0.0
    assert abs(there - eps) <= 1e-9 * max(eps, ratio)
    assert ratio * (1 - 1e-9) <= mu(there, d)


@pytest.mark.slow
@given(eps=st.floats(2, 300).map(lambda e: 10.0**e), log10=st.floats(-300, -1e-3))
@settings(max_examples=100, deadline=None)
def test_mu_is_safe_at_any_epsilon(eps, log10):
    """Digits of ε/mu − mu/2 are lost there, and are taken off."""
    ratio = mu(eps, 10.0**log10)
    assert ratio > ratio_at(eps, 40) * (1 - 1e-9)  # where δ is 1e-349
    assert exact_log_delta(eps, ratio) <= mpmath.log(mpmath.mpf(10.0**log10))


def test_ends_of_the_inverses():
    assert epsilon(1e-5, 0.0) == 0.0
    assert epsilon(1e-5, 2e-5) == 0.0
    assert epsilon(1e-5, 3e-5) > 0.0
    assert epsilon(1e-5, math.inf) == math.inf
    assert epsilon(1e-5, 1e200) == math.inf  # about mu²/2, which is no float
    assert_close(epsilon(1e-5, 1e100), 5e199, 1e-6)
    assert_close(mu(0.0, 1e-300), math.sqrt(2 * math.pi) * 1e-300, 1e-11)
    assert 0 < mu(0.0, 5e-324) < 1e-322
    assert 36 < 1 / mu(1.0, 5e-324) < 40
    assert mu(1e10, 1e-300) > 1e5


def test_values_to_compare_with():
    """Of Balle and Wang's mechanism and Guo et al.'s conversion."""
    assert round(mu(1.0, 1e-5), 6) == 0.268051
    assert round(1 / mu(1.0, 1e-5), 5) == 3.73063
    assert round(1 / mu(0.1, 1e-5), 2) == 30.75
    assert round(1 / guo_mu(0.1, 1e-5), 2) == 48.82
    assert round(0.5 / guo_mu(0.5, 0.01), 4) == 3.1656


# Guo et al.'s conversion


@given(eps=st.floats(1e-12, 1, exclude_max=True), log10=st.floats(-323, -1e-12))
@example(eps=math.nextafter(1.0, 0.0), log10=-323.0)
@example(eps=math.nextafter(1.0, 0.0), log10=-1e-12)
@example(eps=1e-12, log10=-1e-12)
@settings(max_examples=300, deadline=None)
def test_guo_asks_for_no_less_noise_than_is_needed(eps, log10):
    d = 10.0**log10
    assert 0 < guo_mu(eps, d) < mu(eps, d)


def test_guo_beyond_its_theorem_would_promise_too_much():
    """Why epsilon >= 1 is refused: the formula goes on, and is false from some ε on."""
    eps, d = 8.0, 0.01
    assert exact_log_delta(eps, eps / math.sqrt(2 * math.log(1.5 / d))) > math.log(1.44 * d)


# Composition


def two_releases(eps, first, second):
    """δ of both at once: what a first x leaves of ε goes to the second, whose ratio may depend on x."""

    def given_first(x):
        left = eps - (first * x - first**2 / 2)
        return math.exp(-((x - first) ** 2) / 2) / math.sqrt(2 * math.pi) * gaussian_excess(left, second(x))

    return quad(given_first, first - 12, first + 12, points=[0.0], epsabs=0, epsrel=1e-11, limit=400)[0]


@pytest.mark.parametrize("eps", [0.0, 0.5, 1.0, 2.0])
def test_composed_releases_are_those_of_one_shift(eps):
    assert_close(two_releases(eps, 0.6, lambda x: 0.8), delta(eps, compose([0.6, 0.8])), 1e-9)
    # a second release chosen after a look at the first gains nothing
    assert two_releases(eps, 0.6, lambda x: 0.8 if x > 0 else 0.3) <= delta(eps, compose([0.6, 0.8]))
    assert two_releases(eps, 0.6, lambda x: 0.8) > 1.01 * delta(eps, max(0.6, 0.8))


def test_compose():
    assert compose([]) == 0.0
    assert compose([0.7]) == 0.7
    assert compose(iter([3.0, 4.0])) == 5.0
    assert compose([3e-200, 4e-200]) == 5e-200
    assert compose([0.1, math.inf]) == math.inf
    assert_close(compose([0.1] * 10_000), 10.0)


# What is refused


NOT_EPSILON = [-1e-300, -1.0, math.inf, math.nan, None, "1", 1j, np.ones(2)]
NOT_DELTA = [0.0, 1.0, -0.1, 1.5, math.inf, math.nan, None, "0.1"]
NOT_MU = [-1e-300, -math.inf, math.nan, None, "1"]


@pytest.mark.parametrize("bad", NOT_EPSILON, ids=repr)
def test_an_epsilon_out_of_range_is_refused(bad):
    for call in (delta, log_delta, mu, guo_mu):
        with pytest.raises(ValueError, match=r"^epsilon must be a finite number >= 0, got "):
            call(bad, 0.1)


@pytest.mark.parametrize("bad", NOT_DELTA, ids=repr)
def test_a_delta_out_of_range_is_refused(bad):
    for call in (lambda d: mu(0.5, d), lambda d: guo_mu(0.5, d), lambda d: epsilon(d, 0.5)):
        with pytest.raises(ValueError, match=r"^delta must be a number above 0 and below 1, got "):
            call(bad)


@pytest.mark.parametrize("bad", NOT_MU, ids=repr)
def test_a_mu_out_of_range_is_refused(bad):
    for call in (lambda m: delta(0.5, m), lambda m: log_delta(0.5, m), lambda m: epsilon(0.5, m)):
        with pytest.raises(ValueError, match=r"^mu must be a number >= 0, got "):
            call(bad)
    with pytest.raises(ValueError, match=r"^mus\[1\] must be a number >= 0, got "):
        compose([0.1, bad, 0.2])


@pytest.mark.parametrize("eps", [0.0, 1.0, 1, 50.0])
def test_guo_is_refused_where_its_theorem_is_not_proved(eps):
    with pytest.raises(ValueError, match=r'0 < epsilon < 1 only, got .*: use mechanism="output"'):
        guo_mu(eps, 1e-5)


def test_numbers_of_every_kind_give_floats():
    for one in (1, np.float64(1.0), np.float32(1.0), np.int64(1)):
        values = (delta(one, one), log_delta(one, one), mu(one, 1e-5), epsilon(1e-5, one), compose([one]))
        assert [type(value) for value in values] == [float] * 5
        assert values == (delta(1.0, 1.0), log_delta(1.0, 1.0), mu(1.0, 1e-5), epsilon(1e-5, 1.0), 1.0)


def test_the_former_name_of_the_module_still_imports():
    from expunge import accounting, certificate

    assert all(getattr(certificate, name) is getattr(accounting, name) for name in accounting.__all__)
