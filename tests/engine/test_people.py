"""The right person: rows by id and by label, whom an Unlearner has forgotten, and what of them is left."""

import datetime
import pickle
import uuid
from threading import Event, Thread

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from unlearning import inside

import expunge as ex
from expunge.engine import fitted as fitted_module
from expunge.files import archive, saved

N, D = 40, 3
KEY = b"a secret of 16 bytes or more"


def data(seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, D))
    return X, X @ [1.0, -2.0, 0.5] + rng.normal(size=N)


def of(X, y, **options):
    return ex.Unlearner(ex.Ridge().fit(np.asarray(X), np.asarray(y)), X, y, **options)


def frame_with(index, columns=("a", "b", "c")):
    pandas = pytest.importorskip("pandas")
    X, y = data()
    return pandas.DataFrame(X, columns=list(columns), index=index), pandas.Series(y, index=index)


def assert_left(un, rows):
    """These rows, and no others, have left; the model is the one without them."""
    X, y = data()
    _, _, _, numbers = un.corrected_data(return_rows=True)
    assert_array_equal(numbers, np.setdiff1d(np.arange(N), rows))
    fresh = ex.Ridge().fit(np.delete(X, rows, axis=0), np.delete(y, rows))
    assert_allclose(un.model.coef_, fresh.coef_, atol=1e-9)


def assert_unchanged(un):
    assert_left(un, [])


def shuffled():
    return np.random.default_rng(1).permutation(N) + 1000


