"""Kernels share their work among threads: results of the twins, the same bits for any number, after fork."""

import multiprocessing
import os
import threading

import numpy as np
import pytest
from numpy.testing import assert_allclose
from problems import CLASSIC, in_pairs
from scipy import sparse
from starting import each_start

import expunge as ex
from expunge import kernels, reference
from expunge.losses import LOSSES

COUNTS = (1, 2, 3, 7)


@pytest.fixture(autouse=True)
def threads_as_before():
    before = ex.get_num_threads()
    yield
    ex.set_num_threads(before)


def rows(loss="logistic", n=6000, d=40, form=np.array, seed=0):
    """Enough entries for threads to share."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) * (rng.random((n, d)) < 0.9)
    eta = X @ rng.standard_normal(d)
    y = eta + rng.standard_normal(n) if loss == "squared" else (rng.random(n) < 1 / (1 + np.exp(-eta)))
    return form(X), y.astype(np.float64)


FORMS = {
    "C": np.array,
    "F": np.asfortranarray,
    "float32": lambda X: X.astype(np.float32),
    "csr": sparse.csr_array,
    "csr float32": lambda X: sparse.csr_array(X.astype(np.float32)),
}


def results(X, y):
    """What each kernel that walks over rows gives, as bytes."""
    d = X.shape[1]
    theta, v, w = np.linspace(-1, 1, d), np.linspace(2, -1, d), y - 0.3
    value, gradient = kernels.loss_and_gradient(X, y, theta, alpha=1.0)
    return [
        np.float64(value).tobytes(),
        gradient.tobytes(),
        kernels.hvp(X, theta, v, alpha=1.0).tobytes(),
        kernels.hessian(X, theta, alpha=1.0).tobytes(),
        *(np.asarray(part).tobytes() for part in kernels.loss_gradient_and_hessian(X, y, theta, alpha=1.0)),
        kernels.gram(X, w).tobytes(),
        np.float64(kernels.rounding_floor(X, y, theta, alpha=1.0)).tobytes(),
    ]


@pytest.mark.isa
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_kernels_give_the_same_bits_for_any_number_of_threads(form):
    X, y = rows(form=form)
    found = []
    for count in COUNTS:
        ex.set_num_threads(count)
        found.append(results(X, y))
    assert all(one == found[0] for one in found)


# Beside the twins of `expunge.reference`, with several threads

U = 2.0**-53
WIDE = 2**18 + 5  # columns, above which products take two passes (E21)


class Sums:
    """The twins' sums over rows, and what rounding may make of them in whatever order they are added.

    The bounds are those of E19 with all n rows in the place of the additions, and hold of each coordinate:
    they need not know how many threads there are, or what BLAS does for the twin. `own` is what a term goes
    through beside: its loss, within 4 ulp, weight, root and products.
    """

    own = 16

    def __init__(self, X, y, s, theta, loss):
        self.A = np.column_stack([X, np.ones(len(X))])
        self.s, self.loss = s, LOSSES[loss]
        self.size = np.abs(self.A)
        n, p = self.A.shape
        self.k, self.p = n + self.own, p + 2
        eta = self.A @ theta
        self.r, self.d2 = np.abs(self.loss.d1(y, eta)), self.loss.d2(y, eta)
        self.value, self.y = self.loss.value(y, eta), y
        self.eta_rounding = self.p * (self.size @ np.abs(theta))
        # |d3| is at most d2 and its maximum
        self.d2_rounding = np.minimum(self.d2, self.loss.max_d3) * self.eta_rounding

    def of_value(self, penalty, theta):
        rows = self.k * self.value + self.r * self.eta_rounding
        return 2.0 * U * (self.s @ rows + (len(theta) + 4.0) * (penalty @ theta**2))

    def of_gradient(self, penalty=0.0, theta=0.0):
        """(p,)"""
        rows = self.k * self.r + self.loss.d1_rounding(self.r, self.eta_rounding, self.y)
        return 2.0 * U * (self.size.T @ (self.s * rows) + 4.0 * np.abs(penalty * theta))

    def of_product(self, penalty, v):
        """(p,), of H v"""
        rows = ((self.k + self.p) * self.d2 + self.d2_rounding) * (self.size @ np.abs(v))
        return 2.0 * U * (self.size.T @ (self.s * rows) + 4.0 * np.abs(penalty * v))

    def of_hessian(self, penalty=0.0):
        """(p, p)"""
        rows = self.s * (self.k * self.d2 + self.d2_rounding)
        return (
            2.0
            * U
            * (
                self.size.T @ (rows[:, None] * self.size)
                + 4.0 * np.diag(np.broadcast_to(penalty, len(self.size.T)))
            )
        )

    def of_floor(self):
        """Relative."""
        return 2.0 * U * (self.k + self.p + self.eta_rounding.max())


def within(found, expected, bound):
    __tracebackhide__ = True
    assert np.shape(found) == np.shape(expected)
    excess = np.abs(np.subtract(found, expected)) - bound
    assert np.all(excess <= 0.0), f"{np.max(excess):.1e} above the bound"


def for_each_count():
    for count in COUNTS[:3]:
        ex.set_num_threads(count)
        yield count


def problem(loss, form=np.array, **size):
    """X as kernels get it and as the twins do, y, s, theta and v, intercept last."""
    X, y = rows(loss, form=form, **size)
    rng = np.random.default_rng(1)
    s = rng.uniform(0.0, 2.0, len(y)) * (rng.random(len(y)) < 0.9)
    twin = np.asarray(X.toarray() if sparse.issparse(X) else X, dtype=np.float64)
    return X, twin, y, s, *rng.standard_normal((2, X.shape[1] + 1)) / np.sqrt(X.shape[1])


def panel_rows(X):
    """E21"""
    n, d = X.shape
    return max(256, min(n, int(8.0 * d * n / (X.nnz + 1.0)))) if sparse.issparse(X) else 256


SIZES = {"rows": {"n": 6000, "d": 40}, "columns": {"n": 300, "d": 1024}}  # threads share either of the two


@pytest.mark.slow
@pytest.mark.isa
@in_pairs(form=FORMS, loss=CLASSIC, size=SIZES)
def test_kernels_that_share_rows_equal_their_twins_for_any_number_of_threads(monkeypatch, form, loss, size):
    X, twin, y, s, theta, v = problem(loss, form, **size)
    assert (X.nnz if sparse.issparse(X) else X.size) > 2e5
    monkeypatch.setattr(reference, "SUMMED_TOGETHER", panel_rows(X))
    alpha = 0.75
    penalty = np.append(np.full(X.shape[1], alpha), 0.0)
    objective = {"alpha": alpha, "loss": loss, "sample_weight": s, "fit_intercept": True}
    bound = Sums(twin, y, s, theta, loss)
    J, g = reference.loss_and_gradient(twin, y, theta, **objective)
    H, Hv = reference.hessian(twin, theta, **objective), reference.hvp(twin, theta, v, **objective)
    floor = reference.rounding_floor(twin, y, theta, **objective)
    w = s - 0.7
    G, natural = reference.gram(twin, w), (np.abs(twin).T * np.abs(w)) @ np.abs(twin)
    before, after = (X, y, s), (X, 1.0 - y, s[::-1].copy())
    change = reference.gradient_difference(
        (twin, *before[1:]), (twin, *after[1:]), theta, loss=loss, fit_intercept=True
    )
    of_change = bound.of_gradient() + Sums(twin, *after[1:], theta, loss).of_gradient()
    for _ in for_each_count():
        value, gradient = kernels.loss_and_gradient(X, y, theta, **objective)
        within(value, J, bound.of_value(penalty, theta))
        within(gradient, g, bound.of_gradient(penalty, theta))
        within(kernels.gradient(X, y, theta, **objective), g, bound.of_gradient(penalty, theta))
        within(kernels.hessian(X, theta, **objective), H, bound.of_hessian(penalty))
        within(kernels.hvp(X, theta, v, **objective), Hv, bound.of_product(penalty, v))
        within(kernels.gram(X, w), G, 2.0 * U * bound.k * natural)
        difference = kernels.gradient_difference(before, after, theta, loss=loss, fit_intercept=True)
        within(difference, change, of_change)
        found = kernels.rounding_floor(X, y, theta, **objective) / floor
        if sparse.issparse(X):  # which has a tenth fewer terms to add than cells
            assert 0.5 <= found <= 1.0 + bound.of_floor()
        else:
            assert_allclose(found, 1.0, rtol=bound.of_floor(), atol=0.0)


@pytest.mark.slow
@pytest.mark.isa
@pytest.mark.parametrize("loss", CLASSIC)
def test_products_of_a_wide_matrix_equal_their_twins_for_any_number_of_threads(monkeypatch, loss):
    """Entries in 300 of the columns: the twins take these, and the others have nothing but a penalty."""
    narrow, twin, y, s, theta, v = problem(loss, sparse.csr_array, n=24_000, d=300)
    used = np.sort(np.random.default_rng(2).choice(WIDE, 300, replace=False))
    X = sparse.csr_array((narrow.data, used[narrow.indices], narrow.indptr), shape=(len(y), WIDE))
    assert len(y) > 2 * panel_rows(X)  # three panels: there is something to share
    monkeypatch.setattr(reference, "SUMMED_TOGETHER", panel_rows(X))
    seen = np.append(used, WIDE)
    rng = np.random.default_rng(3)
    wide_theta, wide_v = rng.standard_normal((2, WIDE + 1))
    wide_theta[seen], wide_v[seen] = theta, v
    alpha = 0.75
    penalty = np.append(np.full(300, alpha), 0.0)
    objective = {"alpha": alpha, "loss": loss, "sample_weight": s, "fit_intercept": True}
    bound = Sums(twin, y, s, theta, loss)
    J, g = reference.loss_and_gradient(twin, y, theta, **objective)
    Hv = reference.hvp(twin, theta, v, **objective)
    unseen = np.setdiff1d(np.arange(WIDE), used)
    J += 0.5 * alpha * wide_theta[unseen] @ wide_theta[unseen]
    everywhere = np.append(np.full(WIDE, alpha), 0.0)

    change = reference.gradient_difference((twin, y, s), None, theta, loss=loss, fit_intercept=True)
    floor = reference.rounding_floor(twin, y, theta, **(objective | {"alpha": 0.0}))
    of_penalty = 4.0 * U * np.linalg.norm(everywhere * wide_theta)
    for _ in for_each_count():
        value, gradient = kernels.loss_and_gradient(X, y, wide_theta, **objective)
        within(value, J, bound.of_value(everywhere, wide_theta))
        product = kernels.hvp(X, wide_theta, wide_v, **objective)
        for found, expected, tolerance, vector in (
            (gradient, g, bound.of_gradient(penalty, theta), wide_theta),
            (
                kernels.gradient(X, y, wide_theta, **objective),
                g,
                bound.of_gradient(penalty, theta),
                wide_theta,
            ),
            (product, Hv, bound.of_product(penalty, v), wide_v),
        ):
            within(found[seen], expected, tolerance)
            assert np.array_equal(found[unseen], alpha * vector[unseen])
        difference = kernels.gradient_difference((X, y, s), None, wide_theta, loss=loss, fit_intercept=True)
        within(difference[seen], change, bound.of_gradient())
        assert not difference[unseen].any()
        found = kernels.rounding_floor(X, y, wide_theta, **objective)
        assert 0.5 * floor <= found <= (floor + of_penalty) * (1.0 + bound.of_floor())


@pytest.mark.isa
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_statistics_equal_their_twin_for_any_number_of_threads(form):
    """7,000 rows, of which 1,000 leave at once and one by itself: g and H, and a step from them (E9)."""
    X, twin, y, s, theta, _ = problem("logistic", form, n=7000, d=40)
    objective = {"alpha": 0.75, "fit_intercept": True}
    expected = reference.AnchoredStatistics(twin, y, theta, sample_weight=s, **objective)
    gone = [slice(0, 1000), slice(5000, 5001)]
    for part in gone:
        expected.subtract(twin[part], y[part], s[part])
    bound = Sums(twin, y, s, theta, "logistic")
    penalty = np.append(np.full(40, 0.75), 0.0)
    of_g, of_H = 3.0 * bound.of_gradient(penalty, theta), 3.0 * bound.of_hessian(penalty)  # came, or went
    step = expected.theta() - theta
    values = np.linalg.eigvalsh(expected.hessian)
    # H step = g with both a little off, and solved by two Cholesky factors: Higham's 4 p u |L||L^T|
    solved = 2.0 * 4.0 * len(theta) ** 2 * U * values[-1] * np.linalg.norm(step)
    of_step = (np.linalg.norm(of_g) + np.linalg.norm(of_H) * np.linalg.norm(step) + solved) / values[0]
    for _ in for_each_count():
        statistics = kernels.AnchoredStatistics(X, y, theta, sample_weight=s, **objective)
        for part in gone:
            statistics.subtract(X[part], y[part], s[part])
        within(statistics.gradient, expected.gradient, of_g)
        within(statistics.hessian, expected.hessian, of_H)
        assert np.linalg.norm(statistics.theta() - expected.theta()) <= of_step
        assert statistics.residual_bound() >= expected.residual_bound() * (
            1.0 - 1e-9
        )  # it has terms for rounding


@pytest.mark.slow
@pytest.mark.isa
def test_factors_equal_their_twins_for_any_number_of_threads():
    """p = 1,100, and as many columns as make threads worth it, in a matrix of condition 100."""
    p, k, condition = 1100, 300, 100.0
    rng = np.random.default_rng(4)
    Q, _ = np.linalg.qr(rng.standard_normal((p + 1, p + 1)))
    larger = (Q * np.geomspace(1.0, condition, p + 1)) @ Q.T
    larger = (larger + larger.T) / 2
    H, V = larger[:p, :p], rng.standard_normal((p, k)) / np.sqrt(p * k)
    B = rng.standard_normal((p, 20))
    # Of each factor, backward error (p + k + 1) u |L||L^T|, and L moves by cond(H) times as much.
    bound = 2.0 * (p + k + 1) * U * (1.0 + np.linalg.norm(V, 2) ** 2) * condition

    edits = {
        "nothing": lambda factor: None,
        "update": lambda factor: factor.update(V),
        "downdate": lambda factor: (factor.update(V), factor.downdate(V)),
        "append": lambda factor: factor.append(larger[p]),
        "delete": lambda factor: factor.delete(200),
    }
    twins = {}
    for name, edit in edits.items():
        twins[name] = reference.CholeskyFactor(H)
        edit(twins[name])
    solution = twins["nothing"].solve(B)
    for _ in for_each_count():
        for name, edit in edits.items():
            factor = kernels.CholeskyFactor(H)
            edit(factor)
            expected = twins[name].lower
            assert np.linalg.norm(factor.lower - expected) <= bound * np.linalg.norm(expected), name
        solved = kernels.CholeskyFactor(H).solve(B)
        assert np.linalg.norm(solved - solution) <= 4.0 * bound * np.linalg.norm(solution)


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("form", [np.array, sparse.csr_array], ids=["dense", "csr"])
def test_fits_and_requests_give_the_same_bits_for_any_number_of_threads(form, loss, solver):
    X, y = rows(loss, form=form)
    kind = ex.Ridge if loss == "squared" else ex.LogisticRegression
    found = []
    for count in COUNTS[:3]:
        ex.set_num_threads(count)
        model = kind(solver=solver).fit(X, y)
        un = ex.Unlearner(model, X, y, tolerance=1e-6)
        updates = [
            un.apply(request)
            for request in (
                ex.RemoveRows(range(10, 2010)),
                ex.CorrectValues([3], [1], 0.5),
                ex.RevokeFeatures([7]),
                ex.RemoveRows([5]),
            )
        ]
        released = un.release(1.0, 1e-5, random_state=0)
        arrays = [model.coef_, released.coef_, released.intercept_, *(update.step for update in updates)]
        found.append([np.asarray(array).tobytes() for array in arrays])
    assert all(one == found[0] for one in found)


def test_the_number_of_threads_is_what_was_asked_for():
    for count in COUNTS:
        ex.set_num_threads(count)
        assert ex.get_num_threads() == count
    ex.set_num_threads(np.int64(2))
    assert ex.get_num_threads() == 2


@pytest.mark.parametrize("count", [0, -1, 257, 1.5, True, "2", None])
def test_other_numbers_are_refused(count):
    before = ex.get_num_threads()
    with pytest.raises(ValueError, match="count must be an integer from 1 to 256"):
        ex.set_num_threads(count)
    assert ex.get_num_threads() == before


def at_import(*environments, code=""):
    """get_num_threads() of a fresh process for each environment; `code` runs before the import."""
    code = f"{code}\nimport expunge; print(expunge.get_num_threads())"
    return each_start(code, *environments, without=["EXPUNGE_NUM_THREADS"])


@pytest.mark.slow
def test_the_environment_says_how_many():
    wrongs = ("0", "many", "-1", "1.5", "999", "")
    right, *refused = at_import(*({"EXPUNGE_NUM_THREADS": asked} for asked in ("3", *wrongs)))
    assert right.stdout.strip() == "3"
    for wrong, done in zip(wrongs, refused, strict=True):
        assert done.returncode == 1
        assert f"EXPUNGE_NUM_THREADS={wrong!r}: expected an integer from 1 to 256" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity of processes")
def test_affinity_is_honoured():
    """Of a process whose cores are set by itself, as by whatever started it."""
    cores = sorted(os.sched_getaffinity(0))
    one = f"import os\nif os.environ.get('ONE_CORE'): os.sched_setaffinity(0, [{cores[0]}])"
    all_of_them, alone = at_import({}, {"ONE_CORE": "1"}, code=one)
    assert all_of_them.stdout.strip() == str(min(len(cores), 256))
    assert alone.stdout.strip() == "1"


def _in_child(queue, X, y):
    queue.put((ex.get_num_threads(), results(X, y)))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_child_works_with_threads_of_its_own():
    X, y = rows()
    ex.set_num_threads(3)
    expected = results(X, y)  # the pool is there
    context = multiprocessing.get_context("fork")
    for _ in range(5):
        queue = context.Queue()
        child = context.Process(target=_in_child, args=(queue, X, y))
        child.start()
        assert queue.get(timeout=60) == (3, expected)
        child.join(60)
        assert child.exitcode == 0
    assert results(X, y) == expected


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_fork_in_the_midst_of_a_kernel_leaves_a_child_that_works():
    X, y = rows()
    ex.set_num_threads(3)
    expected, stop = results(X, y), threading.Event()

    def busy():
        while not stop.is_set():
            results(X, y)

    worker = threading.Thread(target=busy)
    worker.start()
    context = multiprocessing.get_context("fork")
    try:
        for _ in range(5):
            queue = context.SimpleQueue()
            child = context.Process(target=_in_child, args=(queue, X, y))
            child.start()
            child.join(60)
            assert child.exitcode == 0
            assert queue.get() == (3, expected)
    finally:
        stop.set()
        worker.join(60)


def test_several_threads_of_the_caller_share_the_pool():
    X, y = rows()
    ex.set_num_threads(2)
    expected, wrong = results(X, y), []

    def call():
        for _ in range(10):
            if results(X, y) != expected:
                wrong.append(threading.get_ident())

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for count in (1, 3, 2) * 5:
        ex.set_num_threads(count)
    for caller in callers:
        caller.join(60)
    assert wrong == []
