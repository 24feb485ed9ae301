"""Whatever cannot be granted raises a clear error, and model, data and statistics keep every bit."""

import warnings
from functools import partial

import numpy as np
import pytest
from problems import REPRESENTATIONS, SPARSE, in_pairs, nothing_densifies, parts_of
from scipy import sparse
from sklearn import linear_model
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from unlearning import inside

import expunge as ex

N, D = 30, 6
LOSSES = ("squared", "logistic")
LIVE_ROWS = [0, 1, 2, *range(4, 32)]  # after `earlier_requests`
LIVE_COLUMNS = [0, 1, 2, 3, 5]

each_loss = pytest.mark.parametrize("loss", LOSSES)


def make_rows(loss, n=N, d=D, seed=0):
    """X (n, d) in float32, some of it 0, y (n,), sample_weight (n,)."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)).astype(np.float32)
    X[np.add.outer(np.arange(n), np.arange(d)) % 3 == 0] = 0.0
    y = (X @ np.arange(d) > 0).astype(float) if loss == "logistic" else rng.standard_normal(n)
    return X, y, rng.uniform(0.5, 2.0, n)


def earlier_requests(loss):
    """Leave row 3 removed, rows 5 and 6 corrected, rows 30 and 31 added, column 4 revoked."""
    X, y, _ = make_rows(loss, n=2, seed=1)
    return [
        ex.RemoveRows([3]),
        ex.CorrectValues([5, 6], [0, 2], 0.25),
        ex.AddRows(X, y),
        ex.RevokeFeatures([4]),
    ]


def make_unlearner(loss, *, form="float32_c", kind=None, **options):
    """Not at its minimiser, with an overlay, removed and added rows, a revoked column, a known Gram norm."""
    X, y, s = make_rows(loss)
    X = REPRESENTATIONS[form](X)
    kind = kind or (ex.Ridge if loss == "squared" else ex.LogisticRegression)
    un = ex.Unlearner(kind(alpha=0.5).fit(X, y, s), X, y, s, **options)
    un.apply(earlier_requests(loss), method="first_order")
    return un


def make_noisy(loss, **options):
    """The same with noise in its objective, and a budget that every first-order update exhausts."""
    kind = partial(ex.LogisticRegression, noise=0.1)
    return make_unlearner(loss, kind=kind, epsilon=0.5, delta=1e-5, **options)


def good_requests(loss):
    """One of each kind, after `earlier_requests`; together they outgrow the overlay twice."""
    X, y, s = make_rows(loss, n=9, d=5, seed=2)
    return {
        "remove": ex.RemoveRows([5, 9, 30]),
        "label": ex.CorrectLabels([6, 12, 31], 1.0),
        "value": ex.CorrectValues([6, *range(11, 23)], [1, 3], 0.5),
        "add": ex.AddRows(X, y, s),
        "revoke": ex.RevokeFeatures([2, 5]),
    }


def bits(value):
    """A value such that two are equal only if every bit is."""
    if sparse.issparse(value):
        return value.shape, [bits(part) for part in parts_of(value)]
    array = np.asarray(value)
    return array.dtype.str, array.shape, array.tolist() if array.dtype == object else array.tobytes()


def attributes(model):
    kept = dict(getattr(model, "__dict__", {}))
    kept |= kept.pop("_fitted", {})
    return {name: bits(value) for name, value in kept.items()}


def statistics_bits(statistics):
    theta, bound, _ = statistics.step()
    return bits(statistics.at.gradient), bits(theta), bound, statistics.tallies


def snapshot(un):
    """All that a failed request must leave as it was."""
    state = inside(un).state
    X_test, _, _ = make_rows("squared", n=7, seed=3)
    return {
        "attributes": attributes(un.model),
        "predictions": bits(un.model.predict(X_test[:, un.get_support()])),
        "data": [bits(part) for part in un.corrected_data()],
        "support": bits(un.get_support()),
        "residual": un.residual(),
        "theta": bits(state.theta),
        "at": state.at and (state.at.value, bits(state.at.gradient)),
        "statistics": state.statistics and statistics_bits(state.statistics),
        "effort": inside(un).effort,
        "anchor": state.anchor
        and [
            bits(state.anchor.theta),
            bits(state.anchor.hessian),
            bits(state.anchor.solve(state.theta)),
        ],
        "hessian_is_current": inside(un).hessian_is_current,
        "gram": inside(un).gram,
        "rows": inside(un).data.n_rows,
        "noise": inside(un).noise and bits(inside(un).noise.values),
        "budget": un.budget,
    }


def assert_like_its_twin(
    un, loss, *, form="float32_c", options=({}, {"method": "second_order"}, {"method": "first_order"})
):
    """Valid requests now do to the bit what they do to an Unlearner that saw no failure."""
    promise = {"tolerance": un.tolerance, "within": un.within}
    twin = make_unlearner(loss, form=form, kind=type(un.model), **promise)
    assert snapshot(un) == snapshot(twin)
    for (name, request), option in zip(good_requests(loss).items(), [*options, {}, {}], strict=True):
        update, expected = un.apply(request, **option), twin.apply(request, **option)
        for field in ("step", "gradient_difference", "residual", "passes", "rows_touched", "tau"):
            assert bits(getattr(update, field)) == bits(getattr(expected, field)), (name, field)
        assert snapshot(un) == snapshot(twin)


# Requests that cannot be granted

X_NARROW = np.ones((2, 5))
NAN_CELL, INF_CELL = X_NARROW.copy(), X_NARROW.copy()
NAN_CELL[1, 2], INF_CELL[0, 0] = np.nan, -np.inf

BAD_REQUESTS = {
    # rows
    "row_out_of_range": (ex.RemoveRows([0, 32]), ValueError, "row 32 is out of range"),
    "row_negative": (ex.CorrectLabels([-1], 1.0), ValueError, "row -1 is out of range"),
    "row_twice": (ex.RemoveRows([7, 8, 7]), ValueError, "row 7 is given more than once"),
    "row_twice_in_values": (ex.CorrectValues([7, 7], [0], 1.0), ValueError, "row 7 is given more than once"),
    "row_removed_again": (ex.RemoveRows([2, 3]), ValueError, "row 3 was removed before"),
    "row_removed_by_slice": (ex.RemoveRows(slice(0, 5)), ValueError, "row 3 was removed before"),
    "row_removed_and_relabelled": (ex.CorrectLabels([3], 1.0), ValueError, "row 3 was removed before"),
    "row_removed_and_corrected": (ex.CorrectValues([3], [0], 1.0), ValueError, "row 3 was removed before"),
    "row_float": (ex.RemoveRows([1.0]), TypeError, "rows must be integers.*float64"),
    "row_float_scalar": (ex.CorrectValues(1.5, 0, 1.0), TypeError, "rows must be integers.*float64"),
    "row_name": (ex.RemoveRows("a"), TypeError, "rows must be integers"),
    "row_none": (ex.RemoveRows(None), TypeError, "rows must be integers"),
    "rows_nested": (ex.RemoveRows([[1, 2]]), ValueError, r"rows have shape \(1, 2\)"),
    "mask_short": (
        ex.RemoveRows(np.ones(30, dtype=bool)),
        ValueError,
        r"row mask.*\(30,\), expected \(32,\)",
    ),
    "mask_long": (ex.CorrectLabels([True] * 33, 1.0), ValueError, r"row mask.*\(33,\), expected \(32,\)"),
    "mask_with_a_removed_row": (ex.RemoveRows(np.arange(32) == 3), ValueError, "row 3 was removed before"),
    "every_row": (ex.RemoveRows(LIVE_ROWS), ValueError, "no row of positive weight would be left"),
    # columns
    "column_out_of_range": (ex.RevokeFeatures([6]), ValueError, "column 6 is out of range"),
    "column_negative": (ex.CorrectValues([0], [-1], 0.0), ValueError, "column -1 is out of range"),
    "column_twice": (ex.RevokeFeatures([1, 1]), ValueError, "column 1 is given more than once"),
    "column_revoked_again": (ex.RevokeFeatures([0, 4]), ValueError, "column 4 was revoked before"),
    "column_revoked_and_corrected": (
        ex.CorrectValues([0], [4], 0.0),
        ValueError,
        "column 4 was revoked before",
    ),
    "column_float": (ex.RevokeFeatures([1.0]), TypeError, "columns must be integers.*float64"),
    "column_name_without_names": (ex.RevokeFeatures("age"), ValueError, "columns have no names here"),
    "column_mask_of_the_model_now": (
        ex.RevokeFeatures(np.arange(5) == 0),
        ValueError,
        r"column mask has shape \(5,\), expected \(6,\)",
    ),
    "every_column": (ex.RevokeFeatures(LIVE_COLUMNS), ValueError, "every remaining column would be revoked"),
    # values
    "value_nan": (ex.CorrectValues([0, 1], [0], [[1.0], [np.nan]]), ValueError, "values contain NaN"),
    "value_inf": (ex.CorrectValues([0], [0], np.inf), ValueError, "values contain NaN, infinity"),
    "value_overflows_float32": (ex.CorrectValues([0], [0], -1e39), ValueError, "overflows float32"),
    "value_shape": (ex.CorrectValues([0, 1], [0, 1], np.ones((3, 2))), ValueError, r"\(3, 2\).*\(2, 2\)"),
    "value_shape_of_rows": (ex.CorrectValues([0, 1], [0], [1.0, 2.0]), ValueError, r"\(2,\).*\(2, 1\)"),
    "value_text": (ex.CorrectValues([0], [0], "much"), ValueError, "values must hold real numbers"),
    "value_complex": (
        ex.CorrectValues([0], [0], np.array([1.0 + 2.0j])),
        ValueError,
        "must hold real numbers",
    ),
    "value_ragged": (
        ex.CorrectValues([0, 1], [0], [[1.0], [1.0, 2.0]]),
        ValueError,
        "must hold real numbers",
    ),
    # labels
    "label_nan": (ex.CorrectLabels([0, 1], [0.0, np.nan]), ValueError, "NaN|nan"),
    "label_inf": (ex.CorrectLabels([0], np.inf), ValueError, "infinity|inf"),
    "label_shape": (ex.CorrectLabels([0, 1], [0.0, 1.0, 1.0]), ValueError, r"\(3,\), expected \(2,\)"),
    "label_columns": (ex.CorrectLabels([0, 1], np.zeros((2, 2))), ValueError, r"\(2, 2\), expected \(2,\)"),
    "label_text": (ex.CorrectLabels([0], "yes"), ValueError, "real numbers|not one of the classes"),
    "label_complex": (ex.CorrectLabels([0], 2.0j), ValueError, "real numbers|not one of the classes"),
    # new rows
    "new_row_nan": (ex.AddRows(NAN_CELL, 0.0), ValueError, "X contains NaN"),
    "new_row_inf": (ex.AddRows(INF_CELL, 0.0), ValueError, "X contains .*infinity"),
    "new_row_overflows_float32": (ex.AddRows(1e39 * X_NARROW, 0.0), ValueError, "overflow float32"),
    "new_row_wide": (ex.AddRows(np.ones((2, 6)), 0.0), ValueError, "X has 6 columns, expected 5"),
    "new_row_narrow": (ex.AddRows(np.ones((2, 4)), 0.0), ValueError, "X has 4 columns, expected 5"),
    "new_row_flat": (ex.AddRows(np.ones(5), 0.0), ValueError, r"X has shape \(5,\), expected \(n, d\)"),
    "new_row_text": (ex.AddRows([["a"] * 5], 0.0), ValueError, "could not convert string"),
    "new_row_complex": (ex.AddRows(1j * X_NARROW, 0.0), ValueError, "Complex data not supported"),
    "new_row_label_nan": (ex.AddRows(X_NARROW, [0.0, np.nan]), ValueError, "NaN|nan"),
    "new_row_label_shape": (ex.AddRows(X_NARROW, [0.0]), ValueError, r"\(1,\), expected \(2,\)"),
    "new_row_weight_negative": (ex.AddRows(X_NARROW, 0.0, [1.0, -1.0]), ValueError, "must not be negative"),
    "new_row_weight_nan": (ex.AddRows(X_NARROW, 0.0, np.nan), ValueError, "sample_weight contains NaN"),
    "new_row_weight_shape": (ex.AddRows(X_NARROW, 0.0, np.ones(3)), ValueError, r"\(3,\), expected \(2,\)"),
    # not requests
    "nothing": (None, TypeError, "not a request"),
    "number": (3, TypeError, "not a request"),
    "text": ("RemoveRows", TypeError, "not a request"),
    "class": (ex.RemoveRows, TypeError, "not a request"),
    "array": (np.array([1, 2]), TypeError, "not a request"),
}


def assert_refused(un, error, message, request, **options):
    before = snapshot(un)
    with pytest.raises(error, match=message):
        un.apply(request, **options)
    assert snapshot(un) == before


DENSE_AND_SPARSE = [("squared", "float32_c"), ("logistic", "csr_float32")]


@pytest.mark.parametrize(
    ("bad", "loss", "form"), [(bad, *DENSE_AND_SPARSE[i % 2]) for i, bad in enumerate(BAD_REQUESTS)]
)
def test_a_bad_request_changes_nothing_alone_or_at_the_end_of_a_list(bad, loss, form):
    un, (request, error, message) = make_unlearner(loss, form=form), BAD_REQUESTS[bad]
    assert_refused(un, error, message, request)
    good = good_requests(loss)
    if bad == "every_row":  # no longer every one
        del good["add"], good["remove"]
    elif bad == "every_column" or bad.startswith("new_row"):
        del good["revoke"]
    if bad.startswith("mask"):
        del good["add"]
    elif bad == "row_out_of_range":
        request, message = ex.RemoveRows([41]), "row 41 is out of range: there are rows 0 to 40"
    assert_refused(un, error, message, [*good.values(), request])
    assert_like_its_twin(un, loss, form=form)


def sparse_rows():
    """name -> X of new rows, error, message."""
    pointing_out, descending = (SPARSE["csr_int32"](X_NARROW) for _ in range(2))
    pointing_out.indices[3] = 10**6
    descending.indptr[1] = 11
    wide = np.ones((2, 6))
    cases = {
        "outside": (pointing_out, ValueError, "indices of X point outside of it"),
        "descending": (descending, ValueError, "indices of X point outside of it"),
        "flat": (sparse.coo_array(np.ones(5)), ValueError, r"X has shape \(5,\), expected \(n, d\)"),
        "complex": (sparse.csr_array(1j * X_NARROW), ValueError, "Complex data not supported"),
    }
    for name in ("csr_int64", "csc", "coo_duplicates"):
        form = SPARSE[name]
        cases |= {
            f"nan_{name}": (form(NAN_CELL), ValueError, "X contains NaN"),
            f"inf_{name}": (form(INF_CELL), ValueError, "X contains .*infinity"),
            f"overflow_{name}": (form(1e39 * X_NARROW), ValueError, "overflow float32"),
            f"wide_{name}": (form(wide), ValueError, "X has 6 columns, expected 5"),
            f"narrow_{name}": (form(wide[:, :4]), ValueError, "X has 4 columns, expected 5"),
        }
    return cases


@pytest.mark.parametrize(("bad", "loss"), [(bad, LOSSES[i % 2]) for i, bad in enumerate(sparse_rows())])
def test_bad_sparse_rows_change_nothing(bad, loss):
    un, (X, error, message) = make_unlearner(loss, form="csr_float32"), sparse_rows()[bad]
    with nothing_densifies():
        assert_refused(un, error, message, ex.AddRows(X, 1.0))
        assert_refused(un, error, message, [ex.RemoveRows([5]), ex.AddRows(X, 1.0)])
        assert_like_its_twin(un, loss, form="csr_float32")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ex.CorrectLabels([0, 1], [1, 2]), r"label 2 is not one of the classes \[0.0, 1.0\]"),
        (ex.CorrectLabels([0], "1"), "label '1' is not one of the classes"),
        (ex.AddRows(X_NARROW, [0.0, 0.5]), "label 0.5 is not one of the classes"),
        (ex.CorrectLabels(LIVE_ROWS, 0.0), "left of one of the two classes"),
        (
            [ex.CorrectLabels(LIVE_ROWS, 0.0), ex.AddRows(X_NARROW, 1.0, 0.0)],
            "left of one of the two classes",
        ),
    ],
    ids=["unseen", "unseen_text", "unseen_in_new_rows", "last_of_a_class", "last_of_positive_weight"],
)
def test_logistic_regression_keeps_its_two_classes(request_, message):
    un = make_unlearner("logistic")
    assert_refused(un, ValueError, message, request_)
    assert_like_its_twin(un, "logistic")


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_the_last_rows_of_a_class_cannot_be_removed(label):
    un = make_unlearner("logistic")
    of_class = np.array(LIVE_ROWS)[un.corrected_data()[1] == label]
    assert_refused(un, ValueError, "left of one of the two classes", ex.RemoveRows(of_class))
    un.apply(ex.RemoveRows(of_class[1:]))
    assert_refused(un, ValueError, "left of one of the two classes", ex.RemoveRows(of_class[:1]))
    assert_refused(
        un, ValueError, "left of one of the two classes", ex.CorrectLabels(of_class[0], 1.0 - label)
    )
    un.apply([ex.AddRows(X_NARROW, label), ex.RemoveRows(of_class[:1])])


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([ex.RemoveRows([8]), ex.RemoveRows([8])], "row 8 was removed before"),
        ([ex.RemoveRows([8]), ex.CorrectLabels([8], 1.0)], "row 8 was removed before"),
        ([ex.AddRows(X_NARROW, 1.0), ex.RemoveRows([33]), ex.RemoveRows([33])], "row 33 was removed before"),
        ([ex.RevokeFeatures([1]), ex.RevokeFeatures([1])], "column 1 was revoked before"),
        ([ex.RevokeFeatures([1]), ex.CorrectValues([0], [1], 0.0)], "column 1 was revoked before"),
        ([ex.RevokeFeatures([1]), ex.AddRows(X_NARROW, 1.0)], "X has 5 columns, expected 4"),
        ([ex.RevokeFeatures([0, 1]), ex.RevokeFeatures([2, 3, 5])], "every remaining column"),
        ([ex.CorrectValues([8], [0], 2.0), [ex.RemoveRows([9])]], "not a request"),
    ],
)
@each_loss
def test_members_of_a_list_that_contradict_each_other_change_nothing(loss, members, message):
    un = make_unlearner(loss)
    assert_refused(un, (ValueError, TypeError), message, members)
    assert_like_its_twin(un, loss)


# Names

FRAME_REQUESTS = {
    "unknown": (ex.RevokeFeatures(["a", "zip"]), ValueError, "unknown column 'zip': the columns are a, b"),
    "twice": (ex.RevokeFeatures(["a", "a"]), ValueError, "column 0 is given more than once"),
    "revoked": (ex.CorrectValues([0], "e", 0.0), ValueError, "column 'e' was revoked before"),
    "names_and_positions": (ex.RevokeFeatures([0, "b"]), ValueError, "names or positions, not a mix"),
    "every": (ex.RevokeFeatures(list("abcdf")), ValueError, "every remaining column would be revoked"),
}


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("bad", FRAME_REQUESTS)
def test_bad_column_names_change_nothing(bad):
    pandas = pytest.importorskip("pandas")
    X, y, _ = make_rows("squared")
    frame = pandas.DataFrame(X, columns=list("abcdef"))
    un = ex.Unlearner(ex.Ridge().fit(frame, y), frame, y)
    un.apply(ex.RevokeFeatures("e"))
    request, error, message = FRAME_REQUESTS[bad]
    assert_refused(un, error, message, request)
    assert_refused(
        un, error, message, [ex.CorrectValues([0], ["b"], 1.0), ex.RevokeFeatures("d"), request][::2]
    )
    assert list(un.model.feature_names_in_) == list("abcdf")
    reordered = ex.AddRows(frame[["f", "a", "b", "c", "d"]][:1], 0.0)
    assert_refused(un, ValueError, "in this order", reordered)


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"method": "newton"},
            "unknown method 'newton': choose one of auto, exact, second_order, first_order",
        ),
        ({"method": None}, "unknown method None"),
        ({"method": "second_order", "hessian": "fisher"}, "unknown hessian 'fisher'"),
        ({"hessian": "original"}, "option of method='second_order'"),
        ({"method": "first_order", "hessian": "original"}, "option of method='second_order'"),
        ({"tau": 0.1}, "option of method='first_order'"),
        ({"method": "second_order", "tau": 0.1}, "option of method='first_order'"),
        ({"method": "first_order", "tau": 0.0}, "tau must be positive and finite"),
        ({"method": "first_order", "tau": -1.0}, "tau must be positive and finite"),
        ({"method": "first_order", "tau": np.nan}, "tau must be positive and finite"),
        ({"method": "first_order", "tau": np.inf}, "tau must be positive and finite"),
        ({"method": "first_order", "tau": "small"}, "tau must be"),
        ({"method": "first_order", "tau": np.array([0.1, 0.2])}, "tau must be"),
    ],
)
@each_loss
def test_bad_options_change_nothing(loss, options, message):
    un = make_unlearner(loss)
    assert_refused(un, (ValueError, TypeError), message, list(good_requests(loss).values()), **options)
    assert_like_its_twin(un, loss)


@pytest.mark.parametrize(
    ("request_", "options"),
    [
        (ex.RemoveRows([0]), {"method": "first_order", "tau": 1e300}),  # theta is finite, J is not
        (ex.RemoveRows([0]), {"method": "first_order", "tau": 1.7e308}),
        (ex.CorrectLabels([0], 1e300), {"method": "first_order"}),
        (ex.CorrectLabels([0], 1e300), {"method": "second_order"}),
        (ex.CorrectLabels([0], 1e300), {"method": "exact"}),
    ],
)
def test_a_result_that_overflows_changes_nothing(request_, options):
    un = make_unlearner("squared")
    with np.errstate(over="ignore"):
        assert_refused(un, (ValueError, RuntimeError), None, request_, **options)
    assert_like_its_twin(un, "squared")


# A model that others have touched


@each_loss
def test_a_model_changed_from_outside_is_refused(loss):
    un = make_unlearner(loss)
    before, coef = snapshot(un), un.model.coef_
    for changed in (coef * (1.0 + 2.0**-50), coef[..., :-1], np.full_like(coef, np.nan)):
        un.model.coef_ = changed
        for question in (lambda: un.apply(ex.RemoveRows([0])), un.residual):
            with pytest.raises(ValueError, match="changed outside of this Unlearner"):
                question()
        assert un.model.coef_ is changed
    un.model.coef_ = coef
    assert snapshot(un) == before
    assert_like_its_twin(un, loss)


# Construction


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": ex.Ridge()}, NotFittedError, "not fitted"),
        ({"model": ex.Ridge}, TypeError, "is a class: pass a fitted instance"),
        ({"model": object()}, TypeError, "object is not supported"),
        ({"alpha": 0.0}, ValueError, "alpha must be a finite number > 0"),
        ({"alpha": -1.0}, ValueError, "alpha must be a finite number > 0"),
        ({"alpha": np.nan}, ValueError, "alpha must be a finite number > 0"),
        ({"coef_": np.full(D, np.nan)}, ValueError, "NaN or infinity: refit"),
        ({"X": np.full((N, D), np.nan)}, ValueError, "X contains NaN"),
        ({"X": np.full((N, D), np.inf)}, ValueError, "X contains .*infinity"),
        ({"X": np.ones((N, D + 1))}, ValueError, "X has 7 columns, expected 6"),
        ({"X": np.ones(N)}, ValueError, r"X has shape \(30,\)"),
        ({"X": np.ones((N - 1, D))}, ValueError, r"y has shape \(30,\), expected \(29,\)"),
        ({"X": np.empty((0, D)), "y": [], "sample_weight": None}, ValueError, "no rows"),
        ({"y": np.full(N, np.nan)}, ValueError, "y contains NaN"),
        ({"y": np.zeros((N, 2))}, ValueError, r"y has shape \(30, 2\)"),
        ({"y": ["a"] * N}, ValueError, "y must hold real numbers"),
        ({"sample_weight": -np.ones(N)}, ValueError, "must not be negative"),
        ({"sample_weight": np.ones(N + 1)}, ValueError, r"\(31,\), expected \(30,\)"),
        ({"sample_weight": np.zeros(N)}, ValueError, "every sample_weight is zero"),
        ({"tolerance": -1.0}, ValueError, "tolerance must be"),
        ({"tolerance": np.nan}, ValueError, "tolerance must be"),
    ],
)
def test_an_unlearner_that_cannot_be_made_leaves_the_model(change, error, message):
    X, y, s = make_rows("squared")
    model = ex.Ridge().fit(X, y)  # without the weights: polishing would move it
    arguments = {"X": X, "y": y, "sample_weight": s} | change
    for name in ("alpha", "coef_"):
        if name in arguments:
            setattr(model, name, arguments.pop(name))
    model = arguments.pop("model", model)
    before = attributes(model)
    with pytest.raises(error, match=message):
        ex.Unlearner(model, **arguments)
    assert attributes(model) == before


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.arange(N) % 3, "label 2 is not one of the classes"),
        (np.zeros(N), "only one class has rows of positive sample_weight"),
        (np.full(N, "0"), "label '0' is not one of the classes"),
    ],
)
def test_an_unlearner_of_other_labels_leaves_the_model(y, message):
    X, labels, _ = make_rows("logistic")
    model = ex.LogisticRegression(tol=1.0).fit(X, labels)
    before = attributes(model)
    with pytest.raises(ValueError, match=message):
        ex.Unlearner(model, X, y)
    assert attributes(model) == before


# Failures from deep inside, after all edits were staged


FAILING = {
    "exact": ("engine.near.distance_at", {"method": "exact"}),
    "corrected": ("engine.methods.second_order_update", {"method": "second_order"}),
    "original": ("engine.methods.second_order_update", {"method": "second_order", "hessian": "original"}),
    "first_order": ("engine.methods.first_order_update", {"method": "first_order"}),
    "published": ("engine.fitted.assign_all", {}),
}


@in_pairs(
    loss=LOSSES,
    form=["float32_c", "csr_float32"],
    kind=[*good_requests("squared"), "all"],
    failing=FAILING,
    failure={"interrupt": KeyboardInterrupt, "memory": MemoryError},
)
def test_a_failure_while_theta_is_chosen_changes_nothing(monkeypatch, loss, form, kind, failing, failure):
    function, options = failing

    def fail(*_, **__):
        raise failure

    un, good = make_unlearner(loss, form=form), good_requests(loss)
    with monkeypatch.context() as patch:
        patch.setattr(f"expunge.{function}", fail)
        assert_refused(un, failure, None, list(good.values()) if kind == "all" else good[kind], **options)
    assert_like_its_twin(un, loss, form=form)


@pytest.mark.parametrize(
    ("loss", "kind", "attribute"),
    [
        ("squared", ex.Ridge, "_fitted"),
        ("logistic", ex.LogisticRegression, "_fitted"),
        *(("squared", linear_model.Ridge, name) for name in ("coef_", "intercept_", "n_features_in_")),
    ],
)
def test_a_model_that_cannot_be_written_to_keeps_what_it_had(loss, kind, attribute):
    class Stubborn(kind):
        armed = False

        def __setattr__(self, name, value):
            if self.armed and name == attribute:
                raise AttributeError("not now")
            super().__setattr__(name, value)

    un = make_unlearner(loss, kind=Stubborn)
    before = snapshot(un)
    Stubborn.armed = True
    for method in ("exact", "second_order", "first_order"):
        with pytest.raises(AttributeError, match="not now"):
            un.apply(list(good_requests(loss).values()), method=method)
        assert snapshot(un) == before
    Stubborn.armed = False
    assert_like_its_twin(un, loss)


@each_loss
def test_a_warning_turned_into_an_error_changes_nothing(loss):
    with pytest.warns(ConvergenceWarning, match="lies below the rounding floor"):
        un = make_unlearner(loss, tolerance=1e-17)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        for request in [*good_requests(loss).values(), list(good_requests(loss).values())]:
            assert_refused(un, ConvergenceWarning, "lies below the rounding floor", request)
    with pytest.warns(ConvergenceWarning):
        assert_like_its_twin(un, loss)


def with_most_entries_revoked(loss, **options):
    """The next request leaves the revoked columns out of its copy of X."""
    un = make_unlearner(loss, form="csr_float32", **options)
    un.apply(ex.RevokeFeatures([0, 1, 2]), method="first_order")
    assert 2 * inside(un).data._revoked_entries > inside(un).data.X.nnz
    return un


def assert_same_but_for_rounding(now, before):
    """Sums over a copy without revoked columns may be rounded otherwise."""
    assert now | {"residual": None} == before | {"residual": None}
    assert now["residual"] == pytest.approx(before["residual"], rel=1e-12)


def test_a_copy_without_revoked_columns_is_made_whether_or_not_the_request_succeeds():
    un = with_most_entries_revoked("logistic")
    before, nnz = snapshot(un), inside(un).data.X.nnz
    with pytest.raises(ValueError, match="row 99 is out of range"):
        un.apply(ex.RemoveRows([99]))
    assert inside(un).data.X.nnz < nnz / 2
    assert_same_but_for_rounding(snapshot(un), before)