def indices():
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(2)
    order = rng.permutation(N)
    levels = pandas.MultiIndex.from_arrays([[f"k{i % 4}" for i in order], order // 4], names=["shop", "no"])
    return {
        "default": pandas.RangeIndex(N),
        "shuffled": pandas.Index(order),
        "offset": pandas.RangeIndex(100, 100 + N),
        "text": pandas.Index([f"c{i}" for i in order]),
        "levels": levels,
        "dates": pandas.date_range("2020-01-01", periods=N)[order],
        "floats": pandas.Index(order + 0.5),
        "categories": pandas.CategoricalIndex([f"c{i}" for i in order]),
    }


KINDS = ["default", "shuffled", "offset", "text", "levels", "dates", "floats", "categories"]
each_index = pytest.mark.parametrize("kind", KINDS)


# Labels


@each_index
def test_an_index_selects_by_label_in_any_order(kind):
    X, y = frame_with(indices()[kind])
    un = of(X, y)
    un.apply(ex.RemoveRows(X.index[[20, 3, 11]]))
    assert_left(un, [3, 11, 20])
    with pytest.raises(ex.AlreadyForgotten) as raised:
        un.apply(ex.RemoveRows(X.index[[3, 4]]))
    assert raised.value.ids == [X.index[3]]
    assert raised.value.kind == "label"
    un.apply(ex.RemoveRows(X.index[[3, 4]], missing="ignore"))
    assert_left(un, [3, 4, 11, 20])


@each_index
def test_a_mask_is_aligned_by_its_labels(kind):
    X, y = frame_with(indices()[kind])
    mask = X["a"] > 1.0
    un = of(X, y)
    un.apply(ex.RemoveRows(mask.sample(frac=1.0, random_state=3)))
    assert_left(un, np.flatnonzero(mask))


@each_index
def test_a_list_of_labels(kind):
    X, y = frame_with(indices()[kind])
    un = of(X, y)
    un.apply(ex.RemoveRows(labels=list(X.index[[5, 9]])))
    un.apply(ex.RemoveRows(labels=X.index[30]))
    assert_left(un, [5, 9, 30])


def test_rows_of_a_split_are_those_of_the_whole_frame():
    """The customer's rows, found in the whole frame, not the rows at these places of the split."""
    pandas = pytest.importorskip("pandas")
    X, y = frame_with(pandas.RangeIndex(N))
    customers = pandas.Series(4700 + np.arange(N) // 2, index=X.index)
    train = np.random.default_rng(4).permutation(N)[:30]
    un = of(X.iloc[train], y.iloc[train])
    at = np.flatnonzero(np.isin(train, X.index[customers == 4711]))
    wanted = X.index[customers == 4711].intersection(X.index[train])
    un.apply(ex.RemoveRows(wanted))
    assert_array_equal(np.setdiff1d(np.arange(30), un.corrected_data(return_rows=True)[3]), at)
    other = X.index.difference(X.index[train])[:1]
    with pytest.raises(ex.UnknownId, match="label"):
        un.apply(ex.RemoveRows(other))
    with pytest.raises(ex.UnknownId):
        un.apply(ex.RemoveRows(X.index.isin(other) & pandas.Series(True, index=X.index)))


def test_integers_lists_and_arrays_stay_positions():
    X, y = frame_with(shuffled())
    for rows in ([3, 5], np.array([3, 5]), slice(3, 6, 2), range(3, 6, 2), (3, 5)):
        un = of(X, y)
        un.apply(ex.RemoveRows(rows))
        assert_left(un, [3, 5])
    with pytest.raises(ValueError, match="out of range"):
        of(X, y).apply(ex.RemoveRows(list(X.index[[3]])))  # made of labels: a position, as documented


def test_a_label_stands_for_all_rows_that_have_it():
    X, y = frame_with([f"c{i % 10}" for i in range(N)])
    un = of(X, y)
    un.apply(ex.RemoveRows(X.index[[13]]))
    assert_left(un, [3, 13, 23, 33])
    un.apply(ex.RemoveRows(X.index == "c4"))  # an array of NumPy: positions
    assert_left(un, [3, 13, 23, 33, 4, 14, 24, 34])


def test_a_mask_over_repeated_labels_is_by_row_where_it_is_in_their_order_and_else_refused():
    pandas = pytest.importorskip("pandas")
    X, y = frame_with([f"c{i % 10}" for i in range(N)])
    mask = pandas.Series(np.arange(N) == 13, index=X.index)
    un = of(X, y)
    un.apply(ex.RemoveRows(mask))
    assert_left(un, [13])
    with pytest.raises(ValueError, match="both True and False of rows labelled 'c3'"):
        un.apply(ex.RemoveRows(mask[::-1]))
    un.apply(ex.RemoveRows(pandas.Series(np.arange(N) % 10 == 4, index=X.index)[::-1]))
    assert_left(un, [13, 4, 14, 24, 34])


def test_labels_without_a_frame_are_refused_with_the_fix():
    pandas = pytest.importorskip("pandas")
    X, y = data()
    un = of(X, y)
    for rows in (pandas.Index([1]), pandas.Series([True] * N), pandas.Series([1, 2])):
        for request in (ex.RemoveRows(rows), ex.CorrectLabels(rows, 1.0), ex.CorrectValues(rows, 0, 1.0)):
            with pytest.raises(ValueError, match="X was no frame with an index: pass row numbers"):
                un.apply(request)
    with pytest.raises(ValueError, match="X was no frame"):
        un.apply(ex.RemoveRows(labels=[1]))
    with pytest.raises(ValueError, match="X was no frame"):
        un.apply(ex.RevokeFeatures(pandas.Index([1])))
    with pytest.raises(TypeError, match="pass its index"):
        un.apply(ex.RemoveRows(pandas.DataFrame({"a": [1]})))
    assert_unchanged(un)


def test_missing_labels_and_masks_with_holes_name_nobody():
    pandas = pytest.importorskip("pandas")
    X, y = frame_with([None, np.nan, *range(2, N)])
    un = of(X, y)
    with pytest.raises(ValueError, match="names nobody"):
        un.apply(ex.RemoveRows(X.index[[0]]))
    with pytest.raises(ValueError, match="fillna"):
        un.apply(ex.RemoveRows(pandas.Series([True, None], index=[5, 6], dtype="boolean")))
    un.apply(ex.RemoveRows(pandas.Series([True, False], index=[5, 6], dtype="boolean")))
    assert_left(un, [5])


def test_exactly_one_way_to_say_which_rows():
    X, y = frame_with(shuffled())
    un = of(X, y, ids=list(range(N)))
    for given in ({}, {"rows": [1], "ids": [1]}, {"ids": [1], "labels": [1001]}):
        with pytest.raises(TypeError, match="in one way"):
            un.apply(ex.RemoveRows(**given))
    with pytest.raises(ValueError, match="unknown missing 'skip'"):
        un.apply(ex.RemoveRows([1], missing="skip"))
    assert_unchanged(un)


def test_added_rows_bring_their_labels():
    pandas = pytest.importorskip("pandas")
    X, y = frame_with(shuffled())
    un = of(X, y)
    two = pandas.DataFrame(np.ones((2, D)), columns=X.columns)
    un.apply(ex.AddRows(two, [0.0, 1.0]))  # labels that pandas made up: none
    un.apply(ex.AddRows(two.set_axis([7, 8]), [0.0, 1.0]))
    un.apply([ex.AddRows(two.set_axis([9, 10]), [0.0, 1.0]), ex.RemoveRows(labels=[10, 8])])
    assert_array_equal(un.corrected_data(return_rows=True)[3][N:], [N, N + 1, N + 2, N + 4])
    frame = un.corrected_data(as_frame=True)[0]
    assert frame.index[N:].tolist() == [None, None, 7, 9]
    for taken in (two.set_axis([50, 7]), X.iloc[:2]):
        with pytest.raises(ValueError, match=r"is labelled .* already: X.reset_index\(drop=True\)"):
            un.apply(ex.AddRows(taken, [0.0, 1.0]))
    un.apply(ex.AddRows(two.set_axis([10, 11]), [0.0, 1.0]))  # its row has left
    un.apply(ex.RemoveRows(labels=10))
    with pytest.raises(ValueError, match="another order"):
        un.apply(ex.AddRows(two.set_axis([1, 2]), pandas.Series([0.0, 1.0], index=[2, 1])))


def test_a_refused_request_takes_its_names_along():
    pandas = pytest.importorskip("pandas")
    X, y = frame_with(shuffled())
    un = of(X, y, ids=list(range(N)))
    new = pandas.DataFrame(np.ones((1, D)), columns=X.columns, index=["new"])
    for ids in (["zoe"], ["yan"]):
        with pytest.raises(ValueError):
            un.apply([ex.AddRows(new, [0.0], ids=ids), ex.RemoveRows(ids=[3]), ex.RemoveRows([0, 0])])
    for unknown in ("zoe", "yan"):
        with pytest.raises(ex.UnknownId):
            un.rows_of(unknown)
    assert not un.is_forgotten(3)
    assert_unchanged(un)
    un.apply(ex.AddRows(new, [0.0], ids=["yan"]))
    assert_array_equal(un.rows_of("yan"), [N])
    un.apply([ex.RemoveRows(labels="new"), ex.RemoveRows(ids=[3])])
    assert un.is_forgotten("yan")
    assert_left(un, [3])


# Columns


def test_labels_of_columns_that_are_numbers():
    X, y = frame_with(None, columns=[0, 2, 3])
    un = of(X, y)
    for columns in ([2], 2, [1], np.array([2])):
        with pytest.raises(ValueError, match="mask over all columns"):
            un.apply(ex.RevokeFeatures(columns))
    assert un.get_support().all()
    un.apply(ex.RevokeFeatures([3]))  # no position
    assert_array_equal(un.get_support(), [True, True, False])
    un.apply(ex.RevokeFeatures(X.columns[[1]]))
    assert_array_equal(un.get_support(), [True, False, False])
    plain = of(*frame_with(None, columns=[0, 1, 2]))
    plain.apply(ex.RevokeFeatures([1]))
    plain.apply(ex.RevokeFeatures(np.array([False, False, True])))
    assert_array_equal(plain.get_support(), [True, False, False])


def test_labels_of_columns_of_several_levels_or_kinds():
    pandas = pytest.importorskip("pandas")
    levels = pandas.MultiIndex.from_tuples([("a", "x"), ("a", "y"), ("b", "x")])
    un = of(*frame_with(None, columns=levels))
    un.apply(ex.RevokeFeatures(("a", "y")))
    un.apply(ex.RevokeFeatures([("b", "x")]))
    assert_array_equal(un.get_support(), [True, False, False])
    mixed = of(*frame_with(None, columns=["a", 1, "b"]))
    mixed.apply(ex.RevokeFeatures("b"))
    mixed.apply(ex.RevokeFeatures([1]))
    assert_array_equal(mixed.get_support(), [True, False, False])
    both = of(*frame_with(None, columns=[("a", "b"), "a", "b"]))
    with pytest.raises(ValueError, match="the label of one column, and a tuple of labels"):
        both.apply(ex.RevokeFeatures(("a", "b")))
    with pytest.raises(ValueError, match="unknown column 'z'"):
        both.apply(ex.RevokeFeatures("z"))


def test_a_mask_over_columns_is_aligned_by_their_labels():
    X, y = frame_with(None)
    un = of(X, y)
    un.apply(ex.RevokeFeatures((X.columns.to_series() == "b")[::-1]))
    assert_array_equal(un.get_support(), [True, False, True])


def test_names_that_two_columns_have_are_refused():
    X, y = frame_with(None, columns=["a", "a", "b"])
    with pytest.raises(ValueError, match="more than one column 'a': rename"):
        of(X, y)
    model = ex.Ridge().fit(X.to_numpy(), y)
    model.feature_names_in_ = np.array(["a", "a", "b"], dtype=object)
    with pytest.raises(ValueError, match="has a name twice"):
        ex.Unlearner(model, X.to_numpy(), y)


def test_added_columns_labelled_by_numbers_in_another_order_are_refused():
    X, y = frame_with(None, columns=[0, 1, 2])
    un = of(X, y)
    with pytest.raises(ValueError, match="in this order"):
        un.apply(ex.AddRows(X.iloc[:1][[2, 1, 0]], 0.0))
    un.apply(ex.AddRows(X.iloc[:1], 0.0))


# Values


def test_values_go_by_the_labels_of_rows_and_columns():
    pandas = pytest.importorskip("pandas")
    index = shuffled()
    X, y = frame_with(index)
    now = X.to_numpy().copy()
    now[[4, 7]] = [[1.0, 2.0, now[4, 2]], [3.0, 4.0, now[7, 2]]]
    values = pandas.DataFrame({"b": [4.0, 2.0], "a": [3.0, 1.0]}, index=index[[7, 4]])
    for rows in ([4, 7], X.index[[4, 7]], X.index[[7, 4]], X.index.to_series().isin(index[[4, 7]])):
        un = of(X, y)
        un.apply(ex.CorrectValues(rows, ["a", "b"], values))
        assert_array_equal(un.corrected_data()[0], now)
    un = of(X, y)
    un.apply(ex.CorrectValues([4], ["a", "b"], pandas.Series({"b": 2.0, "a": 1.0})))
    un.apply(ex.CorrectValues([7, 4], "a", pandas.Series([1.0, 3.0], index=index[[4, 7]])))
    un.apply(ex.CorrectValues([7], [1], 4.0))
    assert_array_equal(un.corrected_data()[0], now)
    for bad in (values.rename(columns={"a": "z"}), values.reset_index(drop=True), values.iloc[:1]):
        with pytest.raises(ValueError, match=r"pass values.to_numpy\(\)"):
            un.apply(ex.CorrectValues([4, 7], ["a", "b"], bad))
    targets = pandas.Series([7.0, 4.0], index=index[[7, 4]])
    for rows in ([4, 7], X.index[[4, 7]]):
        un.apply(ex.CorrectLabels(rows, targets))
        assert_array_equal(un.corrected_data()[1][[4, 7]], [4.0, 7.0])
    with pytest.raises(ValueError, match=r"pass labels.to_numpy\(\)"):
        un.apply(ex.CorrectLabels([4, 8], targets))


def test_values_for_names_are_for_all_rows_of_each():
    X, y = data()
    un = of(X, y, ids=[i // 2 for i in range(N)])
    un.apply(ex.CorrectLabels(ids=[3, 1], labels=[30.0, 10.0]))
    assert_array_equal(un.corrected_data()[1][[2, 3, 6, 7]], [10.0, 10.0, 30.0, 30.0])
    un.apply(ex.CorrectValues(ids=[3, 1], columns=[0, 2], values=[[3.0, 4.0], [1.0, 2.0]]))
    assert_array_equal(un.corrected_data()[0][[2, 6, 7]][:, [0, 2]], [[1.0, 2.0], [3.0, 4.0], [3.0, 4.0]])
    un.apply(ex.CorrectValues(ids=[5], columns=[1], values=9.0))
    assert_array_equal(un.corrected_data()[0][[10, 11], 1], [9.0, 9.0])
    un.apply(ex.CorrectLabels(ids=[99, 1], labels=[0.0, 11.0], missing="ignore"))
    assert_array_equal(un.corrected_data()[1][[2, 3]], [11.0, 11.0])
    for labels in ([1.0, 2.0, 3.0], np.ones(4)):
        with pytest.raises(ValueError, match=r"entries for 2 names of rows: .* Unlearner.rows_of"):
            un.apply(ex.CorrectLabels(ids=[3, 1], labels=labels))
    with pytest.raises(ValueError, match="labels are missing"):
        un.apply(ex.CorrectLabels(ids=[3]))
    with pytest.raises(ValueError, match="columns or values are missing"):
        un.apply(ex.CorrectValues(ids=[3]))
    labelled = of(*frame_with([f"c{i}" for i in range(N)]))
    labelled.apply(ex.CorrectLabels(row_labels=["c7", "c5"], labels=[7.0, 5.0]))
    labelled.apply(ex.CorrectValues(labels="c7", columns="a", values=0.5))
    assert_array_equal(labelled.corrected_data()[1][[5, 7]], [5.0, 7.0])
    assert labelled.corrected_data()[0][7, 0] == 0.5


MASKED = np.ma.masked_array([1.0, 2.0, 3.0], mask=[False, True, False])


def test_masked_entries_are_refused():
    X, y = data()
    un = of(X, y, ids=list(range(N)))
    for request in (
        ex.RemoveRows(MASKED.astype(int)),
        ex.RemoveRows(ids=MASKED.astype(int)),
        ex.RevokeFeatures(MASKED.astype(int)),
        ex.CorrectLabels([1, 2, 3], MASKED),
        ex.CorrectLabels(ids=[1, 2, 3], labels=MASKED),
        ex.CorrectValues([1, 2, 3], [0], MASKED[:, None]),
        ex.CorrectValues(ids=[1, 2, 3], columns=[0], values=MASKED[:, None]),
        ex.AddRows(MASKED[None], [0.0], ids=["a"]),
        ex.AddRows(np.ones((3, 3)), MASKED, ids=list("abc")),
        ex.AddRows(np.ones((3, 3)), [0.0, 1.0, 2.0], MASKED, ids=list("abc")),
    ):
        with pytest.raises(ValueError, match="masked out"):
            un.apply(request)
    assert_unchanged(un)
    hidden = np.ma.masked_array(y, mask=np.arange(N) == 3)
    cells = np.ma.masked_array(X, mask=np.zeros((N, D), bool) | (np.arange(N) == 3)[:, None])
    for given in ((cells, y), (X, hidden), (X, y, np.ma.masked_array(np.ones(N), mask=hidden.mask))):
        with pytest.raises(ValueError, match="masked out"):
            ex.Ridge().fit(*given)
        with pytest.raises(ValueError, match="masked out"):
            ex.Unlearner(ex.Ridge().fit(X, y), *given)
        with pytest.raises(ValueError, match="masked out"):
            ex.residual(un.model, *given)
    with pytest.raises(ValueError, match="masked out"):
        ex.LogisticRegression().fit(X, np.ma.masked_array(y > 0, mask=hidden.mask))
    un.apply(ex.RemoveRows(np.ma.masked_array([1, 2], mask=False)))  # nothing is masked out
    assert_left(un, [1, 2])


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_of_dates_are_refused(library):
    Frame = pytest.importorskip(library).DataFrame
    X, y = data()
    day = datetime.datetime(2020, 1, 1)
    days = [day + datetime.timedelta(i) for i in range(N)]
    spans = [datetime.timedelta(i) for i in range(N)]
    model = ex.Ridge().fit(X[:, :2], y)
    for columns in ({"a": days, "b": days}, {"a": X[:, 0], "b": days}, {"a": spans, "b": X[:, 0]}):
        for act in (ex.Ridge().fit, lambda X, y: ex.Unlearner(model, X, y), lambda X, y: model.predict(X)):
            with pytest.raises(ValueError, match="not numbers"):
                act(Frame(columns), y)


def test_a_missing_label_is_named():
    pandas = pytest.importorskip("pandas")
    X, y = data()
    for dtype, values in (("boolean", y > 0), ("Int64", (y > 0).astype(int)), ("object", y > 0)):
        labels = pandas.Series(values, dtype=dtype)
        model = ex.LogisticRegression().fit(X, (y > 0) if dtype != "Int64" else (y > 0).astype(int))
        holes = labels.copy()
        holes[3] = pandas.NA
        with pytest.raises(ValueError, match=r"label (<NA>|nan) is not one of the classes"):
            ex.Unlearner(model, X, holes)
        un = ex.Unlearner(model, X, labels)
        with pytest.raises(ValueError, match=r"label (<NA>|nan)"):
            un.apply(ex.CorrectLabels([3, 4], holes.set_axis(range(N)).iloc[3:5]))
        with pytest.raises(ValueError, match="label <NA>"):
            un.apply(ex.CorrectLabels([3], pandas.NA))


# Ids


HASHABLE = {
    "int": [4700 + i // 2 for i in range(N)],
    "text": [f"customer {i // 2}" for i in range(N)],
    "bytes": [b"%d" % (i // 2) for i in range(N)],
    "tuples": [("shop", i // 2, None) for i in range(N)],
    "floats": [i // 2 + 0.5 for i in range(N)],
    "mixed": [i // 2 if i % 4 < 2 else str(i // 2) for i in range(N)],
    "uuid": [uuid.UUID(int=i // 2) for i in range(N)],
    "dates": [datetime.date(2020, 1, 1 + i // 2) for i in range(N)],
    "frozensets": [frozenset([i // 2]) for i in range(N)],
}


@pytest.mark.parametrize("ids", HASHABLE.values(), ids=HASHABLE)
def test_an_id_stands_for_all_its_rows(ids):
    un = of(*data(), ids=ids)
    assert_array_equal(un.rows_of(ids[7]), [6, 7])
    assert not un.is_forgotten(ids[7])
    un.apply(ex.RemoveRows([6]))
    assert_array_equal(un.rows_of(ids[7]), [7])
    assert not un.is_forgotten(ids[7])
    un.apply(ex.RemoveRows(ids=[ids[7], ids[0]]))
    assert un.is_forgotten(ids[7])
    assert un.is_forgotten(ids[0])
    assert_left(un, [0, 1, 6, 7])
    for act in (lambda: un.rows_of(ids[0]), lambda: un.apply(ex.RemoveRows(ids=[ids[20], ids[0]]))):
        with pytest.raises(ex.AlreadyForgotten) as raised:
            act()
        assert raised.value.ids == [ids[0]]
        assert isinstance(raised.value, ValueError)
    assert un.apply(ex.RemoveRows(ids=[ids[0]], missing="ignore")).rows_touched == 0
    with pytest.raises(ex.UnknownId) as raised:
        un.apply(ex.RemoveRows(ids=[ids[20], "nobody"]))
    assert raised.value.ids == ["nobody"]
    assert not un.is_forgotten("nobody")
    assert_left(un, [0, 1, 6, 7])
    un.drop_tombstones()
    assert not un.is_forgotten(ids[0])
    with pytest.raises(ex.UnknownId):
        un.apply(ex.RemoveRows(ids=[ids[0]]))
    un.apply(ex.RemoveRows(ids=[ids[0], "nobody"], missing="ignore"))
    assert_array_equal(un.rows_of(ids[20]), [20, 21])


def test_one_id_may_be_given_as_it_is_and_equal_ids_are_one():
    un = of(*data(), ids=HASHABLE["int"])
    un.apply(ex.RemoveRows(ids=4703))
    un.apply(ex.RemoveRows(ids=np.int64(4704)))
    un.apply(ex.RemoveRows(ids={4705, 4706}))
    un.apply(ex.RemoveRows(ids=np.array([4707, 4707])))
    assert_left(un, range(6, 16))
    assert all(un.is_forgotten(kind(4703)) for kind in (int, float, np.int64, np.float64))
    text = of(*data(), ids=HASHABLE["text"])
    text.apply(ex.RemoveRows(ids="customer 3"))
    assert_left(text, [6, 7])
    with pytest.raises(ex.UnknownId, match="a tuple is one id"):
        text.apply(ex.RemoveRows(ids=("customer 4", "customer 5")))


def test_one_list_may_add_and_remove_one_person():
    un = of(*data(), ids=HASHABLE["int"])
    row = np.ones((1, D))
    un.apply(
        [
            ex.AddRows(row, 0.0, ids=["new"]),
            ex.AddRows(row, 0.0, ids=[4703]),
            ex.CorrectLabels(ids=["new"], labels=1.0),
            ex.RemoveRows(ids=[4703]),
        ]
    )
    assert un.is_forgotten(4703)
    assert_array_equal(un.rows_of("new"), [N])
    with pytest.raises(ex.AlreadyForgotten):
        un.apply([ex.RemoveRows(ids=["new"]), ex.RemoveRows(ids=["new"])])
    un.apply(ex.AddRows(row, 0.0, ids=[4703]))  # comes back
    assert not un.is_forgotten(4703)
    assert_array_equal(un.rows_of(4703), [N + 2])


def test_ids_are_checked_before_anything_changes():
    pandas = pytest.importorskip("pandas")
    X, y = frame_with(shuffled())
    model = ex.Ridge().fit(X, y)
    before = model.coef_.copy()
    for ids, error, message in (
        (range(N - 1), ValueError, "ids has 39 entries, expected 40"),
        ("x" * N, TypeError, "must be a list"),
        ([None, *range(N - 1)], ValueError, "holds None at position 0, which names nobody"),
        ([*range(N - 1), float("nan")], ValueError, "names nobody"),
        ([[i] for i in range(N)], TypeError, "must be hashable, got list"),
        (np.ones((N, 2)), TypeError, "must be hashable"),
        (X, TypeError, "is a frame"),
        (pandas.Series(range(N), index=X.index[::-1]), ValueError, r"pass ids.loc\[X.index\]"),
        (pandas.Series(range(N)), ValueError, r"ids.to_numpy\(\)"),
    ):
        with pytest.raises(error, match=message):
            ex.Unlearner(model, X, y, ids=ids)
    assert_array_equal(model.coef_, before)
    un = ex.Unlearner(model, X, y, ids=pandas.Series(range(N), index=X.index))
    assert_array_equal(un.rows_of(3), [3])
    with pytest.raises(ValueError, match="these rows need ids"):
        un.apply(ex.AddRows(X.to_numpy()[:1], 0.0))
    with pytest.raises(ValueError, match="expected 1"):
        un.apply(ex.AddRows(X.to_numpy()[:1], 0.0, ids=["a", "b"]))
    bare = of(*data())
    for act in (
        lambda: bare.rows_of(3),
        lambda: bare.is_forgotten(3),
        lambda: bare.apply(ex.RemoveRows(ids=[3])),
        lambda: bare.apply(ex.AddRows(np.ones((1, D)), 0.0, ids=[3])),
        lambda: bare.corrected_data(return_ids=True),
    ):
        with pytest.raises(ValueError, match="knows no ids: make it with ids="):
            act()
    with pytest.raises(ValueError, match="16 or more"):
        ex.Unlearner(model, X, y, ids=range(N), key=b"short")


def test_corrected_data_with_numbers_ids_and_as_a_frame():
    X, y = frame_with(shuffled())
    un = of(X, y, ids=[f"p{i}" for i in range(N)])
    assert len(un.corrected_data()) == 3
    un.apply([ex.RemoveRows([0, 5]), ex.RevokeFeatures("b")])
    frame, targets, weights, rows, ids = un.corrected_data(return_rows=True, return_ids=True, as_frame=True)
    kept = np.setdiff1d(np.arange(N), [0, 5])
    assert_array_equal(rows, kept)
    assert ids == [f"p{i}" for i in kept]
    assert frame.equals(X.iloc[kept][["a", "c"]])
    assert_array_equal(targets, y.iloc[kept])
    assert weights is None
    again = ex.Unlearner(ex.Ridge().fit(frame, targets), frame, targets, ids=ids)
    again.apply(ex.RemoveRows(X.index[[7]]))
    assert again.is_forgotten("p7")
    with pytest.raises(ValueError, match="X was no frame"):
        of(*data()).corrected_data(as_frame=True)
    polars = pytest.importorskip("polars")
    X, y = data()
    un = of(polars.DataFrame(X, schema=["a", "b", "c"]), y)
    assert un.corrected_data(as_frame=True)[0].equals(polars.DataFrame(X, schema=["a", "b", "c"]))


# Detached, files, receipts


def test_a_detached_unlearner_knows_nobody():
    X, y = data()
    un = of(X, y, ids=HASHABLE["int"], key=KEY)
    un.apply(ex.RemoveRows(ids=[4703]))
    un.detach()
    for act in (lambda: un.rows_of(4704), lambda: un.is_forgotten(4703), un.drop_tombstones):
        with pytest.raises(ex.RowsRequired):
            act()
    with pytest.raises(TypeError, match="no numbered rows"):
        un.apply(ex.RemoveRows(ids=[4704]))
    with pytest.raises(ValueError, match="knows no ids"):
        un.apply(ex.AddRows(np.ones((1, D)), 0.0, ids=[1]))
    rows = np.delete(np.arange(N), [6, 7])
    un.attach(X[rows], y[rows], ids=[HASHABLE["int"][i] for i in rows])
    assert_array_equal(un.rows_of(4704), [6, 7])
    assert not un.is_forgotten(4703)


STORED = {name: HASHABLE[name] for name in ("int", "text", "bytes", "floats", "mixed")}
STORED["tuples"] = [("shop", i // 2, ("a", 1.5, True, b"x")) for i in range(N)]
STORED["strange"] = ["\0" * (i // 2) + '\ud800é\n"' for i in range(N)]


@pytest.mark.parametrize("ids", STORED.values(), ids=STORED)
@pytest.mark.parametrize("kind", ["none", "default", "shuffled", "text", "levels", "floats", "repeated"])
def test_ids_and_labels_go_through_a_file_with_rows(ids, kind, tmp_path):
    X, y = data()
    if kind != "none":
        X, y = frame_with([f"c{i % 10}" for i in range(N)] if kind == "repeated" else indices()[kind])
    un = of(X, y, ids=ids, key=KEY)
    un.apply(ex.RemoveRows(ids=[ids[6]]))
    un.apply(ex.AddRows(np.ones((1, D)), 0.0, ids=["new"]))
    un.save(tmp_path / "a", include_rows=True)
    loaded = ex.Unlearner.load(tmp_path / "a", key=KEY)
    assert loaded.corrected_data(return_ids=True)[3] == un.corrected_data(return_ids=True)[3]
    assert [*map(type, loaded.corrected_data(return_ids=True)[3])] == [*map(type, ids[:6] + ids[8:]), str]
    assert loaded.is_forgotten(ids[6])
    with pytest.raises(ex.AlreadyForgotten):
        loaded.apply(ex.RemoveRows(ids=[ids[6]]))
    if kind != "none":
        assert loaded.corrected_data(as_frame=True)[0].equals(un.corrected_data(as_frame=True)[0])
        with pytest.raises(ex.AlreadyForgotten if kind != "repeated" else ValueError):
            loaded.apply([ex.RemoveRows(X.index[[6]]), ex.RemoveRows(X.index[[6]])])
        loaded.apply(ex.RemoveRows(X.index[[20]]))
        un.apply(ex.RemoveRows(X.index[[20]]))
    loaded.apply(ex.RemoveRows(ids=["new"]))
    un.apply(ex.RemoveRows(ids=["new"]))
    assert_allclose(loaded.model.coef_, un.model.coef_, atol=1e-9)
    loaded.save(tmp_path / "b", include_rows=True)
    assert ex.Unlearner.load(tmp_path / "b", key=KEY).is_forgotten("new")
    assert not ex.Unlearner.load(tmp_path / "b").is_forgotten("new")  # not without the key
    with pytest.raises(ValueError, match="another key"):
        ex.Unlearner.load(tmp_path / "b", key=KEY[::-1])


def test_without_a_key_a_file_does_not_say_who_was_forgotten(tmp_path):
    un = of(*data(), ids=HASHABLE["int"])
    un.apply(ex.RemoveRows(ids=[4703]))
    un.save(tmp_path / "file", include_rows=True)
    with np.load(tmp_path / "file") as file:
        assert not [name for name in file.files if "tombstones" in name]
    with pytest.raises(ex.UnknownId):
        ex.Unlearner.load(tmp_path / "file").apply(ex.RemoveRows(ids=[4703]))


@pytest.mark.parametrize("name", ["uuid", "dates", "frozensets", "tuples"])
def test_ids_that_a_file_cannot_hold_are_refused_with_the_fix(name, tmp_path):
    un = of(*data(), ids=HASHABLE[name] if name != "tuples" else [(i, uuid.UUID(int=i)) for i in range(N)])
    with pytest.raises(TypeError, match=r"cannot be stored: .* ids=\[str\(id\)"):
        un.save(tmp_path / "file", include_rows=True)
    assert not list(tmp_path.iterdir())
    un.save(tmp_path / "file")


def test_labels_that_a_file_cannot_hold_are_refused_with_the_fix(tmp_path):
    un = of(*frame_with(indices()["dates"]))
    with pytest.raises(TypeError, match=r"Timestamp cannot be stored: .*astype\(str\)"):
        un.save(tmp_path / "file", include_rows=True)


def test_labels_of_columns_go_through_a_file(tmp_path):
    for columns in ([0, 1, 2], [7, "b", ("x", 2)]):
        X, y = frame_with(None, columns=columns)
        un = of(X, y)
        un.apply(ex.RevokeFeatures(X.columns[[1]]))
        for include_rows in (True, False):
            un.save(tmp_path / "file", include_rows=include_rows)
            loaded = ex.Unlearner.load(tmp_path / "file")
            with pytest.raises(ValueError, match="in this order"):
                loaded.apply(ex.AddRows(X.iloc[:1][X.columns[[2, 0]]], 0.0))
            loaded.apply(ex.RevokeFeatures([columns[2]]))
            assert_array_equal(loaded.get_support(), [True, False, False])


def damaged(entries):
    """Files whose names of rows cannot be those that were written, and what is wrong."""
    text = np.frombuffer

    def ids(given):
        return {**entries, "rows.ids": text(given, np.uint8)}

    listed = bytes(entries["rows.ids"])
    return {
        "too few": ids(b'["a"]'),
        "no list": ids(b"4"),
        "null": ids(listed.replace(b'"p3"', b"null")),
        "an object": ids(listed.replace(b'"p3"', b'{"a":1}')),
        "not a number": ids(listed.replace(b'"p3"', b"NaN")),
        "infinite": ids(listed.replace(b'"p3"', b"1e999")),
        "spaces": ids(listed.replace(b",", b", ", 1)),
        "deep": ids(listed.replace(b'"p3"', b"[" * 100000 + b"]" * 100000)),
        "labels": {**entries, "rows.labels": text(b'["a"]', np.uint8)},
        "library": {**entries, "rows.library": "os"},
        "digests": {**entries, "tombstones": np.zeros((2, 31), np.uint8)},
        "no check": {name: value for name, value in entries.items() if name != "tombstones.check"},
    }


def test_damaged_names_in_a_file_are_refused(tmp_path):
    un = of(*frame_with(shuffled()), ids=[f"p{i}" for i in range(N)], key=KEY)
    un.apply(ex.RemoveRows(ids=["p5"]))
    un.save(tmp_path / "good", include_rows=True)
    entries = archive.read(tmp_path / "good", "unlearner", (saved.VERSION,))
    archive.write(tmp_path / "file", "unlearner", saved.VERSION, entries)
    assert ex.Unlearner.load(tmp_path / "file", key=KEY).is_forgotten("p5")
    for what, bad in damaged(entries).items():
        archive.write(tmp_path / "file", "unlearner", saved.VERSION, bad)
        with pytest.raises(ValueError, match="is damaged"):
            pytest.fail(f"{what}: {ex.Unlearner.load(tmp_path / 'file')}")


SECRET = "Zacharias-4711"


def remains(un):
    """All objects that an Unlearner's own names of rows consist of."""
    seen, todo = [], [inside(un).data.row_names]
    while todo:
        value = todo.pop()
        seen.append(value)
        if isinstance(value, dict):
            todo += [*value, *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            todo += value
        elif isinstance(value, np.ndarray) and value.dtype == object:
            todo += value.tolist()
        elif type(value).__module__.startswith("expunge"):
            todo += vars(value).values()
    return seen


@pytest.mark.parametrize("by", ["id", "label", "number", "mask"])
def test_nothing_of_the_forgotten_survives_but_a_keyed_digest(by, tmp_path):
    index = [f"c{i}" for i in range(N)]
    index[9] = SECRET
    X, y = frame_with(index)
    un = of(X, y, ids=[*range(9), SECRET, *range(10, N)], key=KEY)
    how = {"id": {"ids": [SECRET]}, "label": {"labels": SECRET}, "number": {"rows": [9]}, "mask": {}}[by]
    un.rows_of(SECRET)
    un.apply(ex.CorrectLabels(row_labels=[SECRET], labels=1.0))
    update = un.apply(ex.RemoveRows(**how) if how else ex.RemoveRows(X.index.to_series() == SECRET))
    assert SECRET not in map(str, remains(un))
    un.save(tmp_path / "rows", include_rows=True)
    un.save(tmp_path / "bare")
    shown = [repr(un), repr(update), str(update), update.receipt(), update.receipt(KEY), repr(un.model)]
    shown += [repr(inside(un).data.row_names.ids), repr(ex.RemoveRows(**how))]
    stored = [(tmp_path / name).read_bytes() for name in ("rows", "bare")]
    stored += [pickle.dumps(update), pickle.dumps(un.model)]
    assert not any(SECRET in text for text in shown)
    for encoding in ("utf-8", "utf-16-le", "utf-32-le"):
        assert not any(SECRET[:9].encode(encoding) in value for value in stored)
    assert un.is_forgotten(SECRET)
    found = ex.receipts.find(update.receipt(KEY), KEY, id=SECRET)
    assert bool(found) == (by == "id")
    assert ex.receipts.find(update.receipt(KEY), KEY, row=9)
    assert not ex.receipts.find(update.receipt(KEY), KEY, id="c3")


def test_digests_depend_on_the_key(tmp_path):
    stones = []
    for key in (KEY, KEY[::-1]):
        un = of(*data(), ids=HASHABLE["int"], key=key)
        un.apply(ex.RemoveRows(ids=[4703]))
        un.save(tmp_path / "file", include_rows=True)
        with np.load(tmp_path / "file") as file:
            stones.append(file["tombstones"].tobytes())
    assert len(stones[0]) == 32
    assert stones[0] != stones[1]


def test_a_look_up_waits_until_the_request_of_another_thread_has_ended(monkeypatch):
    un, begun, go_on, seen = of(*data(), ids=HASHABLE["int"]), Event(), Event(), []
    act = fitted_module.fitted_attributes

    def slow(*arguments):  # when all but the last act is done
        begun.set()
        assert go_on.wait(30)
        return act(*arguments)

    monkeypatch.setattr(fitted_module, "fitted_attributes", slow)
    applies = Thread(target=un.apply, args=[ex.RemoveRows(ids=[4703])])
    looks = Thread(target=lambda: seen.append((un.is_forgotten(4703), un.rows_of(4704).tolist())))
    applies.start()
    assert begun.wait(30)
    looks.start()
    looks.join(0.2)
    assert not seen
    go_on.set()
    applies.join(30)
    looks.join(30)
    assert seen == [(True, [8, 9])]


def test_errors_go_through_a_pickle():
    for kind in (ex.UnknownId, ex.AlreadyForgotten):
        error = pickle.loads(pickle.dumps(kind([4711, 4712], "label")))
        assert (type(error), error.ids, error.kind) == (kind, [4711, 4712], "label")
        assert "label 4711 (and 1 more)" in str(error)


def test_many_people_are_found_as_fast_as_few():
    """By a table: no row but those of the person is looked at."""
    X, y = np.zeros((20_000, 1)), np.arange(20_000.0) / 20_000
    un = ex.Unlearner(ex.Ridge().fit(X, y), X, y, ids=[f"p{i // 2}" for i in range(20_000)])
    names = inside(un).data.row_names.ids
    looked_at = []

    class Counting(list):
        def __getitem__(self, row):
            looked_at.append(row)
            return super().__getitem__(row)

    names._given = Counting(names._given)
    assert_array_equal(un.rows_of("p5000"), [10_000, 10_001])
    assert looked_at == [10_000, 10_001]
