"""Fixtures that every test file shares."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: pytest's workers share the cores

import pytest
from problems import INTEGERS, NATIVE, REPRESENTATIONS, nothing_densifies

from expunge import _core


@pytest.fixture(params=NATIVE)
def represent(request):
    """A function from a float64 array of float32 numbers to the same X in one representation.

    None of them is made dense while the test runs: make an array of X before, or by `problems.dense`.
    """
    with nothing_densifies():
        yield (REPRESENTATIONS | INTEGERS)[request.param]


@pytest.fixture
def nothing_densified():
    """No sparse matrix is made dense while the test runs."""
    with nothing_densifies():
        yield


@pytest.fixture(params=[False, True], ids=["loads", "gathers"])
def gathers(request):
    """Whether products gather; where there are no gathers, neither does."""
    before = _core.gathers()
    _core.set_gathers(request.param)
    yield
    _core.set_gathers(before)
