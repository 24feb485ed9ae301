"""What unlearning is judged by: the data after requests, by NumPy indexing, and retraining on them."""

import copy
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from problems import CLASSIC, dense, float32_values, retrain, sparse_values
from scipy import sparse

import expunge as ex
from expunge import reference
from expunge.engine.state import Promise

ALPHA = 0.5
TOLERANCE = 1e-8  # that tests promise: so near is hardly further away than rounding
METHODS = {
    "auto": {},
    "exact": {"method": "exact"},
    "corrected": {"method": "second_order"},
    "original": {"method": "second_order", "hessian": "original"},
    "first_order": {"method": "first_order"},
}

each_loss = pytest.mark.parametrize("loss", CLASSIC)
each_intercept = pytest.mark.parametrize("fit_intercept", [False, True], ids=["plain", "intercept"])
each_weighting = pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
each_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


@dataclass(frozen=True)
class Data:
    """Every row and column ever handed over, and which of them are still in the data."""

    X: np.ndarray
    y: np.ndarray
    s: np.ndarray
    live: np.ndarray
    kept: np.ndarray
    weighted: bool

    def after(self, *requests):
        """The data with these requests granted."""
        data = copy.deepcopy(self)
        for request in requests:
            data = data.granted(request)
        return data

    def granted(self, request):
        match request:
            case ex.RemoveRows():
                self.live[request.rows] = False
            case ex.CorrectLabels():
                self.y[request.rows] = request.labels
            case ex.CorrectValues():
                rows, columns = map(np.arange, self.X.shape)
                self.X[np.ix_(rows[request.rows], columns[request.columns])] = request.values
            case ex.RevokeFeatures():
                self.kept[request.columns] = False
            case ex.AddRows():
                X = np.zeros((request.X.shape[0], self.X.shape[1]))
                X[:, self.kept] = dense(request.X)
                s = np.ones(len(X)) if request.sample_weight is None else request.sample_weight
                joined = sparse.vstack([self.X, X], format="csr") if sparse.issparse(self.X) else None
                return Data(
                    np.vstack([self.X, X]) if joined is None else joined,
                    np.append(self.y, request.y),
                    np.append(self.s, s),
                    np.append(self.live, np.ones(len(X), dtype=bool)),
                    self.kept,
                    self.weighted or request.sample_weight is not None,
                )
        return self

    def renumbered(self):
        """What is left, its rows and columns numbered from 0."""
        X, y, s = self.rows
        live, kept = np.ones(len(y), dtype=bool), np.ones(X.shape[1], dtype=bool)
        return Data(X, y, np.ones(len(y)) if s is None else s, live, kept, self.weighted)

    @property
    def rows(self):
        """X (n, d), y (n,), sample_weight (n,) or None."""
        s = self.s[self.live] if self.weighted else None
        return self.X[self.live][:, self.kept], self.y[self.live], s


def make_data(loss, *, weighted=False, n=60, d=6, seed=0, zeros=False):
    """With `zeros` most of X is 0."""
    rng = np.random.default_rng([seed, n, d, len(loss)])
    X = sparse_values(rng, n, d) if zeros else float32_values(rng.standard_normal((n, d)))
    eta = X @ rng.standard_normal(d) + 0.5
    if loss == "squared":
        y = float32_values(eta + 0.5 * rng.standard_normal(n))
    else:
        y = (rng.uniform(size=n) < 1.0 / (1.0 + np.exp(-eta))).astype(np.float64)
        y[:2] = 0.0, 1.0
    s = np.ones(n)
    if weighted:
        s = float32_values(rng.uniform(0.5, 2.0, n))
        s[5::13] = 0.0
    return Data(X, y, s, np.ones(n, dtype=bool), np.ones(d, dtype=bool), weighted)


def unlearner(
    data,
    loss,
    fit_intercept,
    *,
    alpha=ALPHA,
    tolerance=TOLERANCE,
    represent=np.array,
    column_index=False,
    theta_bound=100.0,
    **parameters,
):
    X, y, s = data.rows
    X = represent(X)
    kind = ex.Ridge if loss == "squared" else ex.LogisticRegression
    model = kind(alpha, fit_intercept=fit_intercept, tol=tolerance, **parameters).fit(X, y, s)
    options = {"column_index": column_index, "theta_bound": theta_bound}
    return ex.Unlearner(model, X, y, s, tolerance=tolerance, **options)


