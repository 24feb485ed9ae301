"""Nothing is computed from arguments that do not fit; and the GIL is released."""

import threading
import time
from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from problems import flat, float32_values, in_families

from expunge import kernels, reference
from expunge.losses import LOSSES

pytestmark = pytest.mark.isa


# Errors: nothing is computed from arguments that do not fit


def arguments():
    rng = np.random.default_rng(9)
    return {
        "X": rng.standard_normal((100, 3)),
        "y": np.arange(100) % 2.0,
        "theta": rng.standard_normal(3),
        "v": rng.standard_normal(3),
        "alpha": np.ones(3),
        "sample_weight": np.ones(100),
        "loss": "logistic",
        "fit_intercept": False,
    }


POSITIONAL = {
    "hessian": ("X", "theta"),
    "gradient": ("X", "y", "theta"),
    "loss_and_gradient": ("X", "y", "theta"),
    "loss_gradient_and_hessian": ("X", "y", "theta"),
    "hvp": ("X", "theta", "v"),
    "rounding_floor": ("X", "y", "theta"),
}

each_kernel = pytest.mark.parametrize("kernel", POSITIONAL)


def call(kernel, **changes):
    given = arguments() | changes
    named = {name: given[name] for name in ("alpha", "sample_weight", "loss", "fit_intercept")}
    return getattr(kernels, kernel)(*(given[name] for name in POSITIONAL[kernel]), **named)


def kernels_taking(argument):
    return [kernel for kernel in POSITIONAL if argument in (*POSITIONAL[kernel], "alpha", "sample_weight")]


@each_kernel
def test_the_arguments_of_the_error_cases_are_themselves_right(kernel):
    call(kernel)


LAYOUTS = {
    "strided": lambda a: np.repeat(a, 2)[::2],
    "reversed": lambda a: a[::-1].copy()[::-1],
    "float32": lambda a: a.astype(np.float32),
    "big-endian": lambda a: a.astype(">f8"),
    "read-only": lambda a: np.frombuffer(a.tobytes()),
    "list": lambda a: a.tolist(),
}


@each_kernel
def test_vectors_are_taken_in_every_layout(kernel):
    given = {
        name: float32_values(value)
        for name, value in arguments().items()
        if name in ("y", "theta", "v", "alpha", "sample_weight")
    }
    expected = flat(call(kernel, **given))
    for lay_out in LAYOUTS.values():
        laid_out = {name: lay_out(value) for name, value in given.items()}
        assert_array_equal(flat(call(kernel, **laid_out)), expected)


@each_kernel
@pytest.mark.parametrize(("n", "d"), [(0, 3), (0, 0), (4, 0)])
def test_no_rows_and_no_columns_are_nothing_to_refuse(kernel, n, d):
    empty = {"X": np.ones((n, d)), "y": np.ones(n), "sample_weight": np.ones(n)}
    call(kernel, **empty, theta=np.ones(d), v=np.ones(d), alpha=np.ones(d))


def test_without_columns_an_intercept_is_left(represent):
    X, y, theta = np.ones((700, 0)), np.arange(700) % 2.0, np.array([0.3])
    objective = {"alpha": 1.0, "fit_intercept": True}
    found = kernels.loss_gradient_and_hessian(represent(X), y, theta, **objective)
    expected = (
        *reference.loss_and_gradient(X, y, theta, **objective),
        reference.hessian(X, theta, **objective),
    )
    assert_allclose(flat(found), flat(expected), rtol=1e-13)
    assert_allclose(kernels.hessian(represent(X), theta, **objective), expected[2], rtol=1e-13)


WRONG_SHAPES = {
    "X": [(100,), (100, 3, 1)],
    "y": [(99,), (101,), (100, 1)],
    "theta": [(4,), (2,), (3, 1)],
    "v": [(4,)],
    "alpha": [(2,), (4,), (3, 1)],
    "sample_weight": [(99,), (100, 1)],
}


