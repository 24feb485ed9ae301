"""Kernels beside the machine: shares of the multiply-add peak and of reading memory, one thread."""

from time import perf_counter

import numpy as np
import pytest

from expunge import _core, kernels
from expunge import benchmark as tasks


def shares(kernel, work, rate, rounds, clock):
    """Of what the machine does in the same round, by the same clock: quartiles."""
    kernel()
    found = []
    for _ in range(rounds):
        begun = clock()
        kernel()
        spent = clock() - begun
        begun, on_wall = clock(), perf_counter()
        peak = rate()  # by the clock on the wall
        peak *= (perf_counter() - on_wall) / (clock() - begun)
        found.append(work / spent / peak)
    return np.quantile(found, [0.25, 0.5, 0.75])


@pytest.mark.parametrize(("n", "d"), [(100000, 500), (20000, 1000), (20000, 2000)])
def test_share_of_arithmetic(record_line, clock, n, d):
    X, *_ = tasks.dense(n, d)
    w = np.random.default_rng(0).random(n)
    low, share, high = shares(lambda: kernels.gram(X, w), n * d * (d + 1), _core.arithmetic_rate, 5, clock)
    record_line(f"gram {n} x {d}: {share:.0%} of the multiply-add peak ({low:.0%} to {high:.0%})")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("n", "d"), [(100000, 100), (100000, 500)])
def test_share_of_bandwidth(record_line, clock, n, d, dtype):
    X, y, theta = tasks.dense(n, d, dtype)
    numbers = np.ones(10_000_000)
    low, share, high = shares(
        lambda: kernels.loss_and_gradient(X, y, theta, alpha=1.0),
        X.nbytes,
        lambda: _core.reading_rate(numbers),
        9,
        clock,
    )
    record_line(f"loss and gradient {n} x {d}, {dtype}: {share:.0%} of reading ({low:.0%} to {high:.0%})")