class Inside:
    """What an Unlearner holds behind its public face. No other place of the tests names its private parts."""

    def __init__(self, un):
        self._un = un

    @property
    def engine(self):
        return self._un._fitted.engine

    @property
    def state(self):
        """theta, its evaluation, anchor and statistics."""
        return self.engine.state

    @property
    def statistics(self):
        """The anchored statistics; None where none are kept."""
        return self.state.statistics

    @property
    def since_anchor(self):
        """Requests since the statistics were anchored."""
        return self.state.effort.requests

    @property
    def effort(self):
        """Requests and passes since the statistics were anchored, and the passes that these saved."""
        return self.state.effort

    @property
    def hessian_is_current(self):
        """Whether the anchor is the Hessian of the current data at its own theta."""
        return self.state.hessian_is_current

    @property
    def gram(self):
        """The bound of |S^1/2 X|^2 that was last asked for, and what requests since may have added."""
        return self.state.gram

    @property
    def held(self):
        """The data, attached or not."""
        return self.engine.data

    @property
    def data(self):
        """The data with their rows; raises where the Unlearner is detached."""
        return self._un._fitted.rows().data

    @property
    def problem(self):
        """Loss, alpha, intercept, classes and noise."""
        return self.engine.problem

    @problem.setter
    def problem(self, problem):
        self.engine.problem = problem

    @property
    def noise(self):
        """The noise of the objective over all columns that were ever handed over, or None."""
        return self.problem.noise

    @property
    def loss(self):
        return self.problem.row_loss

    @property
    def lock(self):
        return self._un._lock

    @property
    def tolerance(self):
        return self.engine.tolerance

    @tolerance.setter
    def tolerance(self, tolerance):
        self.engine.promise = Promise.checked(tolerance, None)  # alone: no distance is promised

    @property
    def theta_bound(self):
        return self._un._theta_bound

    @theta_bound.setter
    def theta_bound(self, theta_bound):
        self._un._theta_bound = theta_bound

    @property
    def model(self):
        return self._un._fitted.model

    @model.setter
    def model(self, model):
        self._un._fitted.model = model

    def objective(self):
        """The objective of the current data."""
        return self.engine.objective()

    def measured(self, theta):
        """The profile residual at theta and its rounding floor, as a release measures them."""
        return self.engine.measured(theta)

    def within(self, limit, *, by_distance=True):
        """What a release would publish: parameters within this limit of the minimum."""
        return self.engine.verify(limit, by_distance=by_distance)


def inside(un):
    """What the Unlearner holds behind its public face."""
    return Inside(un)


def represented(requests, represent):
    """The same requests, rows that join in that representation."""
    return [
        replace(request, X=represent(request.X)) if isinstance(request, ex.AddRows) else request
        for request in requests
    ]


def by_value(data, requests):
    """The same requests for a detached Unlearner: rows of `data` by value."""
    edits = []
    for request in requests:
        if isinstance(request, ex.AddRows | ex.RevokeFeatures):
            edits.append(request)
            data = data.after(request)
            continue
        rows = np.arange(len(data.y))[request.rows]
        now = data.after(request)
        was, will_be = (
            (d.X[rows][:, d.kept], d.y[rows], d.s[rows])[: 3 if d.weighted else 2] for d in (data, now)
        )
        removed = isinstance(request, ex.RemoveRows)
        edits.append(ex.Edit(before=was, after=None if removed else will_be))
        data = now
    return edits


def represented_by_value(edits, represent):
    """The same edits, rows in that representation."""

    def side(rows):
        return rows and (represent(rows[0]), *rows[1:])

    return [
        ex.Edit(side(edit.before), side(edit.after)) if isinstance(edit, ex.Edit) else edit
        for edit in represented(edits, represent)
    ]