@pytest.mark.parametrize(
    ("argument", "kernel"),
    [(argument, kernel) for argument in WRONG_SHAPES for kernel in kernels_taking(argument)],
)
def test_wrong_shapes_are_named(kernel, argument):
    for shape in WRONG_SHAPES[argument]:
        with pytest.raises(ValueError) as caught:
            call(kernel, **{argument: np.ones(shape)})
        assert f"{argument} has shape {shape}, expected " in str(caught.value)


@pytest.mark.parametrize("kernel", ["gradient", "loss_and_gradient", "rounding_floor"])
def test_the_message_of_a_wrong_shape(kernel):
    with pytest.raises(ValueError) as caught:
        call(kernel, y=np.ones(99))
    assert str(caught.value).startswith("y has shape (99,), expected (100,) to match X")


@each_kernel
def test_theta_must_make_room_for_the_intercept(kernel):
    call(kernel, fit_intercept=True, theta=np.ones(4), v=np.ones(4))
    with pytest.raises(ValueError) as caught:
        call(kernel, fit_intercept=True)
    assert "theta has shape (3,), expected (4,)" in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "kernel"),
    [(argument, kernel) for argument in WRONG_SHAPES for kernel in kernels_taking(argument)],
)
def test_non_finite_numbers_are_refused(kernel, argument):
    for position, bad in product((0, -1), (np.nan, np.inf, -np.inf)):
        array = arguments()[argument].astype(np.float64)
        array.flat[position] = bad
        with pytest.raises(ValueError, match=argument):
            call(kernel, **{argument: array})


@each_kernel
@in_families
def test_non_finite_rows_are_refused_in_every_representation(kernel, represent):
    """Also where nothing else of the result would show it: a margin of +inf has a derivative of 0."""
    given = arguments()
    X, y = float32_values(given["X"]), given["y"]
    for bad in (np.nan, np.inf, -np.inf):
        for row in np.flatnonzero(y == 0)[-1], np.flatnonzero(y == 1)[-1]:
            spoiled, weightless = X.copy(), np.ones(100)
            spoiled[row, 1], weightless[row] = bad, 0.0
            for theta in (np.ones(3), -np.ones(3)):
                for s in (None, weightless):
                    with pytest.raises(ValueError, match="X contains NaN or infinity"):
                        call(kernel, X=represent(spoiled), theta=theta, sample_weight=s)


@each_kernel
@pytest.mark.parametrize("argument", ["sample_weight", "alpha"])
def test_negative_weights_and_penalties_are_refused(kernel, argument):
    array = arguments()[argument]
    array[-1] = -1e-3
    with pytest.raises(ValueError, match=argument):
        call(kernel, **{argument: array})


@each_kernel
def test_a_negative_scalar_alpha_is_refused(kernel):
    with pytest.raises(ValueError, match="alpha"):
        call(kernel, alpha=-1.0)


@each_kernel
def test_an_unknown_loss_is_refused_with_the_known_ones(kernel):
    with pytest.raises(ValueError, match="hinge") as caught:
        call(kernel, loss="hinge")
    assert all(name in str(caught.value) for name in LOSSES)


@pytest.mark.parametrize("kernel", ["gradient", "loss_and_gradient", "rounding_floor"])
@pytest.mark.parametrize("bad", [-1.0, 0.5, 2.0])
def test_logistic_targets_outside_of_zero_and_one_are_refused(kernel, bad):
    y = arguments()["y"]
    y[42] = bad
    with pytest.raises(ValueError, match=r"\{0, 1\}"):
        call(kernel, y=y)
    call(kernel, y=y, loss="squared")


@pytest.mark.parametrize("kernel", ["gradient", "loss_and_gradient", "rounding_floor"])
def test_no_targets_are_refused(kernel):
    with pytest.raises(ValueError, match="y has shape"):
        call(kernel, y=None)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": None}, "y has shape"),
        ({"y": np.ones(99)}, r"\(99,\)"),
        ({"sample_weight": np.ones(99)}, r"\(99,\)"),
        ({"X": np.ones((100, 4))}, "X"),
        ({"X": np.full((100, 3), np.nan)}, "X"),
        ({"y": np.full(100, np.nan)}, "y"),
        ({"y": np.full(100, 2.0)}, r"\{0, 1\}"),
        ({"sample_weight": np.full(100, np.inf)}, "sample_weight"),
        ({"sample_weight": np.full(100, -1.0)}, "sample_weight must not be negative"),
    ],
)
def test_gradient_difference_refuses_rows_that_do_not_fit(side, changes, message):
    given = arguments()
    right = given["X"], given["y"], given["sample_weight"]
    given |= changes
    rows = [right, right]
    rows[side] = given["X"], given["y"], given["sample_weight"]
    with pytest.raises(ValueError, match=message):
        kernels.gradient_difference(*rows, given["theta"])


