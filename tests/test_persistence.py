"""Unlearner.save and load: the same model bit for bit, or an error; and of the data what was asked for."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from problems import DENSE, SPARSE, WEIGHTED, in_pairs
from scipy import sparse
from sklearn import linear_model
from unlearning import (
    ALPHA,
    METHODS,
    assert_corrected_data,
    assert_retrained,
    assert_vouched,
    by_value,
    each_loss,
    each_weighting,
    gradient_and_floor,
    inside,
    make_data,
    requests_for,
    theta_of,
    unlearner,
)

import expunge as ex
from expunge.engine import data as data_module
from expunge.files import archive, saved

in_four_forms = pytest.mark.parametrize("form", ["float64_c", "float32_f", "csr_int32", "csr_float32"])
each_content = pytest.mark.parametrize("include_rows", [False, True], ids=["statistics", "rows"])


def entries_of(path):
    return archive.read(path, "unlearner", [saved.VERSION])


def rewrite(path, **changes):
    """The file with these entries; None removes one. Its checksum is right."""
    entries = {name.replace("__", "."): value for name, value in changes.items()}
    kept = {name: value for name, value in (entries_of(path) | entries).items() if value is not None}
    archive.write(path, "unlearner", saved.VERSION, kept)


def assert_same_model(loaded, model, X):
    assert type(loaded) is type(model)
    assert loaded.get_params() == model.get_params()
    fitted, expected = vars(loaded)["_fitted"], vars(model)["_fitted"]
    assert set(fitted) == set(expected)
    for name, value in expected.items():
        assert type(fitted[name]) is type(value), name
        assert np.asarray(fitted[name]).dtype == np.asarray(value).dtype
        assert np.asarray(fitted[name]).tolist() == np.asarray(value).tolist(), name
    assert loaded.predict(X).tolist() == model.predict(X).tolist()
    if hasattr(model, "decision_function"):
        assert loaded.decision_function(X).tobytes() == model.decision_function(X).tobytes()
    assert not fitted["coef_"].flags.writeable


def state_of(un):
    state = inside(un).state
    return {
        "fitted": {name: np.asarray(value).tolist() for name, value in vars(un.model)["_fitted"].items()},
        "theta": state.theta.tobytes(),
        "statistics": state.statistics and state.statistics.tallies,
        "hessian": state.statistics and state.statistics.anchor.hessian.tobytes(),
        "effort": inside(un).effort,
        "state": id(state),
        "held": id(inside(un).held),
        "support": un.get_support().tolist(),
    }


# Round trips


@in_four_forms
@each_content
@pytest.mark.parametrize(
    ("fit_intercept", "weighted"), [(False, False), (True, True)], ids=["plain", "weighted-intercept"]
)
@each_loss
def test_what_is_loaded_is_what_was_saved(loss, fit_intercept, weighted, include_rows, form, tmp_path):
    data, requests = make_data(loss, weighted=weighted, zeros=True), requests_for(loss)["mixed"]
    represent = (DENSE | SPARSE)[form]
    un = unlearner(data, loss, fit_intercept, represent=represent, tolerance=1e-6, max_iter=77)
    un.apply(requests)
    data = data.after(*requests)
    before = state_of(un)
    un.save(tmp_path / "file", include_rows=include_rows)
    assert state_of(un) == before
    loaded = ex.Unlearner.load(tmp_path / "file")
    assert loaded.attached == include_rows
    assert_same_model(loaded.model, un.model, represent(data.rows[0]))
    assert (loaded.tolerance, loaded.residual_on_entry) == (un.tolerance, un.residual_on_entry)
    assert_array_equal(loaded.get_support(), un.get_support())
    more = [ex.RemoveRows([9, 62]), ex.CorrectLabels([12, 61], 1.0), ex.CorrectValues([15], [0], 2.0)]
    if include_rows:
        assert_corrected_data(loaded, data)
        assert inside(loaded).held.n_rows == inside(un).held.n_rows
        with pytest.raises(ValueError, match="row 60 was removed before"):
            loaded.apply(ex.RemoveRows([60]))
        with pytest.raises(ValueError, match="column 4 was revoked before"):
            loaded.apply(ex.RevokeFeatures([4]))
        assert_vouched(loaded, loaded.apply(more))
    else:
        update = loaded.apply(by_value(data, more), method="second_order")
        residual, floor = gradient_and_floor(loaded, data.after(*more), theta_of(loaded.model))
        assert np.linalg.norm(residual) - floor <= update.residual_bound
        loaded.attach(represent(data.after(*more).rows[0]), *data.after(*more).rows[1:])
        loaded.apply([], method="exact")
    un.apply(more)
    assert_retrained(loaded, data.after(*more))
    assert_retrained(un, data.after(*more))


def numbered(held):
    """All rows at once: numbers, X, y, s."""
    X, y, s = held.current()
    return held.register.live(), X, y, np.ones(y.size) if s is None else s


@in_four_forms
@each_weighting
def test_numbered_rows_restore_the_data_they_were_asked_of(weighted, form):
    """What files are made of: numbers, kept columns, names, weights."""
    data, requests = make_data("logistic", weighted=weighted, zeros=True), requests_for("logistic")["mixed"]
    un = unlearner(data, "logistic", True, represent=(DENSE | SPARSE)[form])
    un.apply(requests)
    data, held = data.after(*requests), inside(un).held
    numbers, X, y, s = numbered(held)
    assert_array_equal(numbers, np.flatnonzero(data.live))
    restored = type(held).from_numbered(
        (numbers, X, y, s), held.n_rows, held.kept, list("abcdef"), classes=True, weighted=held.weighted
    )
    for value, expected in zip(numbered(restored), (numbers, X, y, s), strict=True):
        if hasattr(value, "toarray"):
            value, expected = value.tocoo(), expected.tocoo()
            assert_array_equal(value.coords, expected.coords)
            value, expected = value.data, expected.data
        assert_array_equal(value, expected)
        assert value.dtype == expected.dtype
    assert (restored.n_rows, restored.weighted, restored.classes) == (held.n_rows, held.weighted, True)
    assert_array_equal(restored.counts, held.counts)
    assert_array_equal(restored.kept, held.kept)
    assert restored.surviving_names() == [
        name for name, kept in zip("abcdef", held.kept, strict=True) if kept
    ]
    with pytest.raises(ValueError, match="row 6 was removed before"):
        restored.register.require(restored.rows([6]))


@each_content
@each_loss
def test_a_stream_goes_on_after_loading(loss, include_rows, tmp_path):
    """Saved after every request, statistics keep their bound proven and their place."""
    data = make_data(loss, n=500)
    un = unlearner(data, loss, True)
    inside(un).tolerance = 1e9
    if not include_rows:
        un.detach()
    for row in range(2, 40):
        request = ex.RemoveRows([row])
        update = un.apply([request] if include_rows else by_value(data, [request]))
        data = data.after(request)
        residual, floor = gradient_and_floor(un, data, theta_of(un.model))
        assert np.linalg.norm(residual) - floor <= update.residual_bound
        if row % 3 == 0:
            un.save(tmp_path / "file", include_rows=include_rows)
            un = ex.Unlearner.load(tmp_path / "file")
    if not include_rows:
        assert update.since_anchor == 38
        un.attach(*data.rows)
    assert_corrected_data(un, data)
    un.apply([], method="exact")
    inside(un).tolerance = 1e-8
    un.apply([], method="exact")
    assert_retrained(un, data)


def residual_in_long_double(X, y, theta, alpha):
    """Of a ridge without intercept."""
    A, theta = X.astype(np.longdouble), theta.astype(np.longdouble)
    return float(np.linalg.norm(A.T @ (A @ theta - y) + alpha * theta))


@pytest.mark.parametrize("condition", [1e2, 1e8])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_bounds_stay_proven_through_files_to_the_last_bit(dtype, condition, tmp_path):
    """98 % of the rows leave, one by one; the squared loss has no remainder that could hide rounding."""
    rng = np.random.default_rng(1)
    X = (rng.standard_normal((300, 12)) * np.logspace(0.0, -0.5 * np.log10(condition), 12)).astype(dtype)
    y = X.astype(np.float64) @ rng.standard_normal(12) + 0.1 * rng.standard_normal(300)
    un = ex.Unlearner(ex.Ridge(1e-3, fit_intercept=False).fit(X, y), X, y, tolerance=1e-6).detach()
    for row in range(294):
        update = un.apply(ex.Edit(before=(X[row : row + 1], y[row : row + 1])))
        if row % 7 == 0:
            un.save(tmp_path / "file")
            un = ex.Unlearner.load(tmp_path / "file")
            update = un.apply([])
            left = X[row + 1 :], y[row + 1 :]
            assert residual_in_long_double(*left, theta_of(un.model), 1e-3) <= update.residual_bound <= 1e-8
    un.attach(X[294:], y[294:])


LABELS = {
    "bool": np.array([False, True]),
    "int64": np.array([-1, 1]),
    "uint8": np.array([3, 7], dtype=np.uint8),
    "float64": np.array([-1.0, 2.0]),
    "text": np.array(["benign", "malignant"]),
    "snow": np.array(["", "\N{SNOWMAN}"]),
    "objects": np.array(["no", "yes"], dtype=object),
}


@each_content
@pytest.mark.parametrize("labels", LABELS)
def test_class_labels_come_back_as_they_were(labels, include_rows, tmp_path):
    data, classes = make_data("logistic"), LABELS[labels]
    y = classes[data.y.astype(int)]
    un = ex.Unlearner(ex.LogisticRegression(ALPHA).fit(data.X, y), data.X, y)
    un.save(tmp_path / "file", include_rows=include_rows)
    loaded = ex.Unlearner.load(tmp_path / "file")
    assert loaded.model.classes_.dtype == un.model.classes_.dtype
    assert [type(label) for label in loaded.model.classes_.tolist()] == [
        type(label) for label in classes.tolist()
    ]
    assert_same_model(loaded.model, un.model, data.X)
    if include_rows:
        assert loaded.corrected_data()[1].tolist() == y.tolist()
    else:
        loaded.attach(data.X, y)


def test_other_class_labels_are_refused_before_anything_is_written(tmp_path):
    data = make_data("logistic")
    for classes in (
        np.array([1, 2], dtype=object),
        np.array(["a", 1], dtype=object),
        np.array([b"no", b"yes"]),
        np.array(["a\0", "b"], dtype=object),
    ):
        un = unlearner(data, "logistic", True)
        inside(un).problem = dataclasses.replace(inside(un).problem, classes=classes)
        with pytest.raises(TypeError, match="cannot be stored"):
            un.save(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:residual")  # of 7 iterations
@each_content
@pytest.mark.parametrize("parameters", [{}, {"memory_limit": 1e6, "solver": "cholesky", "max_iter": 7}])
@each_loss
def test_parameters_come_back(loss, parameters, include_rows, tmp_path):
    un = unlearner(make_data(loss), loss, False, alpha=0.25, tolerance=1e-5, **parameters)
    un.save(tmp_path / "file", include_rows=include_rows)
    loaded = ex.Unlearner.load(tmp_path / "file")
    assert loaded.model.get_params() == un.model.get_params()
    assert loaded.retrain().get_params() == un.retrain().get_params() if include_rows else True


@each_content
def test_names_of_a_frame_come_back_but_for_revoked_ones(include_rows, tmp_path):
    pandas = pytest.importorskip("pandas")
    data = make_data("squared")
    frame = pandas.DataFrame(data.X, columns=["age", "zip", "c", "d", "secret_name", "f"])
    un = ex.Unlearner(ex.Ridge(ALPHA).fit(frame, data.y), frame, data.y)
    un.apply(ex.RevokeFeatures("secret_name"))
    un.save(tmp_path / "file", include_rows=include_rows)
    assert b"secret" not in (tmp_path / "file").read_bytes().replace(b"\0", b"")  # text is UTF-32
    loaded = ex.Unlearner.load(tmp_path / "file")
    assert_same_model(loaded.model, un.model, frame.drop(columns="secret_name"))
    assert_array_equal(loaded.get_support(indices=True), [0, 1, 2, 3, 5])
    loaded.apply([ex.RevokeFeatures(["zip"]), ex.AddRows(frame[:1], data.y[:1])])
    assert list(loaded.model.feature_names_in_) == ["age", "c", "d", "f"]
    with pytest.raises(ValueError, match=r"unknown column 'secret_name': the columns are|was revoked before"):
        loaded.apply(ex.RevokeFeatures("secret_name"))
    assert_retrained(loaded, data.after(ex.RevokeFeatures([1, 4]), ex.AddRows(loaded_row(data), data.y[:1])))


def loaded_row(data):
    return data.X[:1][:, [0, 2, 3, 5]]


@each_content
@pytest.mark.parametrize("kind", [linear_model.Ridge, linear_model.LogisticRegression])
def test_an_adopted_model_is_loaded_as_one_of_expunge(kind, include_rows, tmp_path):
    loss = "squared" if kind is linear_model.Ridge else "logistic"
    data = make_data(loss)
    options = {"alpha": ALPHA} if loss == "squared" else {"C": 1.0 / ALPHA}
    un = ex.Unlearner(kind(**options).fit(data.X, data.y), data.X, data.y)
    un.save(tmp_path / "file", include_rows=include_rows)
    loaded = ex.Unlearner.load(tmp_path / "file")
    assert type(loaded.model) is (ex.Ridge if loss == "squared" else ex.LogisticRegression)
    assert loaded.model.alpha == ALPHA
    assert_array_equal(theta_of(loaded.model), np.append(np.ravel(un.model.coef_), un.model.intercept_))
    assert_array_equal(loaded.model.predict(data.X), un.model.predict(data.X))
    assert_allclose(loaded.model.residual_, un.residual(), atol=1e-12)
    loaded.save(tmp_path / "again", include_rows=include_rows)
    again = ex.Unlearner.load(tmp_path / "again")
    assert_array_equal(theta_of(again.model), theta_of(loaded.model))
    assert not hasattr(again.model, "n_iter_")  # scikit-learn's iterations were none of ours


# What a file holds


@in_four_forms
@each_loss
def test_only_the_current_rows_are_saved_and_only_if_asked_for(loss, form, tmp_path):
    """Removed rows, superseded values, revoked columns: marked by numbers that no other arithmetic makes."""
    data = make_data(loss)
    data.X[5], data.X[6, 1], data.X[:, 4] = 1234.5, 4321.5, 77.25
    data.X[7] = 5678.25
    represent = (DENSE | SPARSE)[form]
    un = unlearner(data, loss, True, represent=represent, tolerance=1e-2)
    un.apply([ex.RemoveRows([5]), ex.CorrectValues([6, 7], [1], 3.0), ex.RevokeFeatures([4])])
    data = data.after(ex.RemoveRows([5]), ex.CorrectValues([6, 7], [1], 3.0), ex.RevokeFeatures([4]))
    for include_rows in (False, True):
        un.save(tmp_path / "file", include_rows=include_rows)
        content = (tmp_path / "file").read_bytes()
        dtype = inside(un).held.dtype
        held = {value: np.array(value, dtype=dtype).tobytes() in content for value in MARKS}
        assert held == {1234.5: False, 4321.5: False, 77.25: False, 5678.25: include_rows}
        rows = [name for name in entries_of(tmp_path / "file") if name.startswith("rows.")]
        assert bool(rows) == include_rows
    entries = entries_of(tmp_path / "file")
    assert_array_equal(entries["rows.numbers"], np.flatnonzero(data.live))
    assert_array_equal(entries["rows.y"], data.rows[1])


MARKS = (1234.5, 4321.5, 77.25, 5678.25)


# Rows go to a file in panels


LAYOUTS = {
    "c": np.ascontiguousarray,
    "f": np.asfortranarray,
    "float32": lambda X: X.astype(np.float32),
    "csr_int32": sparse.csr_array,
    "csr_int64": lambda X: with_wide_indices(sparse.csr_array(X)),
    "csr_float32": lambda X: sparse.csr_array(X.astype(np.float32)),
}
each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def with_wide_indices(X):
    X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    return X


HISTORIES = {
    "none": [],
    "removals": [ex.RemoveRows(slice(3, 200, 3))],
    "corrections": [
        ex.CorrectValues([1, 2, 170], [0], 2.5),
        ex.CorrectValues([2], [1], 0.0),
        ex.CorrectLabels([5], 1.0),
    ],
    "columns": [ex.RevokeFeatures([1, 3])],
    "all_corrected": [ex.CorrectValues(slice(0, 230), [2], 1.5)],
    "mixed": [
        ex.RemoveRows([0, 229, 100]),
        ex.CorrectValues([7, 150], [0, 2], 2.5),
        ex.RevokeFeatures([3]),
        ex.CorrectLabels([8], 0.0),
        ex.RemoveRows(slice(20, 90)),
    ],
    "most_columns_gone": [ex.RevokeFeatures([0, 1, 2, 3]), ex.RemoveRows([4])],
}


def small_panels(monkeypatch):
    monkeypatch.setattr(data_module, "COPIED_TOGETHER", 7)
    monkeypatch.setattr(data_module, "PANEL_BYTES", 150)


def sparse_problem(loss, n=230, d=6):
    data = make_data(loss, n=n, d=d)
    data.X[np.random.default_rng(1).random(data.X.shape) < 0.6] = 0.0
    data.X[11] = 0.0
    return data


@in_pairs(history=list(HISTORIES), added={"-": False, "added": True}, weighted=WEIGHTED, layout=list(LAYOUTS))
def test_rows_in_panels_make_the_file_that_rows_at_once_make(
    history, added, weighted, layout, tmp_path, monkeypatch
):
    data = sparse_problem("logistic")
    s = np.random.default_rng(2).uniform(0.5, 2.0, data.y.size) if weighted else None
    X = LAYOUTS[layout](data.X)
    un = ex.Unlearner(ex.LogisticRegression(ALPHA).fit(X, data.y, s), X, data.y, s)
    un.apply(HISTORIES[history])
    if added:
        rows = np.full((3, inside(un).held.n_columns), 0.5)
        un.apply(ex.AddRows(rows, [0.0, 1.0, 1.0], weighted and [1.0, 2.0, 0.5]))
    if history == "none" and not added and "csr" in layout:
        assert inside(un).held.X.indices.dtype == (np.int64 if "64" in layout else np.int32)
    held = inside(un).held
    small_panels(monkeypatch)
    un.save(tmp_path / "panels", include_rows=True)
    monkeypatch.setattr(held, "streamed", lambda: numbered(held))
    write = archive.write

    def whole(path, kind, version, entries):
        X = numbered(held)[1]
        if sparse.issparse(X):
            entries |= {f"rows.X.{part}": getattr(X, part) for part in ("data", "indices", "indptr")}
        else:
            entries["rows.X"] = X
        order = list(entries_of(tmp_path / "panels"))
        write(path, kind, version, {name: entries[name] for name in order})

    monkeypatch.setattr(archive, "write", whole)
    un.save(tmp_path / "whole", include_rows=True)
    assert (tmp_path / "panels").read_bytes() == (tmp_path / "whole").read_bytes()
    monkeypatch.undo()
    assert_array_equal(inside(ex.Unlearner.load(tmp_path / "panels")).held.kept, held.kept)


@each_layout
def test_panels_are_no_larger_than_they_may_be(layout, monkeypatch):
    data = sparse_problem("squared", n=300, d=9)
    X = LAYOUTS[layout](data.X)
    un = ex.Unlearner(ex.Ridge(ALPHA).fit(X, data.y), X, data.y)
    un.apply([ex.RevokeFeatures([1, 2]), ex.RemoveRows([5])])
    whole = un.corrected_data()[0]
    small_panels(monkeypatch)
    held = inside(un).held
    panels = [held._current(rows)[0] for rows in held._cut_fine(held.register.live())]
    for panel in panels:
        size = panel.data.nbytes + panel.indices.nbytes if sparse.issparse(panel) else panel.nbytes
        assert panel.shape[0] <= 7
        assert size <= 2 * 150 or panel.shape[0] == 1
    together = sparse.vstack(panels).toarray() if sparse.issparse(whole) else np.concatenate(panels)
    assert_array_equal(together, whole.toarray() if sparse.issparse(whole) else whole)
    assert len(panels) > 299 / 7


def large(layout, n=40_000, d=125):
    """40 MB or, of a sparse X, about as much."""
    rng = np.random.default_rng(0)
    if not layout.startswith("csr"):
        return LAYOUTS[layout](rng.standard_normal((n, d)))
    X = sparse.random_array((n, 2000), density=0.04, format="csr", random_state=rng)
    X.indices, X.indptr = X.indices.astype(np.int32), X.indptr.astype(np.int32)
    return with_wide_indices(X) if "64" in layout else X


def size_of(X):
    return X.nbytes if isinstance(X, np.ndarray) else X.data.nbytes + X.indices.nbytes + X.indptr.nbytes


def peak_of(call):
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:residual")
@pytest.mark.parametrize("layout", ["c", "f", "csr_int32", "csr_int64"])
def test_a_save_with_rows_holds_a_panel_of_them_and_a_load_holds_them_once(layout, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    X = large(layout)
    n, d = X.shape
    y = np.asarray(X @ np.random.default_rng(1).standard_normal(d))
    model = ex.Ridge(10.0, tol=1e9, max_iter=1, solver="cg" if "csr" in layout else "auto").fit(X, y)
    un = ex.Unlearner(model, X, y, tolerance=1e9)
    requests = [
        ex.RemoveRows([5, n - 1]),
        ex.CorrectValues([3, n // 2], [0], 2.5),
        ex.RevokeFeatures([1]),
    ]
    un.apply(requests)
    un.apply(ex.AddRows(np.full((3, d - 1), 0.5), np.zeros(3)))
    size = size_of(X)
    assert size > 38e6
    save = peak_of(lambda: un.save(tmp_path / "file", include_rows=True))
    load = peak_of(lambda: ex.Unlearner.load(tmp_path / "file"))
    print(f"{layout}: save {save / size:.3f}, load {load / size:.3f} x X")
    assert save < 0.2 * size
    assert load < 1.3 * size
    assert_array_equal(entries_of(tmp_path / "file")["rows.y"], un.corrected_data()[1])


@each_loss
def test_the_statistics_in_a_file_are_anchored_at_the_model(loss, tmp_path):
    """So that it holds no earlier model."""
    data = make_data(loss, n=300)
    un = unlearner(data, loss, True, tolerance=10.0)
    for row in (3, 4, 5):
        un.apply(ex.RemoveRows(row))
    assert inside(un).since_anchor == 3
    un.save(tmp_path / "file")
    entries = entries_of(tmp_path / "file")
    assert_array_equal(entries["statistics.theta"], theta_of(un.model))
    assert inside(un).since_anchor == 3


@each_content
def test_conjugate_gradients_keep_no_hessian(include_rows, tmp_path):
    data = make_data("squared", n=30, d=40)
    un = unlearner(data, "squared", True, solver="cg")
    if not include_rows:
        with pytest.raises(ValueError, match="solver='cg' does not keep"):
            un.save(tmp_path / "file")
        assert list(tmp_path.iterdir()) == []
        return
    un.apply(ex.RemoveRows([3]))
    un.save(tmp_path / "file", include_rows=True)
    assert "statistics.hessian" not in entries_of(tmp_path / "file")
    loaded = ex.Unlearner.load(tmp_path / "file")
    assert_same_model(loaded.model, un.model, data.X)
    requests = [ex.RemoveRows([4]), ex.RevokeFeatures([0])]
    loaded.apply(requests)
    assert_retrained(loaded, data.after(ex.RemoveRows([3]), *requests))


def test_a_detached_unlearner_has_no_rows_to_save(tmp_path):
    un = unlearner(make_data("squared"), "squared", True).detach()
    with pytest.raises(ex.RowsRequired, match="attach"):
        un.save(tmp_path / "file", include_rows=True)
    assert list(tmp_path.iterdir()) == []
    before = state_of(un)
    un.save(tmp_path / "file")
    assert state_of(un) == before
    un.save(tmp_path / "again")
    ex.Unlearner.load(tmp_path / "file").save(tmp_path / "third")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "file").read_bytes()
    assert (tmp_path / "third").read_bytes() == (tmp_path / "file").read_bytes()


def test_a_model_changed_from_outside_is_not_saved(tmp_path):
    un = unlearner(make_data("squared"), "squared", True)
    un.model.coef_ = 2.0 * un.model.coef_
    with pytest.raises(ValueError, match="changed outside of this Unlearner"):
        un.save(tmp_path / "file")


def test_a_save_waits_for_a_request_and_a_request_for_a_save(tmp_path, monkeypatch):
    data = make_data("squared")
    un = unlearner(data, "squared", True)
    begun, go_on = threading.Event(), threading.Event()
    write = archive.write

    def slow(*arguments):
        begun.set()
        go_on.wait(30)
        write(*arguments)

    monkeypatch.setattr(archive, "write", slow)
    saving = threading.Thread(target=un.save, args=[tmp_path / "file"])
    saving.start()
    begun.wait(30)
    applying = threading.Thread(target=un.apply, args=[ex.RemoveRows([3])])
    applying.start()
    applying.join(0.2)
    assert applying.is_alive()
    go_on.set()
    saving.join(30)
    applying.join(30)
    assert int(entries_of(tmp_path / "file")["counts"].sum()) == 60
    assert inside(un).held.counts.sum() == 59


# Files that are not right


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """name -> bytes of a saved file."""
    folder = tmp_path_factory.mktemp("saved")
    contents = {}
    for name, form, include_rows in (
        ("statistics", "float64_c", False),
        ("dense", "float64_c", True),
        ("sparse", "csr_int32", True),
    ):
        data = make_data("logistic", zeros=True)
        un = unlearner(data, "logistic", True, represent=(DENSE | SPARSE)[form])
        un.apply([ex.RemoveRows([5]), ex.RevokeFeatures([1])])
        un.save(folder / name, include_rows=include_rows)
        contents[name] = (folder / name).read_bytes()
    return contents


@pytest.mark.parametrize("name", ["statistics", "dense", "sparse"])
def test_a_damaged_file_is_an_error_that_names_it(name, files, tmp_path):
    path, whole = tmp_path / "file", files[name]
    rng = np.random.default_rng(0)
    damaged = [whole[:length] for length in rng.integers(0, len(whole), 100)]
    for bit in rng.choice(8 * len(whole), 300, replace=False):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << (bit % 8)
        damaged.append(bytes(flipped))
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            loaded = ex.Unlearner.load(path)
        except ValueError as error:
            message = str(error)
        else:
            assert loaded.attached == (name != "statistics")
            continue
        assert str(path) in message
        refused += 1
    assert refused > 0.8 * len(damaged)  # the rest are timestamps and the like


def test_other_files_are_refused(files, tmp_path):
    path = tmp_path / "file"
    with pytest.raises(FileNotFoundError):
        ex.Unlearner.load(path)
    np.savez(path, theta=np.ones(3))
    with pytest.raises(ValueError, match="not an expunge file"):
        ex.Unlearner.load(f"{path}.npz")
    path.write_bytes(files["statistics"])
    entries = entries_of(path)
    archive.write(path, "certificate", 1, entries)
    with pytest.raises(ValueError, match="holds 'certificate', expected 'unlearner'"):
        ex.Unlearner.load(path)
    archive.write(path, "unlearner", saved.VERSION + 1, entries)
    with pytest.raises(ValueError, match="newer version"):
        ex.Unlearner.load(path)


def test_files_of_version_1_are_read(files, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(files["statistics"])
    entries = entries_of(path)
    del entries["theta_bound"]
    archive.write(path, "unlearner", 1, entries)
    loaded = ex.Unlearner.load(path)
    assert loaded.theta_bound == 100.0
    assert loaded.budget is None


P = 6  # five columns and the intercept
H = np.eye(P)
INCONSISTENT = {
    "no_theta": ("statistics", {"theta": None}, "theta is missing"),
    "no_statistics": ("statistics", {"statistics__theta": None}, "statistics.theta is missing"),
    "unknown_entry": ("statistics", {"more": 1}, "unknown entry 'more'"),
    "theta_short": ("statistics", {"theta": np.ones(5)}, "theta has dtype float64 and shape"),
    "theta_float32": ("statistics", {"theta": np.ones(P, dtype=np.float32)}, "theta has dtype float32"),
    "theta_nan": ("statistics", {"theta": np.full(P, np.nan)}, "theta contains NaN"),
    "theta_text": ("statistics", {"theta": ["a"] * P}, "theta has dtype"),
    "model": ("statistics", {"model": "Lasso"}, "unknown model 'Lasso'"),
    "alpha": ("statistics", {"alpha": 0.0}, "alpha must be"),
    "alpha_nan": ("statistics", {"alpha": np.nan}, "alpha contains NaN"),
    "no_intercept": ("statistics", {"fit_intercept": False}, "shape"),
    "intercept_number": ("statistics", {"fit_intercept": 1}, "fit_intercept has dtype"),
    "tol": ("statistics", {"tol": -1.0}, "tol must be"),
    "tolerance": ("statistics", {"tolerance": -1.0}, "tolerance must be"),
    "solver": ("statistics", {"solver": "lu"}, "unknown solver"),
    "memory_limit": ("statistics", {"memory_limit": -1.0}, "memory_limit must be"),
    "classes": ("statistics", {"classes": np.array([1, 1])}, "the two classes are one"),
    "three_classes": ("statistics", {"classes": np.arange(3)}, "classes has dtype"),
    "kept": ("statistics", {"kept": np.ones(6, dtype=bool)}, "shape"),
    "kept_none": ("statistics", {"kept": np.zeros(6, dtype=bool)}, "kept or counts"),
    "names": ("statistics", {"names": ["a", "b"]}, "names has dtype"),
    "named": ("statistics", {"named": True}, "names is missing"),
    "counts": ("statistics", {"counts": np.array([59, 0])}, "kept or counts"),
    "counts_negative": ("statistics", {"counts": np.array([-1, 60])}, "kept or counts"),
    "counts_other": ("statistics", {"counts": np.array([20, 20])}, "statistics.numbers cannot be"),
    "dtype": ("statistics", {"dtype": "int8"}, "unknown dtype"),
    "since_anchor": ("statistics", {"since_anchor": -1}, "since_anchor is negative"),
    "hessian_shape": ("statistics", {"statistics__hessian": np.eye(5)}, "statistics.hessian has dtype"),
    "hessian_asymmetric": ("statistics", {"statistics__hessian": np.triu(np.ones((P, P)))}, "not symmetric"),
    "hessian_indefinite": ("statistics", {"statistics__hessian": -H}, "not positive definite"),
    "hessian_inf": (
        "statistics",
        {"statistics__hessian": np.full((P, P), np.inf)},
        "contains NaN or infinity",
    ),
    "gradient": ("statistics", {"statistics__gradient": np.ones((P, 1))}, "statistics.gradient has dtype"),
    "numbers": ("statistics", {"statistics__numbers": np.ones(7)}, "statistics.numbers has dtype"),
    "numbers_negative": ("statistics", {"statistics__numbers": -np.ones(8)}, "statistics.numbers cannot be"),
    "other_statistics": ("dense", {"statistics__gradient": np.ones(P)}, "differs from the statistics"),
    "theta_bound": ("statistics", {"theta_bound": 0.0}, "theta_bound must be"),
    "noise_negative": ("statistics", {"noise__sigma": -1.0, "noise__draws": 0}, "noise.sigma cannot be"),
    "noise_alone": ("statistics", {"noise__sigma": 1.0}, "noise.draws is missing"),
    "noise_short": (
        "statistics",
        {"noise__sigma": 1.0, "noise__draws": 0, "noise__b": np.ones(2)},
        "noise.b has dtype",
    ),
    "noise_seed": (
        "statistics",
        {"noise__sigma": 1.0, "noise__draws": 0, "noise__random_state": "x"},
        "invalid literal",
    ),
    "budget_alone": (
        "statistics",
        {"budget": [0.1, 0.1, 0.0], "budget__on_exhausted": "raise"},
        "a model with noise",
    ),
    "budget_epsilon": (
        "statistics",
        {
            "noise__sigma": 1.0,
            "noise__draws": 0,
            "budget": [2.0, 0.1, 0.0],
            "budget__on_exhausted": "raise",
        },
        "epsilon",
    ),
    "budget_exhausted": (
        "statistics",
        {
            "noise__sigma": 1.0,
            "noise__draws": 0,
            "budget": [0.5, 0.1, 0.0],
            "budget__on_exhausted": "sell",
        },
        "unknown on_exhausted",
    ),
    "rows_twice": ("dense", {"rows__numbers": np.zeros(59, dtype=int)}, "rows.numbers do not ascend"),
    "rows_beyond": ("dense", {"rows__count": 59}, "rows.numbers do not ascend"),
    "rows_count": ("dense", {"rows__count": -1}, "rows.count is negative"),
    "rows_X": ("dense", {"rows__X": np.ones((59, 4))}, "rows.X has dtype"),
    "rows_X_float32": ("dense", {"rows__X": np.ones((59, 5), dtype=np.float32)}, "rows.X has dtype float32"),
    "rows_X_nan": ("dense", {"rows__X": np.full((59, 5), np.nan)}, "rows.X contains NaN"),
    "rows_y": ("dense", {"rows__y": np.full(59, 0.5)}, "0 or 1|y must|targets"),
    "rows_s": ("dense", {"rows__s": np.full(59, -1.0)}, "must not be negative"),
    "rows_s_zero": ("dense", {"rows__s": np.zeros(59), "weighted": True}, "rows of positive weight"),
    "rows_missing": ("dense", {"rows__X": None}, "rows.X is missing"),
    "sparse_indices": ("sparse", {"rows__X__indices": "outside"}, "indices|index"),
    "sparse_indptr": ("sparse", {"rows__X__indptr": np.zeros(60, dtype=np.int32)}, "."),
    "sparse_indptr_wild": ("sparse", {"rows__X__indptr": np.full(60, 2**30, dtype=np.int32)}, "."),
    "sparse_as_dense": ("sparse", {"sparse": False}, "rows.X is missing"),
}


@pytest.mark.parametrize("case", INCONSISTENT)
def test_a_file_that_contradicts_itself_is_an_error_whatever_its_checksum(case, files, tmp_path):
    path, (name, changes, message) = tmp_path / "file", INCONSISTENT[case]
    path.write_bytes(files[name])
    if case == "sparse_indices":
        changes = {"rows__X__indices": entries_of(path)["rows.X.indices"] + 3}
    rewrite(path, **changes)
    with pytest.raises(ValueError, match=message) as raised:
        ex.Unlearner.load(path)
    assert str(raised.value).startswith(f"{path} is damaged: ")


# Forged files: each entry says anything, under a checksum that is right


def noisy_with_a_budget(data):
    model = ex.LogisticRegression(ALPHA, noise=0.5, random_state=3).fit(data.X, data.y)
    return ex.Unlearner(model, data.X, data.y, epsilon=0.5, delta=1e-5)


def named(data):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(data.X, columns=[*"abcdef"])
    y = np.array(["no", "yes"], dtype=object)[data.y.astype(int)]
    return ex.Unlearner(ex.LogisticRegression(ALPHA, memory_limit=1e8).fit(frame, y), frame, y)


FORGED = {
    "statistics": (lambda data: unlearner(data, "logistic", True), False),
    "weighted": (lambda data: unlearner(data, "logistic", True), True),
    "dense": (lambda data: unlearner(data, "logistic", False), True),
    "float32_f": (lambda data: unlearner(data, "logistic", True, represent=DENSE["float32_f"]), True),
    "sparse": (lambda data: unlearner(data, "logistic", True, represent=SPARSE["csr_int32"]), True),
    "cg": (lambda data: unlearner(data, "squared", True, represent=SPARSE["csr_int32"], solver="cg"), True),
    "ridge": (lambda data: unlearner(data, "squared", True), False),
    "noisy": (noisy_with_a_budget, True),
    "named": (named, True),
}
NUMBERS = [np.nan, np.inf, -np.inf, 1e308, -1e308, 1e154, 1e16, 5e-324, 0.5, 0.0, -0.0, -1.0, 1.0, 2.0, 100.0]
INTEGERS = [
    0,
    1,
    -1,
    2,
    3,
    59,
    60,
    61,
    2**15,
    2**31 - 1,
    2**31,
    2**53,
    2**53 + 1,
    2**61,
    2**62,
    2**63 - 1,
    -(2**63),
]
TEXTS = [
    *[
        "",
        "a",
        "Ridge",
        "LogisticRegression",
        "auto",
        "cg",
        "cholesky",
        "float32",
        "float64",
        "settle",
        "raise",
    ],
    *[
        "0",
        "-1",
        "1_0",
        " 7",
        "\N{ARABIC-INDIC DIGIT SEVEN}",
        "07",
        "1e3",
        "9" * 40,
        "9" * 5000,
        "\ud800",
        "x" * 2000,
    ],
]
DTYPES = [
    "f2",
    "f4",
    "f8",
    ">f8",
    "g",
    "i1",
    "i2",
    "i4",
    "i8",
    ">i4",
    "u1",
    "u8",
    "?",
    "c16",
    "U1",
    "U8",
    "S4",
]


def mutated(array, rng):
    """The array made wrong in one of many ways, or None for none at all."""
    way = rng.integers(12)
    if way == 0:
        return None
    if way == 1:
        return array.astype(rng.choice(DTYPES))
    if way == 2:
        return array[None]
    if way == 3:
        return array.ravel()[: int(rng.integers(0, array.size + 1))]
    if way == 4:
        return np.resize(array, int(rng.integers(0, 2 * array.size + 3)))
    if way == 5:
        return np.asfortranarray(array.T) if array.ndim > 1 else array.ravel()[::-1]
    if way == 6:
        return np.zeros_like(array)
    if way == 7:
        shape = [(), (1,), (0,), (2,), array.shape, array.shape[::-1]][rng.integers(6)]
        special = [NUMBERS, INTEGERS, TEXTS, [True, False]][rng.integers(4)]
        return np.full(shape, special[rng.integers(len(special))])
    if way == 8:
        return rng.permutation(array) if array.ndim else array
    special = {"f": NUMBERS, "i": INTEGERS, "u": INTEGERS, "U": TEXTS, "b": [True, False]}[array.dtype.kind]
    values = np.full(array.shape, special[rng.integers(len(special))])
    if array.ndim and way > 9:  # one of them, else all
        some = np.zeros(array.shape, dtype=bool)
        some.flat[rng.integers(array.size)] = True
        values = np.where(some, values, array)
    return values if array.dtype.kind == "U" else values.astype(array.dtype)


@pytest.fixture(scope="module")
def forgeable(tmp_path_factory):
    """name -> entries."""
    folder = tmp_path_factory.mktemp("forgeable")
    found = {}
    for name, (make, include_rows) in FORGED.items():
        un = make(
            make_data("squared" if name in ("cg", "ridge") else "logistic", weighted=name == "weighted")
        )
        un.apply([ex.RemoveRows([5]), ex.RevokeFeatures([1])])
        un.save(folder / name, include_rows=include_rows, include_noise=name == "noisy")
        found[name] = entries_of(folder / name)
    return found


def one_of(name, place, value):
    """A change of one number of an entry."""

    def change(entries):
        array = entries[name].copy()
        array[place] = value
        return {name: array}

    return change


def row_of_two(entries):
    """Where a row of a sparse X has two entries or more."""
    return int(entries["rows.X.indptr"][np.argmax(np.diff(entries["rows.X.indptr"]))])


def swapped(entries):
    indices, at = entries["rows.X.indices"].copy(), row_of_two(entries)
    indices[[at, at + 1]] = indices[[at + 1, at]]
    return {"rows.X.indices": indices}


def doubled(entries):
    indices, at = entries["rows.X.indices"].copy(), row_of_two(entries)
    indices[at + 1] = indices[at]
    return {"rows.X.indices": indices}


def as_dtype(name, dtype):
    return lambda entries: {name: entries[name].astype(dtype)}


LIES = {
    "alpha_long_double": ("ridge", {"alpha": np.longdouble(0.5)}, "alpha has dtype"),
    "residual": ("ridge", {"residual": -1.0}, "residual or residual_on_entry is negative"),
    "residual_on_entry": ("ridge", {"residual_on_entry": -np.inf}, "residual_on_entry is negative"),
    "max_iter": ("ridge", {"max_iter": np.uint64(2**64 - 1)}, "max_iter is above"),
    "since_anchor": ("ridge", {"since_anchor": 2**62}, "since_anchor is above"),
    "n_iter": ("ridge", {"n_iter": 2**62}, "n_iter is above"),
    "memory_limit": ("ridge", {"memory_limit": np.nan}, "memory_limit must be"),
    "theta_bound": ("ridge", {"theta_bound": np.inf}, "theta_bound contains NaN"),
    "counts": ("statistics", {"counts": np.array([2**62, 2**62])}, "counts are above"),
    "counts_wrap": ("ridge", {"counts": np.array([2**63 - 1, 2**63 - 1])}, "counts are above"),
    "hessian_indefinite": ("ridge", one_of("statistics.hessian", (0, 0), -1.0), "not positive definite"),
    "hessian_zero": ("ridge", {"statistics.hessian": np.zeros((6, 6))}, "not positive definite"),
    "hessian_huge": ("ridge", {"statistics.hessian": np.full((6, 6), 1e308)}, "not positive definite"),
    "hessian_nan": ("ridge", one_of("statistics.hessian", (1, 1), np.nan), "contains NaN"),
    "hessian_lopsided": ("ridge", one_of("statistics.hessian", (0, 1), 0.25), "not symmetric"),
    "numbers_nan": ("ridge", one_of("statistics.numbers", 0, np.nan), "contains NaN"),
    "numbers_negative": ("ridge", one_of("statistics.numbers", 5, -1e300), "statistics.numbers cannot be"),
    "noise_of_ridge": ("ridge", {"noise.sigma": 1.0, "noise.draws": 0}, "noise.sigma cannot be"),
    "noise_not_there": ("noisy", {"noise.b": None}, "noise.b is missing, beside rows"),
    "noise_infinite": ("noisy", one_of("noise.b", 0, np.inf), "noise.b contains NaN or infinity"),
    "draws": ("noisy", {"noise.draws": 2**62}, "noise.draws is above"),
    "seed_negative": ("noisy", {"noise.random_state": "-1"}, "random_state must be"),
    "seed_spelled": ("noisy", {"noise.random_state": "1_0"}, "not written as a number is"),
    "seed_spaced": ("noisy", {"noise.random_state": " 7"}, "not written as a number is"),
    "seed_long": ("noisy", {"noise.random_state": "9" * 5000}, "limit"),
    "budget_spent": ("noisy", {"budget": np.array([0.5, 1e-5, -1.0])}, "spent less than nothing"),
    "budget_delta": ("noisy", {"budget": np.array([0.5, 0.0, 0.0])}, "delta must be"),
    "budget_nan": ("noisy", {"budget": np.array([0.5, 1e-5, np.nan])}, "budget contains NaN"),
    "classes_descend": ("statistics", {"classes": np.array([1.0, 0.0])}, "classes cannot be"),
    "classes_nan": ("statistics", {"classes": np.array([0.0, np.nan])}, "classes contains NaN"),
    "classes_objects": ("statistics", {"classes.object": True}, "classes cannot be"),
    "classes_bytes": ("statistics", {"classes": np.array([b"a", b"b"])}, "classes has dtype"),
    "classes_complex": ("statistics", {"classes": np.array([1j, 2])}, "classes has dtype"),
    "names_twice": ("named", one_of("names", 0, "c"), "names has one name twice"),
    "rows_many": ("dense", {"rows.count": 2**62}, "rows.count is above"),
    "rows_beyond_memory": ("dense", {"rows.count": 2**52}, "more than fit into memory"),
    "rows_wrap": (
        "dense",
        lambda entries: {"rows.numbers": np.concatenate([[1, -(2**63), -5], entries["rows.numbers"][3:]])},
        "rows.numbers do not ascend",
    ),
    "rows_unsigned": ("dense", as_dtype("rows.numbers", np.uint64), "rows.numbers has dtype"),
    "X_big_endian": ("dense", as_dtype("rows.X", ">f8"), "rows.X has dtype"),
    "X_long_double": ("dense", as_dtype("rows.X", np.longdouble), "rows.X has dtype"),
    "X_infinite": ("dense", one_of("rows.X", (3, 2), np.inf), "rows.X contains NaN or infinity"),
    "X_huge": ("dense", one_of("rows.X", (3, 2), 1e308), "the gradient of these rows"),
    "weights_unsaid": ("dense", one_of("rows.s", 3, 2.0), "rows.s are not 1"),
    "weights_negative": ("weighted", one_of("rows.s", 3, -1.0), "must not be negative"),
    "weights_nan": ("weighted", one_of("rows.s", 3, np.nan), "rows.s contains NaN"),
    "targets": ("cg", one_of("rows.y", 3, np.nan), "rows.y contains NaN"),
    "csr_swapped": ("sparse", swapped, "do not ascend in each row"),
    "csr_twice": ("sparse", doubled, "do not ascend in each row"),
    "csr_negative": ("sparse", one_of("rows.X.indices", 3, -1), "rows.X.indices are not all from 0 to"),
    "csr_least": ("sparse", one_of("rows.X.indices", 3, -(2**31)), "rows.X.indices are not all from 0 to"),
    "csr_beyond": ("sparse", one_of("rows.X.indices", 3, 2**31 - 1), "rows.X.indices are not all from 0 to"),
    "csr_big_endian": ("sparse", as_dtype("rows.X.indices", ">i4"), "rows.X.indices has dtype"),
    "csr_int8": ("sparse", as_dtype("rows.X.indptr", np.int16), "rows.X.indices has dtype"),
    "csr_begins": ("sparse", one_of("rows.X.indptr", 0, 1), "rows.X.indptr does not ascend from 0"),
    "csr_falls": ("sparse", one_of("rows.X.indptr", 5, 0), "rows.X.indptr does not ascend from 0"),
    "csr_wild": ("sparse", one_of("rows.X.indptr", -1, 2**31 - 1), "rows.X.indices has dtype"),
    "csr_below": ("sparse", one_of("rows.X.indptr", -1, -(2**31)), "rows.X.indptr does not ascend from 0"),
    "csr_more_data": ("sparse", {"rows.X.data": np.ones(3)}, "rows.X.data has dtype"),
}


@pytest.mark.parametrize("case", LIES)
def test_a_forged_value_is_an_error_before_it_does_harm(case, forgeable, tmp_path):
    path, (name, change, message) = tmp_path / "file", LIES[case]
    if case.endswith("long_double") and np.dtype(np.longdouble) == np.float64:
        pytest.skip("long double is float64 here")
    entries = forgeable[name]
    entries = entries | (change(entries) if callable(change) else change)
    archive.write(
        path, "unlearner", saved.VERSION, {key: value for key, value in entries.items() if value is not None}
    )
    with pytest.raises(ValueError, match=message) as raised:
        ex.Unlearner.load(path)
    assert str(raised.value).startswith(f"{path} is damaged: ")


@pytest.mark.parametrize("error", [RuntimeError, TypeError, IndexError, OverflowError, ZeroDivisionError])
@pytest.mark.parametrize(("owner", "name"), [(saved.Saved, "engine"), (saved, "_statistics")])
def test_whatever_a_file_makes_go_wrong_names_the_file(owner, name, error, files, tmp_path, monkeypatch):
    def fail(*_):
        raise error("so")

    path = tmp_path / "file"
    path.write_bytes(files["dense"])
    monkeypatch.setattr(owner, name, fail)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} is damaged: so$"):
        ex.Unlearner.load(path)


@each_content
def test_what_may_be_set_to_whole_numbers_or_infinity_comes_back(include_rows, tmp_path):
    data = make_data("squared")
    model = ex.Ridge(2, memory_limit=np.inf).fit(data.X, data.y)
    un = ex.Unlearner(model, data.X, data.y, tolerance=1, column_index=1)
    inside(un).tolerance, inside(un).theta_bound = 1, np.float32(50)
    un.save(tmp_path / "file", include_rows=include_rows)
    loaded = ex.Unlearner.load(tmp_path / "file")
    assert (loaded.tolerance, loaded.theta_bound, loaded.model.memory_limit) == (1.0, 50.0, np.inf)


@pytest.mark.parametrize("name", ["tolerance", "theta_bound"])
@pytest.mark.parametrize("value", [np.nan, -1.0])
def test_what_could_not_be_loaded_is_not_saved(name, value, tmp_path):
    un = unlearner(make_data("squared"), "squared", True)
    setattr(inside(un), name, value)
    with pytest.raises(ValueError, match=f"{name} must be"):
        un.save(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:the tolerance 1e")
@each_content
def test_an_objective_beyond_floating_point_is_not_saved(include_rows, tmp_path):
    data = make_data("squared")
    X, y = data.X, 1e160 * data.y
    model = linear_model.Ridge(ALPHA).fit(X, y)
    with np.errstate(over="ignore"):
        un = ex.Unlearner(model, X, y, tolerance=1e300)
        with pytest.raises(ValueError, match="left the range of floating point: scale the columns of X"):
            un.save(tmp_path / "file", include_rows=include_rows)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="this is POSIX's")
@each_content
def test_a_saved_unlearner_is_its_owners_alone_and_replaces_no_fifo(include_rows, tmp_path):
    un = unlearner(make_data("squared"), "squared", True)
    (tmp_path / "file").touch(0o666)
    un.save(tmp_path / "file", include_rows=include_rows)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="a FIFO is not replaced by a file: name another path"):
        un.save(tmp_path / "fifo", include_rows=include_rows)
    with pytest.raises(ValueError, match="fifo is a FIFO, not a file"):
        ex.Unlearner.load(tmp_path / "fifo")
    assert (tmp_path / "fifo").is_fifo()


@pytest.mark.filterwarnings("error")
@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
@pytest.mark.parametrize("name", FORGED)
def test_a_forged_file_is_an_error_that_names_it_or_can_be_saved_again(name, forgeable, tmp_path):
    """EXPUNGE_FORGED says how many; the smallest number of a failing one is in its message."""
    path, good, counts = tmp_path / "file", forgeable[name], {True: 0, False: 0}
    for seed in range(int(os.environ.get("EXPUNGE_FORGED", "40"))):
        rng = np.random.default_rng([seed, len(name)])
        changed = dict(good)
        for entry in rng.choice(list(good), int(rng.integers(1, 3)), replace=False).tolist():
            try:
                with np.errstate(all="ignore"):
                    changed[entry] = mutated(good[entry], rng)
            except (ValueError, OverflowError):  # NumPy does not convert that
                changed[entry] = None
        if rng.random() < 0.1:
            changed["more"] = np.ones(2)
        archive.write(
            path,
            "unlearner",
            saved.VERSION,
            {key: value for key, value in changed.items() if value is not None},
        )
        try:
            loaded = ex.Unlearner.load(path)
        except Exception as error:
            if not isinstance(error, ValueError) or not str(error).startswith(f"{path} is damaged: "):
                raise AssertionError(f"seed {seed} of {name}: {error!r}") from error
            counts[False] += 1
        else:
            with_noise = loaded.model.get_params().get("noise", 0) != 0 and inside(loaded).noise.b is not None
            counts[True] += 1
            try:
                loaded.save(path, include_rows=loaded.attached, include_noise=with_noise)
            except ValueError:  # theta is out of this world
                continue
            ex.Unlearner.load(path)
    assert min(counts.values()) > 0


@pytest.mark.parametrize("name", ["statistics", "dense", "sparse"])
def test_every_entry_is_needed(name, files, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(files[name])
    for entry in entries_of(path):
        path.write_bytes(files[name])
        rewrite(path, **{entry.replace(".", "__"): None})
        if entry in ("residual", "n_iter", "rows.count", "theta_bound"):
            continue  # of what need not be known; an entry without its company is unknown; of version 1
        with pytest.raises(ValueError, match="is damaged: "):
            ex.Unlearner.load(path)


def test_the_entries_are_the_documented_ones(files, tmp_path):
    page = Path(__file__).parents[1] / "docs" / "data.md"
    if not page.exists():
        pytest.skip("the suite runs away from the source tree")
    text = page.read_text(encoding="utf-8")
    for name, content in files.items():
        path = tmp_path / name
        path.write_bytes(content)
        for entry in entries_of(path):
            assert f"`{entry}`" in text, entry
        with zipfile.ZipFile(path) as file:
            assert all(member.compress_type == zipfile.ZIP_STORED for member in file.infolist())


# A save that fails or is killed


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()]
)
@pytest.mark.parametrize(
    ("module", "function"),
    [(np.lib.format, "write_array"), (os, "fsync"), (os, "replace")],
    ids=lambda value: getattr(value, "__name__", value),
)
@each_loss
def test_a_failing_save_leaves_the_old_file_and_the_unlearner(
    loss, module, function, error, tmp_path, monkeypatch
):
    un = unlearner(make_data(loss), loss, True)
    un.save(tmp_path / "file")
    old = (tmp_path / "file").read_bytes()
    un.apply(ex.RemoveRows([3]))
    before = state_of(un)

    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(module, function, fail)
        with pytest.raises(type(error)):
            un.save(tmp_path / "file", include_rows=True)
    assert state_of(un) == before
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": old}
    un.apply(ex.RemoveRows([4]))


# Imports once, then forks a child for each round: it saves two Unlearners in turn until it is killed.
KILLED = """
import json, os, random, signal, sys, time
from pathlib import Path
import numpy as np
import expunge as ex