def assert_corrected_data(un, data):
    """They are `data`, bit for bit, and in CSR where X is sparse."""
    X, y, s = un.corrected_data()
    assert X.dtype == inside(un).data.X.dtype
    assert sparse.issparse(X) == sparse.issparse(inside(un).data.X)
    if sparse.issparse(X):
        assert X.format == "csr"
        assert sparse.csr_array((X.data, X.indices, X.indptr), shape=X.shape).has_canonical_format
    for corrected, expected in zip((dense(X), y, s), data.rows, strict=True):
        assert_array_equal(corrected, expected)


def theta_of(model):
    coef = np.ravel(model.coef_)
    return np.append(coef, model.intercept_) if model.fit_intercept else coef.copy()


def surviving(before, after, fit_intercept):
    """Which coordinates of theta on `before` are still there on `after`."""
    return np.append(after.kept[before.kept], np.full(int(fit_intercept), True))


def objective_of(un, s):
    """The keyword arguments of the reference for the model's objective with these weights."""
    model = un.model
    loss = "logistic" if hasattr(model, "classes_") else "squared"
    fit_intercept = bool(model.fit_intercept)
    return {"alpha": model.alpha, "loss": loss, "sample_weight": s, "fit_intercept": fit_intercept}


def gradient_and_floor(un, data, theta):
    """The gradient on `data` at theta by the reference, and a bound on its rounding error (E19)."""
    X, y, s = data.rows
    objective = objective_of(un, s)
    return (
        reference.gradient(X, y, theta, **objective),
        reference.rounding_floor(X, y, theta, **objective),
    )


def profile_residual(un, data, theta):
    """Norm of the gradient of min over the intercept of J, which is alpha-strongly convex; and the floor."""
    g, floor = gradient_and_floor(un, data, theta)
    if not un.model.fit_intercept:
        return np.linalg.norm(g), floor
    longest = np.linalg.norm(data.rows[0], axis=1).max()
    return np.linalg.norm(g[:-1]) + longest * abs(g[-1]), (1.0 + longest) * floor


def assert_vouched(un, update):
    """What an Update says of the residual is so: measured, or a bound that was not measured."""
    measured = un.residual()
    assert update.residual in (None, measured)
    assert measured <= update.residual_bound
    assert un.model.residual_ == update.residual


def assert_retrained(un, data):
    """The model is the minimiser on `data`, as `retrain` finds it."""
    theta, d = theta_of(un.model), data.kept.sum()
    X, y, s = data.rows
    retrained = retrain(X, y, **objective_of(un, s))
    r, floor = np.add(profile_residual(un, data, theta), profile_residual(un, data, retrained))
    g, gradient_floor = gradient_and_floor(un, data, theta)
    assert theta.shape == retrained.shape
    assert np.linalg.norm(g) <= un.tolerance + gradient_floor
    if hasattr(un.model, "classes_") or getattr(un.model, "solver", None) == "cg":
        # Strong convexity: each of the two points is within its own residual / alpha of the minimiser.
        assert np.linalg.norm((theta - retrained)[:d]) <= (r + floor) / un.model.alpha
    elif retrained.any():
        assert np.linalg.norm(theta - retrained) <= 1e-10 * np.linalg.norm(retrained)
    else:
        # No error is small relative to 0. By strong convexity theta is within its residual / alpha of it.
        assert np.linalg.norm(theta[:d]) <= (un.tolerance + gradient_floor) / un.model.alpha


