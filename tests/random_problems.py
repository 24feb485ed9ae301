"""Random problems for bounds of distances: uneven penalties, an anchor near the minimum, edits."""

import numpy as np
from long_double import coefficients_to_minimum, distance_to_minimum

from expunge import _core

SHAPES = ["plain", "scaled", "heavy tails", "weights", "equal rows", "few rows", "one far row", "no data"]


class RandomProblem:
    """Rows with labels and weights, uneven penalties, and an anchor near the minimum."""

    def __init__(self, seed, loss="logistic"):
        rng = self.rng = np.random.default_rng(seed)
        self.loss, self.shape, self.fit_intercept = loss, SHAPES[seed % len(SHAPES)], bool(rng.integers(2))
        d = int(rng.integers(1, 5))
        n = int(rng.integers(3, 8)) if self.shape == "few rows" else int(rng.integers(10, 50))
        X = rng.standard_t(2.5, size=(n, d)) if self.shape == "heavy tails" else rng.standard_normal((n, d))
        if self.shape == "scaled":
            X *= 10.0 ** rng.uniform(-2, 1, d)
        if self.shape == "equal rows":
            X = X[rng.integers(0, min(3, n), n)]
        if self.shape == "one far row":
            X[2] *= 10.0
        if self.shape == "no data":
            X *= 0.05
        self.s = 10.0 ** rng.uniform(-2, 2, n) if self.shape == "weights" else np.ones(n)
        y = X @ rng.standard_normal(d) + rng.logistic(size=n)
        self.X, self.y = X, y if loss == "squared" else (y > 0) * 1.0
        self.y[:2] = 0.0, 1.0
        self.alpha = 10.0 ** (rng.uniform(-2, 1.5) + rng.uniform(-1, 1, d) * rng.integers(2))
        J = self.objective(self.X, self.y, self.s)
        self.best = _core.minimize(J, np.zeros(d + self.fit_intercept), 1e-9, 200, None, None, None).theta
        size = (1 + np.abs(self.best).max()) * 10.0 ** rng.uniform(-4, 0)
        self.anchor = self.best + size * rng.standard_normal(self.best.size)

    def shift(self, length):
        """Columns have their zero elsewhere, and theta predicts the same."""
        c = length * self.rng.standard_normal(self.X.shape[1])
        self.X = self.X + c
        if self.fit_intercept:
            for theta in (self.best, self.anchor):
                theta[-1] -= c @ theta[:-1]

    def objective(self, X, y, s, ball=None):
        penalty = np.append(self.alpha, np.zeros(int(self.fit_intercept)))
        norm = float(np.sqrt((X**2).sum(axis=1).max()))
        return _core.Objective([(X, y, s)], self.loss, penalty, self.fit_intercept, None, norm, ball=ball)

    def statistics(self, ball=None):
        J = self.objective(self.X, self.y, self.s, ball)
        at, floor = J.evaluate(self.anchor), J.rounding_floor(self.anchor)
        norm = float(np.sqrt((self.X**2).sum(axis=1).max()))
        return _core.AnchoredStatistics(J, _core.Anchor(J, self.anchor), at, floor, norm)

    def edited(self, statistics):
        """One or two rows leave, another one comes; folded or not."""
        gone = np.zeros(len(self.y), dtype=bool)
        gone[self.rng.integers(2, len(self.y), 1 + self.rng.integers(2))] = True
        came = 1.5 * self.X[:1], np.zeros(1), np.full(1, 2.0)
        parts = self.X, self.y, self.s
        left = [tuple(np.ascontiguousarray(part[gone]) for part in parts)]
        fold = bool(self.rng.integers(2))
        statistics, _ = statistics.edit(left, [came], None, self.anchor, fold)
        self.X, self.y, self.s = (np.concatenate([p[~gone], c]) for p, c in zip(parts, came, strict=True))
        return statistics

    def coefficients(self, theta):
        """How far they are from the minimum's, times the least penalty."""
        options = self.alpha, self.fit_intercept
        return coefficients_to_minimum(self.loss, self.X, self.y, self.s, theta, *options)

    def distance(self, theta):
        """From theta to the minimum, in standard errors."""
        options = self.alpha, self.fit_intercept
        return distance_to_minimum(self.loss, self.X, self.y, self.s, theta, *options)


def one_far_row(weight, eta, alpha):
    """A row far from the boundary, with nothing else: curvature falls, or rises, as fast as it may."""
    X, y, s, theta = np.array([[2.0]]), np.ones(1), np.full(1, weight), np.array([eta / 2.0])
    J = _core.Objective([(X, y, s)], "logistic", np.full(1, alpha), False, largest_norm=2.0)
    at = J.evaluate(theta)
    return J, theta, _core.AnchoredStatistics(J, _core.Anchor(J, theta), at, 1e-18, 2.0), (X, y, s)