path, rounds, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
rng = np.random.default_rng(0)
MODELS = []
for n in (3000, 4000):
    X, y = rng.standard_normal((n, 60)), rng.integers(0, 2, n)
    MODELS.append(ex.Unlearner(ex.LogisticRegression().fit(X, y), X, y))

def save(i):
    MODELS[i % 2].save(path, include_rows=i % 4 < 2)

save(0)
start = time.perf_counter()
save(1)
duration = time.perf_counter() - start
random.seed(0)
for i in range(rounds):
    if time.perf_counter() - start > seconds:
        break
    child = os.fork()
    if not child:
        try:
            while True:
                save(i)
                i += 1
        finally:
            os._exit(1)
    time.sleep(random.uniform(0.0, 4.0) * duration)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    loaded = ex.Unlearner.load(path)
    same = [np.array_equal(loaded.model.coef_, un.model.coef_) for un in MODELS]
    if loaded.attached:
        [un] = [un for un, equal in zip(MODELS, same) if equal]
        assert np.array_equal(loaded.corrected_data()[0], un.corrected_data()[0])
    left = [other for other in path.parent.iterdir() if other != path]
    for other in left:
        other.unlink()
    print(json.dumps({
        "signal": os.WTERMSIG(status), "same": same, "rows": loaded.attached, "left": [o.name for o in left],
    }), flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_killed_save_leaves_the_old_or_the_new_file(tmp_path):
    paths = [str(Path(ex.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "file"), "40", "6"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rounds = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rounds) >= 10
    assert all(sum(found["same"]) == 1 and found["signal"] == signal.SIGKILL for found in rounds)
    assert {found["same"].index(True) for found in rounds} == {0, 1}
    assert {found["rows"] for found in rounds} == {False, True}
    assert any(found["left"] for found in rounds)
    assert all(name.startswith(".expunge-") for found in rounds for name in found["left"])
    assert all(len(found["left"]) <= 1 for found in rounds)


def test_what_is_loaded_takes_part_in_everything(tmp_path):
    """Methods, detach and attach, and a file again."""
    data = make_data("logistic")
    un = unlearner(data, "logistic", True)
    un.save(tmp_path / "file", include_rows=True)
    un = ex.Unlearner.load(tmp_path / "file")
    for k, method in enumerate(METHODS.values()):
        request = ex.RemoveRows([3 + k])
        assert_vouched(un, un.apply(request, **method))
        data = data.after(request)
    un.detach().save(tmp_path / "file")
    un = ex.Unlearner.load(tmp_path / "file").attach(*data.rows)
    un.apply([], method="exact")
    assert_retrained(un, data)
