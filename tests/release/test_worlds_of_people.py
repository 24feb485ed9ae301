"""Two worlds in which only the name of whoever was forgotten differs: nothing that is kept or shown does."""

import pickle
import re

import numpy as np
import pytest

import expunge as ex
from expunge.engine.row_names import Tombstones

N, GONE = 60, 7
KEY = b"a secret of 16 bytes or more"
NAMES = ("alice", "bob of another length")
REQUESTS = {
    "ids": lambda name: [ex.RemoveRows(ids=[name])],
    "labels": lambda name: [ex.RemoveRows(labels=[name])],
    "number": lambda name: [ex.RemoveRows(GONE)],
    "relabelled first": lambda name: [ex.CorrectLabels(ids=[name], labels=0.0), ex.RemoveRows(ids=[name])],
    "missing": lambda name: [ex.RemoveRows(ids=[name, "nobody"], missing="ignore")],
}


def world(name, kind, request, *, each, key=None):
    """An Unlearner that has forgotten this name, and what its requests gave back."""
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(3)
    ids, labels = [f"id {k}" for k in range(N)], [f"row {k}" for k in range(N)]
    ids[GONE] = labels[GONE] = name
    X = pandas.DataFrame(rng.standard_normal((N, 3)), columns=list("abc"), index=labels)
    y = pandas.Series((rng.random(N) < 0.5) * 1.0, index=labels)
    un = ex.Unlearner(kind().fit(X, y), X, y, ids=ids, key=key)
    requests = REQUESTS[request](name)
    return un, un.apply_each(requests, thetas=True) if each else [un.apply(each) for each in requests]


def kept(un, given, folder):
    """Bytes and texts that outlive the request."""
    shown = re.sub(r"(seconds=)?[0-9.e-]+( s)?\)", "", repr(un) + repr(given))  # how long it took
    found = {"repr": shown, "coef": un.model.coef_.tobytes(), "model": pickle.dumps(un.model)}
    if isinstance(given, list):
        found["updates"] = pickle.dumps([update.residual_bound for update in given])
        found["receipts"] = [update.receipt(None) for update in given]
    else:
        found["receipts"] = [given.receipt(k) for k in range(len(given))]
    data, ids = un.corrected_data(as_frame=True)[0], un.corrected_data(return_ids=True)[-1]
    found["data"] = (data.to_csv(), repr(ids))
    for rows in (True, False):
        path = folder / f"file {rows}"
        un.save(path, include_rows=rows)
        found[f"file, rows {rows}"] = path.read_bytes()
    found["released"] = un.release(1.0, 1e-5, random_state=1).coef_.tobytes()
    return found


each_kind = pytest.mark.parametrize("kind", [ex.Ridge, ex.LogisticRegression])


@each_kind
@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("each", [False, True], ids=["apply", "apply_each"])
def test_worlds_do_not_tell_who_was_forgotten(kind, request_, each, tmp_path):
    one, other = (kept(*world(name, kind, request_, each=each), tmp_path) for name in NAMES)
    assert one.keys() == other.keys()
    for what, value in one.items():
        assert value == other[what], what
        for name in NAMES:
            assert name not in str(value), what
            assert name.encode() not in (value if isinstance(value, bytes) else b""), what


@each_kind
def test_worlds_with_a_key_differ_by_digests_alone(kind, tmp_path):
    files = []
    for name in NAMES:
        un, _ = world(name, kind, "ids", each=False, key=KEY)
        un.save(tmp_path / name, include_rows=True)
        with np.load(tmp_path / name) as entries:
            files.append({entry: entries[entry] for entry in entries.files})
        assert name.encode() not in (tmp_path / name).read_bytes()
        un.drop_tombstones()
        un.save(tmp_path / name, include_rows=True)
        files[-1] = files[-1], (tmp_path / name).read_bytes()
    (one, dropped), (other, also_dropped) = files
    different = {entry for entry in one if not np.array_equal(one[entry], other[entry])}
    assert different == {"tombstones", "expunge.sha256"}
    assert dropped == also_dropped


@each_kind
def test_worlds_with_digests_under_no_secret_key_are_found(kind, tmp_path, monkeypatch):
    """Planted: a file without a key keeps who was forgotten."""
    plain = Tombstones.__init__

    def planted(self, *given):
        plain(self, *given)
        self.is_kept_apart = True

    monkeypatch.setattr(Tombstones, "__init__", planted)
    one, other = (kept(*world(name, kind, "ids", each=False), tmp_path) for name in NAMES)
    assert {what for what in one if one[what] != other[what]} == {"file, rows True"}
