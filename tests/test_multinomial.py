"""The multinomial loss: NumPy twins against finite differences, mpmath and cases whose answer is known."""

from itertools import chain

import numpy as np
import pytest
from numpy.testing import assert_allclose
from problems import central_difference

from expunge import _core, reference
from expunge import reference_multinomial as multinomial

each_K = pytest.mark.parametrize("K", [2, 3, 10])
with_and_without_intercept = pytest.mark.parametrize("fit_intercept", [False, True])


def problem(K, fit_intercept, n=60, d=4, seed=0, size=1.0):
    """X (n, d), y (n,), s (n,), theta (K, p)"""
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(K), rng.integers(0, K, n - K)])
    theta = size * rng.standard_normal((K, d + fit_intercept))
    return rng.standard_normal((n, d)), y, rng.uniform(0.5, 2.0, n), theta


def native(X, y, s, K, alpha, fit_intercept):
    penalty = np.append(np.full(X.shape[1], alpha), np.zeros(int(fit_intercept)))
    block = (np.ascontiguousarray(X), y.astype(np.float64), s)
    return _core.Objective([block], "softmax", np.tile(penalty, K), fit_intercept, outputs=K)


@each_K
@with_and_without_intercept
def test_gradient_and_hessian_by_finite_differences(K, fit_intercept):
    X, y, s, theta = problem(K, fit_intercept)
    how = {"alpha": 0.7, "sample_weight": s, "fit_intercept": fit_intercept}
    v = np.random.default_rng(1).standard_normal(theta.shape)
    slope = central_difference(lambda t: multinomial.loss_and_gradient(X, y, theta + t * v, **how)[0], 1e-3)
    assert_allclose(slope, np.sum(v * multinomial.gradient(X, y, theta, **how)), rtol=1e-8)
    product = central_difference(lambda t: multinomial.gradient(X, y, theta + t * v, **how), 1e-3)
    assert_allclose(product, multinomial.hvp(X, theta, v, **how), rtol=1e-8, atol=1e-8)
    H = multinomial.hessian(X, theta, **how)
    assert_allclose(H @ v.ravel(), multinomial.hvp(X, theta, v, **how).ravel(), rtol=1e-12, atol=1e-12)


@each_K
@with_and_without_intercept
def test_the_native_functions_are_their_twins(K, fit_intercept):
    X, y, s, theta = problem(K, fit_intercept)
    how = {"alpha": 0.7, "sample_weight": s, "fit_intercept": fit_intercept}
    J = native(X, y, s, K, 0.7, fit_intercept)
    value, g = multinomial.loss_and_gradient(X, y, theta, **how)
    at = J.evaluate(theta.ravel())
    assert_allclose(at.value, value, rtol=1e-14)
    assert_allclose(at.gradient, g.ravel(), rtol=1e-12, atol=1e-12)
    assert_allclose(J.hessian(theta.ravel()), multinomial.hessian(X, theta, **how), rtol=1e-12, atol=1e-12)
    assert_allclose(
        J.rounding_floor(theta.ravel()), multinomial.rounding_floor(X, y, theta, **how), rtol=1e-9
    )


@pytest.mark.parametrize("size", [1.0, 30.0, 800.0])
def test_the_rounding_floor_bounds_the_error_of_the_gradient(size):  # E32
    mpmath = pytest.importorskip("mpmath")
    for K in (2, 3, 5):
        X, y, s, theta = problem(K, True, n=40, size=size)
        got = native(X, y, s, K, 0.7, True).evaluate(theta.ravel()).gradient
        with mpmath.workdps(60):
            total = [[mpmath.mpf(0)] * 5 for _ in range(K)]
            for x, label, weight in zip(X, y, s, strict=True):
                row = [*map(mpmath.mpf, x), mpmath.mpf(1)]
                eta = [mpmath.fsum(a * mpmath.mpf(b) for a, b in zip(row, t, strict=True)) for t in theta]
                e = [mpmath.exp(x - max(eta)) for x in eta]
                for k in range(K):
                    r = mpmath.mpf(weight) * (e[k] / mpmath.fsum(e) - int(k == label))
                    total[k] = [a + r * b for a, b in zip(total[k], row, strict=True)]
            for k in range(K):
                for j in range(4):
                    total[k][j] += mpmath.mpf(0.7) * mpmath.mpf(theta[k, j])
            error = mpmath.sqrt(mpmath.fsum((a - b) ** 2 for a, b in zip(got, chain(*total), strict=True)))
        floor = native(X, y, s, K, 0.7, True).rounding_floor(theta.ravel())
        assert float(error) <= floor < 1e-8


