"""Two threads beside NumPy and SciPy, whose BLAS has two as well. SciPy's sparse products have one."""

import pytest
from bench_kernels import each_shape, rounds_of
from bench_sparse import SHAPES, real_or_hashed

from expunge import benchmark as tasks

each_csr = pytest.mark.parametrize("shape", ["drebin", *SHAPES])


@pytest.fixture(autouse=True)
def two_threads(one_thread):
    with tasks.use_threads(2):
        yield


@each_shape
def test_gram(compare_task, n, d):
    compare_task(tasks.gram(*tasks.dense(n, d)), rounds=rounds_of(n, d))


@each_csr
def test_csr_loss_and_gradient(compare_task, shape):
    compare_task(tasks.loss_and_gradient(*real_or_hashed(shape)))


@each_csr
def test_csr_hessian_vector_product(compare_task, shape):
    compare_task(tasks.hvp(*real_or_hashed(shape)))
