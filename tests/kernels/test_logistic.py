"""The logistic loss, row by row: what a kernel makes of a margin, through its vectorised loops."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse

from expunge import kernels

pytestmark = pytest.mark.isa


# The logistic loss, row by row: what a kernel makes of a margin, through its vectorised loops


each_class = pytest.mark.parametrize("y", [0.0, 1.0])


def logistic_d1(y, eta):
    """(n,), through X = I: each coordinate of the gradient is that of one row."""
    return kernels.gradient(sparse.eye_array(len(eta), format="csr"), np.full(len(eta), y), eta, alpha=0.0)


def logistic_d2(y, eta):  # whatever y (E6)
    return kernels.hvp(sparse.eye_array(len(eta), format="csr"), eta, np.ones(len(eta)), alpha=0.0)


def logistic_value(y, eta):
    """(n,), each among 15 rows of its own vector that have weight 0."""
    values = []
    for first in range(0, len(eta), 16):
        rows = eta[first : first + 16, None]
        for s in np.eye(len(rows)):
            targets = np.full(len(rows), y)
            J, _ = kernels.loss_and_gradient(rows, targets, [1.0], alpha=0.0, sample_weight=s)
            values.append(J)
    return np.array(values)


def exact_logistic(name, y, eta):
    """In long double."""
    sign = 1 - 2 * np.longdouble(y)
    z = sign * eta.astype(np.longdouble)
    e = np.exp(-np.abs(z))
    if name == "value":
        return np.maximum(z, 0) + np.log1p(e)
    return sign * np.where(z > 0, 1, e) / (1 + e) if name == "d1" else e / (1 + e) ** 2


def ulps(found, exact):
    """Errors in units of the spacing of doubles at `exact`, denormals included."""
    exponent = np.maximum(np.frexp(np.abs(exact))[1].astype(int) - 53, -1074)
    return np.abs(found.astype(np.longdouble) - exact) / np.ldexp(np.longdouble(1), exponent)


def margins(n, seed):
    """Of both signs up to 745: many near 0, and on both sides of where a power of two is passed."""
    rng = np.random.default_rng(seed)
    octave = np.log(2.0) * np.arange(1, 1075)
    places = np.concatenate([octave, octave - 0.5 * np.log(2.0)])
    m = np.concatenate(
        [
            [
                0.0,
                745.0,
                4.8520144033812045,
                5.54512987085282,
            ],  # the last two: where d2 was worst in a search
            np.nextafter(places, 0.0),
            places,
            np.nextafter(places, 800.0),
            np.geomspace(5e-324, 1.0, n),
            rng.choice(octave[:60], n) - rng.uniform(0.0, 1e-3, n),  # e^-m right above a power of two
            rng.uniform(0.0, 8.0, n),
            rng.uniform(0.0, 745.0, n),
        ]
    )
    m = m[m <= 745.0]
    return np.concatenate([m, -m])


@pytest.mark.slow
@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double is no longer than double")
@each_class
@pytest.mark.parametrize(
    ("name", "found", "n"),
    [
        ("value", logistic_value, 2_000),
        ("d1", logistic_d1, 100_000),
        ("d2", logistic_d2, 100_000),
    ],
    ids=["value", "d1", "d2"],
)
def test_the_logistic_loss_is_within_4_ulp_at_every_margin(name, found, n, y):
    eta = margins(n, seed=11)
    error = ulps(found(y, eta), exact_logistic(name, y, eta))
    worst = int(np.argmax(error))
    assert error[worst] <= 4.0, f"{float(error[worst]):.2f} ulp at eta = {eta[worst]!r}"


@each_class
def test_the_logistic_loss_has_exact_tails(y):
    """A mistake costs its margin and has slope 1; from e^-745.2 < 2^-1075 on, what is left of it is 0."""
    for margin in (745.2, 746.0, 800.0, 1e5, 1e308):
        z = np.array([margin, -margin])  # the first is a mistake
        eta = (1.0 - 2.0 * y) * z
        assert_array_equal(logistic_value(y, eta), [margin, 0.0])
        assert_array_equal(logistic_d1(y, eta), [1.0 - 2.0 * y, 0.0])
        assert_array_equal(logistic_d2(y, eta), [0.0, 0.0])
    least = np.array([-745.1])  # e^-745.1 rounds to the least denormal
    assert_array_equal(logistic_d1(0.0, least), [2.0**-1074])
    assert_array_equal(logistic_d2(0.0, least), [2.0**-1074])


@each_class
def test_a_margin_that_overflows_costs_infinity_or_nothing(y):
    """x and theta are finite, and their product is not."""
    for theta in (1e200, -1e200):
        mistake = (1.0 - 2.0 * y) * theta > 0.0
        J, g = kernels.loss_and_gradient([[1e200]], [y], [theta], alpha=0.0)
        assert_array_equal(J, np.inf if mistake else 0.0)
        assert_array_equal(g, [(1.0 - 2.0 * y) * 1e200 if mistake else 0.0])
        assert_array_equal(kernels.hvp([[1e200]], [theta], [1.0], alpha=0.0), [0.0])
