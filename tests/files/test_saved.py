"""Unlearner.save and load: the same model bit for bit, and of the data what was asked for."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from problems import DENSE, SPARSE
from saving import assert_same_model, entries_of, numbered, state_of
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

in_four_forms = pytest.mark.parametrize("form", ["float64_c", "float32_f", "csr_int32", "csr_float32"])
each_content = pytest.mark.parametrize("include_rows", [False, True], ids=["statistics", "rows"])


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
        (numbers, X, y, s), held.n_rows, held.kept, list("abcdef"), classes=2, weighted=held.weighted
    )
    for value, expected in zip(numbered(restored), (numbers, X, y, s), strict=True):
        if hasattr(value, "toarray"):
            value, expected = value.tocoo(), expected.tocoo()
            assert_array_equal(value.coords, expected.coords)
            value, expected = value.data, expected.data
        assert_array_equal(value, expected)
        assert value.dtype == expected.dtype
    assert (restored.n_rows, restored.weighted, restored.classes) == (held.n_rows, held.weighted, 2)
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