def requests_for(loss, d=6, seed=9):
    """Every kind of request, and lists of them, for `make_data(loss)` of 60 rows and d columns."""
    rng = np.random.default_rng(seed)

    def targets(m):
        return (
            float32_values(rng.standard_normal(m))
            if loss == "squared"
            else rng.integers(0, 2, m).astype(float)
        )

    def values(*shape):
        return float32_values(rng.standard_normal(shape))

    mask = np.zeros(60, dtype=bool)
    mask[[4, 40]] = True
    return {
        "remove_rows": [ex.RemoveRows([3, 7, 20])],
        "remove_by_mask": [ex.RemoveRows(mask)],
        "remove_many_rows": [ex.RemoveRows(slice(10, 40))],
        "add_rows": [ex.AddRows(values(4, d), targets(4))],
        "add_weighted_rows": [ex.AddRows(values(4, d), targets(4), np.array([0.5, 2.0, 0.0, 1.0]))],
        "correct_labels": [ex.CorrectLabels([2, 30, 59], targets(3))],
        "correct_labels_to_one_value": [ex.CorrectLabels(np.arange(20, 50), 1.0)],
        "correct_values": [ex.CorrectValues([1, 8, 50], [0, 4], values(3, 2))],
        "correct_values_to_one_row": [ex.CorrectValues(slice(0, 20), [1, 5], values(2))],
        "correct_a_column": [ex.CorrectValues(slice(None), [2], 0.25)],
        "correct_values_to_0": [ex.CorrectValues(slice(0, 20), [0, 1, 5], [0.0, 1.5, 0.0])],
        "revoke_feature": [ex.RevokeFeatures([2])],
        "revoke_features": [ex.RevokeFeatures([5, 0, 3])],
        "mixed_rows": [
            ex.RemoveRows([0, 11]),
            ex.CorrectLabels([12, 13], targets(2)),
            ex.CorrectValues([13, 14], [3], values(2, 1)),
            ex.AddRows(values(3, d), targets(3)),
            ex.CorrectValues([13, 60], [3, 1], values(2, 2)),
            ex.CorrectLabels([61], targets(1)),
            ex.RemoveRows([14, 60]),
        ],
        "mixed": [
            ex.AddRows(values(2, d), targets(2)),
            ex.RevokeFeatures([4]),
            ex.CorrectValues([61, 5], [0], values(2, 1)),
            ex.AddRows(values(2, d - 1), targets(2)),
            ex.RemoveRows([5, 6, 60]),
            ex.RevokeFeatures([1, 5]),
            ex.CorrectLabels([63, 2], targets(2)),
        ],
    }


KINDS = list(requests_for("squared"))
MAIN_KINDS = [  # one of each, for what does not depend on how rows and columns are named
    *("remove_rows", "add_weighted_rows", "correct_labels", "correct_values"),
    *("correct_a_column", "revoke_features", "mixed_rows", "mixed"),
]
each_kind = pytest.mark.parametrize("kind", KINDS)


@st.composite
def histories(draw):
    """Up to four steps: what happens to the Unlearner, then up to three requests, by one method.

    Requests are functions of the data so far.
    """
    index = st.integers(0, 10**6)
    request = st.tuples(st.sampled_from(["remove", "add", "label", "value", "revoke"]), index, index, index)
    event = st.sampled_from(["nothing", "detach or attach", "file", "file without rows"])
    step = st.tuples(event, st.lists(request, max_size=3), st.sampled_from(list(METHODS)))
    return draw(st.lists(step, min_size=1, max_size=4))


def live_through(history, un, data, loss, represent, joins=np.array):
    """The Unlearner and the data after a history, checked at each step; rows join in form `joins`."""

    def attached():
        un.attach(represent(data.rows[0]), *data.rows[1:])
        return data.renumbered()

    for event, kinds, method in history:
        if event == "detach or attach" and not un.attached:
            data = attached()
        elif event != "nothing":
            un = happened(event, un)
        requests, after = step_of(data, loss, kinds)
        revokes = np.count_nonzero(after.kept) < np.count_nonzero(data.kept)
        if revokes and loss == "logistic" and not un.attached:
            with pytest.raises(ex.RowsRequired):
                un.apply(by_value(data, requests), method="second_order")
            data = attached()
            requests, after = step_of(data, loss, kinds)
        if un.attached:
            assert_vouched(un, un.apply(represented(requests, joins), **METHODS[method]))
            assert_corrected_data(un, after)
        else:
            update = apply_detached(un, represented_by_value(by_value(data, requests), joins), method)
            g, floor = gradient_and_floor(un, after, theta_of(un.model))
            assert np.linalg.norm(g) - floor <= update.residual_bound
        data = after
        assert_array_equal(un.get_support(), data.kept)
    if not un.attached:
        data = attached()
    return un, data


