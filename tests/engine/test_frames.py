"""Data in every form: pandas and polars frames by name, NumPy arrays in every layout and dtype."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import expunge as ex

N = 60
NAMES = ["age", "zip", "ssn", "income", "height"]
D = len(NAMES)

ESTIMATORS = {"squared": ex.Ridge, "logistic": ex.LogisticRegression}

each_library = pytest.mark.parametrize("library", ["pandas", "polars"])
each_loss = pytest.mark.parametrize("loss", ESTIMATORS)
pytestmark = pytest.mark.filterwarnings("error:X .* feature names")  # scikit-learn, where names go missing


def data(loss, seed=0):
    """X (n, d) of small integers, which every dtype represents, and y (n,)."""
    rng = np.random.default_rng(seed)
    X = rng.integers(-3, 4, (N, D)).astype(np.float64)
    eta = X @ np.linspace(1.0, -1.0, D) + rng.logistic(size=N)
    return X, (eta > 0).astype(np.float64) if loss == "logistic" else np.round(eta, 2)


def make_frame(library, X, names=NAMES):
    """Columns of X under those names; skips where scikit-learn is too old to find them in such a frame."""
    Frame = pytest.importorskip(library).DataFrame
    frame = Frame(dict(zip(names, np.asarray(X).T, strict=True)))
    if not hasattr(ex.Ridge().fit(Frame({"x": [0.0, 1.0]}), [0.0, 1.0]), "feature_names_in_"):
        pytest.skip(f"this scikit-learn reads no names off a {library} frame")
    return frame


def theta(model):
    return np.append(model.coef_, model.intercept_)


def retrained(loss, X, y):
    return theta(ESTIMATORS[loss](tol=1e-9).fit(X, y))


def assert_trained_on(model, loss, X, y):
    # Residuals of 1e-8 and 1e-9, and alpha = 1; the intercept adds |x| <= 7 times as much.
    assert_allclose(theta(model), retrained(loss, X, y), atol=1e-6)


# Frames


@each_library
@each_loss
def test_requests_name_columns_or_give_positions(library, loss):
    X, y = data(loss)
    frame = make_frame(library, X)
    model = ESTIMATORS[loss]().fit(frame, y)
    un = ex.Unlearner(model, frame, y, tolerance=1e-8)

    un.apply(ex.CorrectValues([3, 4], ["income", "age"], [[1.0, 2.0], [3.0, -4.0]]))
    X[3:5, [3, 0]] = [[1.0, 2.0], [3.0, -4.0]]
    assert_trained_on(model, loss, X, y)
    un.apply([ex.CorrectValues(5, "ssn", 2.0), ex.CorrectValues(5, 4, -2.0), ex.RemoveRows([8])])
    X[5, [2, 4]] = [2.0, -2.0]
    kept = np.arange(N) != 8
    assert_trained_on(model, loss, X[kept], y[kept])

    un.apply([ex.RevokeFeatures("zip"), ex.RevokeFeatures(4)])
    assert_array_equal(model.feature_names_in_, ["age", "ssn", "income"])
    assert_array_equal(un.get_support(), [True, False, True, True, False])
    assert_trained_on(model, loss, X[kept][:, [0, 2, 3]], y[kept])
    un.apply(ex.CorrectValues([0], 3, 1.0))  # still a position in the frame that was handed over
    X[0, 3] = 1.0
    assert_trained_on(model, loss, X[kept][:, [0, 2, 3]], y[kept])
    un.apply(ex.RevokeFeatures(["income", "age"]))
    assert_array_equal(model.feature_names_in_, ["ssn"])
    assert model.n_features_in_ == 1
    assert_trained_on(model, loss, X[kept][:, [2]], y[kept])
    assert_array_equal(un.retrain().feature_names_in_, ["ssn"])


@each_library
@each_loss
def test_predict_selects_the_surviving_columns_of_a_full_frame(library, loss):
    X, y = data(loss)
    frame = make_frame(library, X)
    model = ESTIMATORS[loss]().fit(frame, y)
    un = ex.Unlearner(model, frame, y)
    un.apply(ex.RevokeFeatures(["zip", "ssn"]))
    expected = model.predict(make_frame(library, X[:, [0, 3, 4]], ["age", "income", "height"]))
    assert_array_equal(model.predict(frame), expected)

    X[:, [1, 2]] = np.random.default_rng(1).standard_normal((N, 2))  # what was revoked has no influence
    assert_array_equal(model.predict(make_frame(library, X)), expected)
    assert_array_equal(model.predict(make_frame(library, X[:, ::-1], NAMES[::-1])), expected)
    swapped = make_frame(library, X[:, [3, 0, 4]], ["income", "age", "height"])
    with pytest.raises(ValueError, match="same order"):
        model.predict(swapped)
    with pytest.raises(ValueError, match="eature names"):
        model.predict(make_frame(library, X[:, :4], NAMES[:4]))  # no height


@each_library
def test_added_rows_are_read_by_name(library):
    X, y = data("squared")
    frame = make_frame(library, X)
    X_new, y_new = X[:3] + 1.0, np.array([5.0, -1.0, 0.5])
    more = np.column_stack([X_new, 100.0 * np.ones(3)])
    full = make_frame(library, more, [*NAMES, "note"])
    shuffled = make_frame(library, more[:, ::-1], [*NAMES, "note"][::-1])

    for added in (make_frame(library, X_new), full, shuffled, X_new):
        model = ex.Ridge().fit(frame, y)
        ex.Unlearner(model, frame, y).apply(ex.AddRows(added, y_new))
        assert_trained_on(model, "squared", np.vstack([X, X_new]), np.append(y, y_new))

    model = ex.Ridge().fit(frame, y)
    un = ex.Unlearner(model, frame, y, tolerance=1e-8)
    un.apply(ex.RevokeFeatures(["zip"]))
    for number, added in enumerate((full, make_frame(library, X_new), np.delete(X_new, 1, axis=1)), start=1):
        un.apply(ex.AddRows(added, y_new))
        rows = np.vstack([X, *number * [X_new]])
        assert_trained_on(model, "squared", np.delete(rows, 1, axis=1), np.append(y, number * [*y_new]))


@each_library
def test_added_rows_with_other_columns_are_refused(library):
    X, y = data("squared")
    frame = make_frame(library, X)
    model = ex.Ridge().fit(frame, y)
    un = ex.Unlearner(model, frame, y)
    before = theta(model)
    for names, message in (
        (NAMES[::-1], "expected .* in this order"),  # as many columns: their order counts
        (["age", "zip", "SSN", "income", "height"], "expected .* in this order"),
        (NAMES[:4], "expected"),
        ([*NAMES[:4], "weight", "size"], "expected"),
    ):
        columns = np.resize(X[:3], (3, len(names)))
        with pytest.raises(ValueError, match=message):
            un.apply(ex.AddRows(make_frame(library, columns, names), [0.0, 1.0, 2.0]))
    with pytest.raises(ValueError, match="6 columns, expected 5"):
        un.apply(ex.AddRows(np.ones((3, 6)), [0.0, 1.0, 2.0]))
    assert_array_equal(theta(model), before)
    assert un.corrected_data()[0].shape == X.shape


@each_library
def test_unknown_and_revoked_names_are_refused(library):
    X, y = data("squared")
    frame = make_frame(library, X)
    un = ex.Unlearner(ex.Ridge().fit(frame, y), frame, y)
    un.apply(ex.RevokeFeatures("zip"))
    before = theta(un.model)
    for columns, message in (
        (["phone"], "unknown column 'phone': the columns are age, ssn, "),
        ("phone", "unknown column 'phone'"),
        (["age", "zip"], "column 'zip' was revoked before"),
        ([1], "column 1 was revoked before"),
        (["age", "age"], "column 0 is given more than once|column 'age' is given more than once"),
        (["age", 0], "unknown column|mix"),
    ):
        for request in (ex.RevokeFeatures(columns), ex.CorrectValues([0], columns, 1.0)):
            with pytest.raises(ValueError, match=message):
                un.apply(request)
    assert_array_equal(theta(un.model), before)
    assert_array_equal(un.model.feature_names_in_, ["age", "ssn", "income", "height"])


@each_library
def test_names_come_from_the_frame_or_else_from_the_model(library):
    X, y = data("squared")
    frame = make_frame(library, X)
    named, nameless = ex.Ridge().fit(frame, y), ex.Ridge().fit(X, y)

    un = ex.Unlearner(named, X, y)
    un.apply(ex.RevokeFeatures(["ssn"]))
    assert_array_equal(named.feature_names_in_, ["age", "zip", "income", "height"])
    un = ex.Unlearner(nameless, frame, y)
    un.apply(ex.RevokeFeatures(["ssn"]))
    assert not hasattr(nameless, "feature_names_in_")  # fitted without names, and never warned about
    assert_allclose(theta(named), theta(nameless), rtol=1e-12)  # a frame may be in F order
    assert_trained_on(nameless, "squared", np.delete(X, 2, axis=1), y)


@each_library
def test_a_wider_frame_is_measured_by_name_but_not_adopted(library):
    X, y = data("squared")
    model = ex.Ridge().fit(make_frame(library, X), y)
    more = make_frame(library, np.column_stack([np.full(N, 9.0), X]), ["note", *NAMES])
    assert ex.residual(model, more, y) <= 1e-8
    with pytest.raises(ValueError, match=r"leaves open what positions mean: pass X\[list"):
        ex.Unlearner(model, more, y)
    assert ex.Unlearner(model, more[list(model.feature_names_in_)], y).residual_on_entry <= 1e-8


@each_library
@pytest.mark.parametrize("entry", [ex.Unlearner, ex.residual])
def test_frames_with_the_columns_in_another_order_or_with_others_are_refused(library, entry):
    X, y = data("squared")
    model = ex.Ridge().fit(make_frame(library, X), y)
    before = theta(model)
    for columns, names in (
        (X[:, ::-1], NAMES[::-1]),
        (X, ["age", "zip", "SSN", "income", "height"]),
        (X[:, :4], NAMES[:4]),
    ):
        with pytest.raises(ValueError, match=r"the model was fitted to|expected"):
            entry(model, make_frame(library, columns, names), y)
    assert_array_equal(theta(model), before)


@each_library
@each_loss
def test_frames_of_integers_and_booleans_are_converted(library, loss):
    X, y = data(loss)
    columns = {name: x.astype(np.int32) for name, x in zip(NAMES, X.T, strict=True)}
    columns["zip"] = X[:, 1] > 0
    X[:, 1] = columns["zip"]
    frame = pytest.importorskip(library).DataFrame(columns)
    y_column = pytest.importorskip(library).Series(y)
    model = ESTIMATORS[loss]().fit(frame, y_column)
    un = ex.Unlearner(model, frame, y_column, tolerance=1e-8)
    un.apply([ex.CorrectValues([1], [0], 0.5), ex.RemoveRows([0])])
    X[1, 0] = 0.5
    assert_trained_on(model, loss, X[1:], y[1:])
    assert un.corrected_data()[0].dtype == np.float64


@each_library
def test_missing_values_and_text_in_a_frame_are_refused(library):
    Frame = pytest.importorskip(library).DataFrame
    X, y = data("squared")
    model = ex.Ridge().fit(X, y)
    columns = {name: x.tolist() for name, x in zip(NAMES, X.T, strict=True)}
    before = theta(model)
    for bad in ([None, *columns["zip"][1:]], ["8000", *columns["zip"][1:]]):
        if isinstance(bad[0], str):
            bad = [str(value) + " CH" for value in bad]
        with pytest.raises(ValueError):
            ex.Unlearner(model, Frame({**columns, "zip": bad}), y)
    assert_array_equal(theta(model), before)


def test_targets_and_weights_go_by_position_as_in_a_fit_unless_their_labels_say_otherwise():
    pandas = pytest.importorskip("pandas")
    X, y = data("logistic")
    index = np.random.default_rng(2).permutation(N) + 1000
    frame = pandas.DataFrame(X, columns=NAMES, index=index)
    labels, weights = pandas.Series(np.where(y, "yes", "no")), pandas.Series(np.ones(N), index=index)
    model = ex.LogisticRegression().fit(frame, labels)
    un = ex.Unlearner(model, frame, labels, sample_weight=weights, tolerance=1e-8)
    un.apply([ex.RemoveRows([0, 1]), ex.CorrectLabels([2, 3], ["yes", "no"])])
    y[[2, 3]] = [1.0, 0.0]
    assert_trained_on(model, "logistic", X[2:], y[2:])
    for given in ({"y": labels.set_axis(index[::-1])}, {"y": labels, "sample_weight": weights[::-1]}):
        with pytest.raises(ValueError, match=r"in another order: pass \w+.loc\[X.index\]"):
            ex.Unlearner(model, frame, **given)


def test_columns_labelled_by_numbers_are_never_taken_for_others():
    pandas = pytest.importorskip("pandas")
    X, y = data("squared")
    frame = pandas.DataFrame(X, columns=[10, 11, 12, 13, 14])
    model = ex.Ridge().fit(frame, y)
    un = ex.Unlearner(model, frame, y, tolerance=1e-8)
    with pytest.raises(ValueError, match="column 2 is not among the labels"):
        un.apply(ex.RevokeFeatures([2]))
    un.apply(ex.RevokeFeatures([12]))
    assert_trained_on(model, "squared", np.delete(X, 2, axis=1), y)


@each_library
def test_frames_are_not_modified(library):
    X, y = data("squared")
    frame = make_frame(library, X)
    un = ex.Unlearner(ex.Ridge().fit(frame, y), frame, y)
    un.apply([ex.CorrectValues([0, 1], "age", 0.25), ex.RemoveRows([2]), ex.RevokeFeatures("zip")])
    assert_array_equal(frame.to_numpy(), X)
    assert list(frame.columns) == NAMES


# NumPy


def memory_map(X, folder):
    path = folder / "X.npy"
    np.save(path, X)
    return np.load(path, mmap_mode="r")


def read_only(X, folder):
    X = X.copy()
    X.flags.writeable = False
    return X


FORMS = {
    "float64_c": lambda X, _: X.copy(),
    "float64_f": lambda X, _: np.asfortranarray(X),
    "float32_c": lambda X, _: X.astype(np.float32),
    "float32_f": lambda X, _: np.asfortranarray(X, dtype=np.float32),
    "strided": lambda X, _: np.repeat(np.repeat(X, 2, axis=0), 2, axis=1)[::2, ::2],
    "float32_strided": lambda X, _: np.repeat(X.astype(np.float32), 3, axis=1)[:, ::3],
    "reversed": lambda X, _: X[::-1, ::-1].copy()[::-1, ::-1],
    "transposed": lambda X, _: X.T.copy().T,
    "big_endian": lambda X, _: X.astype(">f8"),
    "read_only": read_only,
    "memory_map": memory_map,
    "int64": lambda X, _: X.astype(np.int64),
    "int8": lambda X, _: X.astype(np.int8),
    "list": lambda X, _: X.tolist(),
}

each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@pytest.mark.parametrize(
    ("form", "loss"), [(form, list(ESTIMATORS)[i % 2]) for i, form in enumerate(FORMS.values())], ids=FORMS
)
def test_every_form_of_X_gives_the_same_models(form, loss, tmp_path):
    X, y = data(loss)
    given = form(X, tmp_path)
    before = np.array(given)
    model = ESTIMATORS[loss]().fit(given, y)
    un = ex.Unlearner(model, given, y, tolerance=1e-8)
    values = np.array([[0.5, -1.0], [2.0, 0.25]])  # exact in float32

    un.apply(ex.CorrectValues([10, 20], [0, 3], values))
    now = X.copy()
    now[np.ix_([10, 20], [0, 3])] = values
    assert_trained_on(model, loss, now, y)
    un.apply([ex.RemoveRows([0, 10]), ex.CorrectLabels([1], 1.0)])
    y[1] = 1.0
    rows = np.setdiff1d(np.arange(N), [0, 10])
    assert_trained_on(model, loss, now[rows], y[rows])
    un.apply(ex.AddRows(form(X, tmp_path)[:3], y[:3]))
    now, y = np.vstack([now[rows], X[:3]]), np.append(y[rows], y[:3])
    assert_trained_on(model, loss, now, y)
    un.apply(ex.RevokeFeatures([1, 4]))
    assert_trained_on(model, loss, now[:, [0, 2, 3]], y)

    corrected = un.corrected_data()[0]
    assert_array_equal(corrected, now[:, [0, 2, 3]])
    assert corrected.dtype == (np.float32 if getattr(given, "dtype", None) == np.float32 else np.float64)
    assert_array_equal(given, before)


@each_loss
def test_values_are_stored_in_the_dtype_of_X(loss):
    X, y = data(loss)
    X = X.astype(np.float32)
    model = ESTIMATORS[loss]().fit(X, y)
    un = ex.Unlearner(model, X, y, tolerance=1e-8)
    un.apply([ex.CorrectValues([4], [2], 0.1), ex.AddRows(X[:1].astype(np.float64) + 0.1, y[:1])])
    now = np.vstack([X, X[:1].astype(np.float64) + 0.1]).astype(np.float32)
    now[4, 2] = np.float32(0.1)
    assert_array_equal(un.corrected_data()[0], now)
    assert_trained_on(model, loss, now, np.append(y, y[0]))


@pytest.mark.parametrize("columns", ["age", ["age"], np.array(["age", "zip"])], ids=["one", "list", "array"])
def test_names_without_names_are_refused(columns):
    X, y = data("squared")
    un = ex.Unlearner(ex.Ridge().fit(X, y), X, y)
    for request in (ex.RevokeFeatures(columns), ex.CorrectValues([0], columns, 1.0)):
        with pytest.raises(
            ValueError, match="columns have no names here: X was not a frame, so give positions"
        ):
            un.apply(request)
    assert un.residual() <= 1e-8


@pytest.mark.parametrize(
    "convert",
    [lambda X: X + 1j, lambda X: np.full(X.shape, "a"), lambda X: np.full(X.shape, None), lambda X: X[0]],
    ids=["complex", "text", "None", "one_row"],
)
def test_arrays_that_are_no_matrix_of_real_numbers_are_refused(convert):
    X, y = data("squared")
    model = ex.Ridge().fit(X, y)
    for entry in (ex.Unlearner, ex.residual):
        with pytest.raises(ValueError, match=r"Complex|could not convert|NaN|float|expected \(n, d\)"):
            entry(model, convert(X), y)