def test_probabilities_near_0_and_1_keep_their_digits():
    for gap in (40.0, 300.0, 700.0):
        value, r, p = multinomial.slopes([0], [[gap, 0.0, -1.0]])
        small = np.exp(-gap) * (1.0 + np.exp(-1.0))
        assert_allclose([value[0], -r[0, 0]], small, rtol=1e-14)
        assert_allclose(multinomial.pairs(p)[0, 0, 0], small, rtol=1e-14)
        value, r, _ = multinomial.slopes([2], [[gap, 0.0, -1.0]])
        assert_allclose(value[0], gap + 1.0)
        assert r[0, 2] == -1.0


def test_two_classes_under_twice_the_penalty_are_the_binary_model():
    X, y, s, w = problem(2, True)
    w = w[1]
    theta = np.vstack([-0.5 * w, 0.5 * w])
    how = {"sample_weight": s, "fit_intercept": True}
    value, g = multinomial.loss_and_gradient(X, y, theta, alpha=1.4, **how)
    expected, binary = reference.loss_and_gradient(X, y.astype(float), w, alpha=0.7, **how)
    assert_allclose(value, expected, rtol=1e-12)
    assert_allclose(g, [-binary, binary], rtol=1e-12, atol=1e-12)


def test_the_order_of_classes_permutes_rows_of_theta_alone():
    X, y, s, theta = problem(4, True)
    order = np.array([2, 0, 3, 1])  # class k becomes order[k]
    g = multinomial.gradient(X, y, theta, alpha=0.7, sample_weight=s, fit_intercept=True)
    other = multinomial.gradient(
        X, order[y], theta[np.argsort(order)], alpha=0.7, sample_weight=s, fit_intercept=True
    )
    assert_allclose(other[order], g, rtol=1e-12, atol=1e-13)


@each_K
def test_the_residual_bound_is_sharp(K):  # E30: equal rows, two classes that share all probability
    x, gap, rho = np.array([2.0, 0.0]), -8.0, 1e-3
    theta = np.zeros((K, 2))
    theta[:2] = [[0.5 * gap / 2.0, 0.0], [-0.5 * gap / 2.0, 0.0]]
    theta[2:] = -60.0
    p = multinomial.slopes([0], (theta @ x)[None])[2]
    delta = np.zeros((K, 2))
    delta[0], delta[1] = rho * x / 8.0, -rho * x / 8.0
    t = delta @ x
    W = multinomial.pairs(p)[0]
    after = multinomial.slopes([0], ((theta + delta) @ x)[None])[2]
    remainder = np.outer(after[0] - p[0] - W @ t, x)
    bound = multinomial.residual_bound(2.0, delta, float(t @ W @ t))
    assert 0.99 <= np.linalg.norm(remainder) / bound <= 1.0 + 1e-6


