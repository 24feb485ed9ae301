"""Kernels beside the best NumPy and SciPy forms we know (`expunge.benchmark`)."""

import numpy as np
import pytest

from expunge import benchmark as tasks

SHAPES = [(2000, 50), (20000, 100), (50000, 200), (100000, 500), (20000, 1000), (20000, 2000)]

each_shape = pytest.mark.parametrize(("n", "d"), SHAPES)
each_size = pytest.mark.parametrize("d", [50, 100, 200, 500, 1000, 2000])


def rounds_of(n, d):
    """More for shorter ones: from 3 to 51."""
    return int(np.clip(2e10 / (n * d * d), 3, 51))


@each_shape
def test_gram(compare_task, n, d):
    compare_task(tasks.gram(*tasks.dense(n, d)), rounds=rounds_of(n, d))


@each_shape
def test_hessian(compare_task, n, d):
    compare_task(tasks.hessian(*tasks.dense(n, d)), rounds=rounds_of(n, d))


@each_shape
def test_loss_gradient_and_hessian(compare_task, n, d):
    """X is read once, by NumPy four times; the curvature is found anew for its Hessian."""
    compare_task(tasks.loss_gradient_and_hessian(*tasks.dense(n, d)), rounds=rounds_of(n, d))


@each_size
def test_cholesky(compare_task, d):
    compare_task(tasks.factor(*tasks.positive_definite(d)))


@each_size
def test_solve(compare_task, d):
    compare_task(tasks.solve(*tasks.positive_definite(d)), rounds=100)


@pytest.mark.parametrize("edit", [tasks.update, tasks.downdate, tasks.append, tasks.delete])
@pytest.mark.parametrize("d", [50, 100, 500, 1000])
def test_edit(compare_task, edit, d):
    compare_task(edit(*tasks.positive_definite(d)))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("n", "d"), [(100000, 100), (100000, 500)])
def test_loss_and_gradient(compare_task, n, d, dtype):
    compare_task(tasks.loss_and_gradient(*tasks.dense(n, d, dtype)), rounds=7)


@pytest.mark.parametrize("m", [1, 10, 100, 10000])
def test_gradient_difference(compare_task, m):
    compare_task(tasks.gradient_difference(*tasks.dense(m, 100)), rounds=50)
