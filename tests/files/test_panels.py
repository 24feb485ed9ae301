"""Rows go to a file in panels; what else a file holds, and when none is written."""

import os
import threading
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from problems import WEIGHTED, in_pairs
from saving import assert_same_model, entries_of, numbered, state_of
from scipy import sparse
from unlearning import ALPHA, assert_retrained, each_loss, inside, make_data, theta_of, unlearner

import expunge as ex
from expunge.engine import data as data_module
from expunge.files import archive

each_content = pytest.mark.parametrize("include_rows", [False, True], ids=["statistics", "rows"])


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
@pytest.mark.parametrize("layout", ["f", "csr_int64"])
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