@each_K
def test_the_residual_bound_holds_at_random(K):
    rng = np.random.default_rng(K)
    for _ in range(300):
        n, d = int(rng.integers(1, 8)), int(rng.integers(1, 5))
        X, s = rng.standard_normal((n, d)), 10.0 ** rng.uniform(-2, 2, n)
        theta, delta = (
            2.0 * rng.standard_normal((K, d)),
            rng.standard_normal((K, d)) * 10.0 ** rng.uniform(-3, 0),
        )
        y = np.zeros(n)
        how = {"alpha": 0.0, "sample_weight": s}
        H = multinomial.hessian(X, theta, **how)
        g = multinomial.gradient(X, y, theta, **how).ravel() + H @ delta.ravel()
        remainder = multinomial.gradient(X, y, theta + delta, **how).ravel() - g
        R, q = np.linalg.norm(X, axis=1).max(), float(delta.ravel() @ H @ delta.ravel())
        assert np.linalg.norm(remainder) <= multinomial.residual_bound(R, delta, q) * (1.0 + 1e-9) + 1e-13


def best_intercepts(X, y, s, coef, start):
    """Where the gradient of the intercepts (K,) is 0: damped Newton steps."""

    def at(theta_0):
        value, r, p = multinomial.slopes(y, X @ coef.T + theta_0)
        return s @ value, s @ r, np.einsum("i,ikl->kl", s, multinomial.pairs(p))

    theta_0 = start
    for _ in range(200):
        value, g, H = at(theta_0)
        if np.abs(g).max() < 1e-12 * s.sum():
            break
        step, t = -np.linalg.pinv(H, rcond=1e-14, hermitian=True) @ g, 1.0
        while at(theta_0 + t * step)[0] > value + 1e-4 * t * (g @ step) and t > 1e-9:
            t *= 0.5
        theta_0 = theta_0 + t * step
    return theta_0


def test_the_profile_bound_holds_at_random():  # E31
    rng = np.random.default_rng(7)
    for K in (2, 3, 4, 6):
        for seed in range(40):
            X, y, s, theta = problem(K, True, n=int(rng.integers(K + 2, 40)), d=3, seed=seed)
            X = X * 10.0 ** rng.uniform(-1, 0.5, 3)
            g = multinomial.gradient(X, y, theta, alpha=0.3, sample_weight=s, fit_intercept=True)
            best = best_intercepts(X, y, s, theta[:, :-1], theta[:, -1])
            there = np.column_stack([theta[:, :-1], best])
            profile = multinomial.gradient(X, y, there, alpha=0.3, sample_weight=s, fit_intercept=True)
            residual, R = np.linalg.norm(profile[:, :-1]), np.linalg.norm(X, axis=1).max()
            assert np.abs(profile[:, -1]).max() < 1e-6 * s.sum()
            assert residual <= multinomial.profile_bound(g, R) * (1.0 + 1e-6)


@pytest.mark.parametrize("K", [3, 4, 6])
def test_a_chain_of_classes_attains_the_profile_bound_and_breaks_that_of_two_classes(K):
    # Between neighbours k, k + 1 lies a row at (-1)^k of p = 1/2. A gradient (1, 0, ..., -1) of the
    # intercepts runs through all of them.
    X = np.array([[(-1.0) ** k] for k in range(K - 1)])
    eta = np.full((K - 1, K), -200.0)
    for k in range(K - 1):
        eta[k, k] = eta[k, k + 1] = 0.0
    p = multinomial.slopes(np.zeros(K - 1), eta)[2]
    W = multinomial.pairs(p)
    e = 1e-6
    g_0 = np.zeros(K)
    g_0[0], g_0[-1] = e, -e
    delta = -np.linalg.pinv(W.sum(axis=0)) @ g_0
    after = multinomial.slopes(np.zeros(K - 1), eta + delta)[2]
    moved = (after - p).T @ X  # of the coefficients' gradient, which was 0
    g = np.column_stack([np.zeros((K, 1)), g_0])
    ratio = np.linalg.norm(moved) / multinomial.profile_bound(g, 1.0)
    assert 0.999 <= ratio <= 1.0 + 1e-5
    assert np.linalg.norm(moved) > 1.2 * np.linalg.norm(g_0)  # the form of two classes is false