@pytest.mark.parametrize("y", [np.nan, np.inf, -np.inf])
def test_gradient_difference_of_squared_losses_refuses_targets_that_are_not_finite(y):
    given = arguments()
    side = given["X"], np.full(100, y)
    with pytest.raises(ValueError, match="y contains NaN or infinity"):
        kernels.gradient_difference(side, None, given["theta"], loss="squared")


@pytest.mark.parametrize("wrong", [list, lambda side: side[:1], lambda side: (*side, None, None)])
def test_gradient_difference_refuses_what_is_no_pair_or_triple(wrong):
    given = arguments()
    side = given["X"], given["y"]
    other = given["X"].copy(), given["y"]
    for sides in ((wrong(side), side), (side, wrong(side)), (side, wrong(other)), (None, wrong(side))):
        with pytest.raises(ValueError, match="before and after are tuples"):
            kernels.gradient_difference(*sides, given["theta"])


@pytest.mark.parametrize("theta", [np.ones(4), np.array([1.0, np.nan, 1.0])])
def test_gradient_difference_refuses_a_theta_that_does_not_fit(theta):
    given = arguments()
    with pytest.raises(ValueError):
        kernels.gradient_difference((given["X"], given["y"]), None, theta)


@pytest.mark.parametrize("w", [np.ones(99), np.full(100, np.nan), np.full(100, np.inf)])
def test_gram_refuses_weights_that_do_not_fit(w):
    with pytest.raises(ValueError, match="w"):
        kernels.gram(arguments()["X"], w)


@pytest.mark.parametrize("shape", [(100, 3), (3, 100)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("w", [0.0, -2.0, 5e-324])
def test_gram_refuses_what_is_not_finite_in_a_row_of_any_weight(shape, bad, w):
    X, weights = np.ones(shape), np.ones(shape[0])
    X[2, 1], weights[2] = bad, w
    with pytest.raises(ValueError, match="X contains"):
        kernels.gram(X, weights)


# The GIL


def factor_job(size):
    H = np.ones((900 * size, 900 * size))
    H.flat[:: len(H) + 1] += len(H)
    return lambda: kernels.CholeskyFactor(H)


def gram_job(size):
    X = np.ones((3000 * size, 768))
    w = np.ones(len(X))
    return lambda: kernels.gram(X, w)


@pytest.mark.slow
@pytest.mark.parametrize("make_job", [factor_job, gram_job])
def test_the_gil_is_released(make_job):
    """The main thread keeps ticking: held for the kernel's duration, the GIL would leave one gap as long."""
    for size in (1, 2, 3, 4, 6, 8, 12, 16):
        job = make_job(size)
        start = time.perf_counter()
        job()
        if time.perf_counter() - start >= 0.2:
            break
    else:
        pytest.skip("the kernel is too fast to be seen on this machine")

    for _ in range(5):  # a busy machine may stall the main thread too, but not every time
        span = []

        def timed(job=job, span=span):
            start = time.perf_counter()
            job()
            span.extend((start, time.perf_counter()))

        thread = threading.Thread(target=timed)
        ticks = []
        thread.start()
        while thread.is_alive():
            ticks.append(time.perf_counter())
            time.sleep(0.001)
        thread.join()
        start, stop = span
        inside = [tick for tick in ticks if start <= tick <= stop]
        largest_gap = np.diff([start, *inside, stop]).max()
        if largest_gap < 0.4 * (stop - start):
            return
    pytest.fail(f"the main thread stood still for {largest_gap:.2f} s of {stop - start:.2f} s")