def step_of(data, loss, kinds):
    """Requests, each a function of the data after those before it, and the data after all."""
    requests = []
    for chosen in kinds:
        requests.append(request_from(data, loss, *chosen))
        data = data.after(requests[-1])
    return requests, data


def happened(event, un):
    """The Unlearner after it was detached, or saved and loaded."""
    if event != "file" and un.attached and inside(un).statistics is None and un.model.solver == "cg":
        with pytest.raises(ValueError, match="solver='cg' does not keep"):
            un.detach()
        return un
    if event == "detach or attach":
        return un.detach()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        un.save(path, include_rows=event == "file" and un.attached)
        loaded = ex.Unlearner.load(path)
    assert_array_equal(theta_of(loaded.model), theta_of(un.model))
    assert_array_equal(loaded.get_support(), un.get_support())
    return loaded


def apply_detached(un, edits, method):
    """By the method if it needs no rows and the tolerance is met; else by the step from the anchor."""
    theta = theta_of(un.model)
    if method != "corrected":
        try:
            return un.apply(edits, **METHODS[method])
        except ex.ToleranceExceeded as error:
            refused = error.bound > un.tolerance
        except ex.RowsRequired:
            refused = method != "auto"
        assert refused
        assert_array_equal(theta_of(un.model), theta)
    return un.apply(edits, **METHODS["corrected"])


def request_from(data, loss, kind, i, j, k):
    """A valid request. Rows 0 and 1 hold one class each and stay as they are, and so does column 0."""
    rows, columns = np.flatnonzero(data.live)[2:], np.flatnonzero(data.kept)
    rng = np.random.default_rng([i, j, k])
    if kind == "add" or rows.size == 0:
        m = i % 3
        s = float32_values(rng.uniform(0.0, 2.0, m)) if j % 2 else None
        X = float32_values(rng.standard_normal((m, columns.size)))
        return ex.AddRows(X, rng.integers(0, 2, m).astype(float), s)
    some = rng.permutation(rows)[: 1 + i % 3]
    if kind == "remove":
        return ex.RemoveRows(some)
    if kind == "label":
        y = rng.integers(0, 2, some.size).astype(float)
        return ex.CorrectLabels(some, y if loss == "logistic" else y + float32_values(rng.normal()))
    if kind == "value":
        chosen = rng.permutation(columns)[: 1 + j % 2]
        return ex.CorrectValues(some, chosen, float32_values(rng.standard_normal((some.size, chosen.size))))
    return ex.RevokeFeatures(rng.permutation(columns[1:])[: k % 2 + 1])


def without_rows(data, loss, fit_intercept=True, *, tolerance=1e9, **options):
    """Fitted to the minimiser; then any bound is within the tolerance."""
    un = unlearner(data, loss, fit_intercept, **options)
    inside(un).tolerance = tolerance
    return un.detach()


def exact_residual(un, data):
    """Of the rows that the test keeps, and the rounding floor."""
    g, floor = gradient_and_floor(un, data, theta_of(un.model))
    return np.linalg.norm(g), floor


def assert_bounded(un, update, data):
    residual, floor = exact_residual(un, data)
    assert residual - floor <= update.residual_bound


def bits(array):
    return array.dtype.str, array.shape, array.tobytes()


def snapshot(un):
    """All that a failed request must leave as it was."""
    state, held = inside(un).state, inside(un).held
    theta, bound, _ = state.statistics.step()
    return {
        "attached": un.attached,
        "model": {name: np.asarray(value).tolist() for name, value in vars(un.model)["_fitted"].items()},
        "theta": bits(state.theta),
        "since": inside(un).since_anchor,
        "at": state.at and (state.at.value, bits(state.at.gradient)),
        "gradient": bits(state.statistics.at.gradient),
        "hessian": bits(state.statistics.anchor.hessian),
        "tallies": state.statistics.tallies,
        "step": (bits(theta), bound),
        "support": bits(un.get_support()),
        "counts": held.counts.tolist(),
        "names": held.names,
        "weighted": held.weighted,
    }


def detached(loss="logistic", tolerance=1e-8):
    data = make_data(loss)
    return without_rows(data, loss, tolerance=tolerance), data
