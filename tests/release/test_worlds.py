"""Two worlds: in one the data were unlearned, in the other what was forgotten never was there.

Who sees what leaves an Unlearner (a release or its refusal, a file, a receipt, a repr, a pickle) may know all
data of both worlds, and must not be able to say which one it came from. Each way of telling them apart is
also tried on a planted fault, which it has to find: `python -m pytest tests -k worlds`.
"""

import json
import pickle
import struct
import warnings
from dataclasses import dataclass
from math import frexp

import numpy as np
import pytest
from problems import INTERCEPT, drebin, in_pairs
from scipy import sparse
from scipy.special import ndtr, ndtri
from scipy.stats import chi2
from unlearning import each_intercept, each_loss, inside

import expunge as ex
from expunge import _core as core
from expunge import reference_noise
from expunge.engine.attached import Attached
from expunge.engine.data import CorrectedData
from expunge.noise import Grid, random_bytes
from expunge.release import best_intercept, measure
from expunge.release import mechanisms as release_module

EPSILON, DELTA = 1.0, 1e-5
N, D = 300, 5
KINDS = {"squared": ex.Ridge, "logistic": ex.LogisticRegression}
STORAGES = {
    "c": np.ascontiguousarray,
    "f": np.asfortranarray,
    "float32": lambda X: X.astype(np.float32),
    "csr": sparse.csr_array,
}
each_storage = pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)


@dataclass
class History:
    """The D of one world and how it became the D' of both: rows, labels, weights; requests; the corrected."""

    before: tuple
    requests: list
    after: tuple


def corrected(loss, seed=0, n=N):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, D)).astype(np.float32).astype(float)
    eta = X @ rng.normal(size=D)
    y = eta + rng.normal(size=n) if loss == "squared" else (eta + rng.logistic(size=n) > 0).astype(float)
    return X, y, rng.integers(1, 4, size=n).astype(float)


def histories(loss, size):
    """Each of them with something of this size in what is forgotten."""
    X, y, s = after = corrected(loss)
    rng = np.random.default_rng(1)
    row = np.float32(rng.normal(size=D)).astype(float) * size
    inserted = np.insert(X, 17, row, axis=0), np.insert(y, 17, y[3])
    cell, label, column = X.copy(), y.copy(), np.insert(X, 2, np.float32(rng.normal(size=N)) * size, axis=1)
    cell[17, 2] = size
    label[17] = size if loss == "squared" else 1.0 - y[17]
    many = corrected(loss, seed=2, n=2500)
    together = [np.concatenate([a, b]) for a, b in zip(after, many, strict=True)]
    return {
        "row": History((*inserted, np.insert(s, 17, 1.0)), [ex.RemoveRows([17])], after),
        "heavy": History((*inserted, np.insert(s, 17, 1e3)), [ex.RemoveRows([17])], after),
        "cell": History((cell, y, s), [ex.CorrectValues([17], [2], X[17, 2])], after),
        "label": History((X, label, s), [ex.CorrectLabels([17], y[17])], after),
        "added": History(after, [ex.AddRows(row[None], [y[3]], [1.0]), ex.RemoveRows([N])], after),
        "column": History((column, y, s), [ex.RevokeFeatures([2])], after),
        "many": History(tuple(together), [ex.RemoveRows(np.arange(N, N + 2500))], after),
    }


HISTORIES = list(histories("squared", 1.0))
each_history = pytest.mark.parametrize("history", HISTORIES)


def unlearner(data, loss, fit_intercept, storage=np.ascontiguousarray, alpha=1.0, **options):
    X, y, s = data
    X = storage(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of floors above tolerances: that is for a release to see
        model = KINDS[loss](alpha, fit_intercept=fit_intercept).fit(X, y, s)
        return ex.Unlearner(model, X, y, s, **options)


def worlds(history, loss, fit_intercept, storage=np.ascontiguousarray, *, size=1e6, **options):
    """(unlearned, retrained)"""
    happened = histories(loss, size)[history]
    unlearned = unlearner(happened.before, loss, fit_intercept, storage, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for request in happened.requests:
            unlearned.apply(request)
    return unlearned, unlearner(happened.after, loss, fit_intercept, storage, **options)


# --- releases and refusals


def verdict(un, **options):
    """What an operator sees of a release beside its numbers."""
    try:
        un.release(EPSILON, DELTA, random_state=0, **options)
    except (ex.CertificateError, ex.RowsRequired) as error:
        return str(error)
    return "released"


def tolerances(history, loss, fit_intercept, storage):
    """Public constants below, at and above what is admissible."""
    retrained = worlds(history, loss, fit_intercept, storage)[1]
    floor = inside(retrained).measured(inside(retrained).state.theta).floor
    return [floor * times for times in (0.5, 2.0, 3.9, 4.1, 10.0, 1e3)]


@in_pairs(history=HISTORIES, loss=list(KINDS), fit_intercept=INTERCEPT, storage=STORAGES)
def test_worlds_release_and_refuse_alike(history, loss, fit_intercept, storage):
    seen = set()
    for tolerance in tolerances(history, loss, fit_intercept, storage):
        unlearned, retrained = worlds(history, loss, fit_intercept, storage, tolerance=tolerance)
        for mechanism in ("output", "rounding"):
            first, second = (verdict(un, mechanism=mechanism) for un in (unlearned, retrained))
            assert first == second, tolerance
            seen.add(first[:8])
    assert seen == {"released", "the tole"}  # both sides of the border were tried


def test_worlds_with_the_old_norm_are_told_apart_by_a_refusal(monkeypatch):
    """Planted: the largest norm that a row ever had."""

    def with_old_norm(*arguments):
        found = measure(*arguments)
        return release_module.replace(found, floor=found.floor * inside(un).data.largest_norm)

    tolerance = tolerances("row", "logistic", True, np.ascontiguousarray)[-1]
    monkeypatch.setattr("expunge.engine.attached.measure", with_old_norm)
    monkeypatch.setattr(CorrectedData, "measure_rows", lambda data, objective: False)
    seen = []
    for un in worlds("row", "logistic", True, tolerance=tolerance):
        seen.append(verdict(un))
    assert seen[0] != seen[1]


@each_loss
@each_history
def test_worlds_judge_the_released_coefficients_alike(history, loss):
    retrained = worlds(history, loss, True, tolerance=1e-6)[1]
    for times in (0.5, 0.9, 1.1, 2.0):
        bound = times * np.abs(retrained.model.coef_).max()
        pair = worlds(history, loss, True, tolerance=1e-6, theta_bound=bound)
        first, second = map(verdict, pair)
        assert first == second, times
        assert (first == "released") == (times > 1.0), times


@in_pairs(history=HISTORIES, loss=list(KINDS), fit_intercept=INTERCEPT)
def test_worlds_without_rows_refuse_alike(history, loss, fit_intercept):
    pair = worlds(history, loss, fit_intercept, tolerance=1e-6)
    first, second = (verdict(un.detach()) for un in pair)
    assert first == second


@each_loss
def test_worlds_that_were_left_far_from_their_minimum_release_alike(loss):
    """Iterations go on from where first-order steps and influence functions left theta."""
    for options in (
        {"method": "first_order", "tau": 1e-4},
        {"method": "second_order", "hessian": "original"},
    ):
        happened = histories(loss, 1.0)["many"]
        unlearned = unlearner(happened.before, loss, True, tolerance=1e-6)
        unlearned.apply(happened.requests[0], **options)
        retrained = unlearner(happened.after, loss, True, tolerance=1e-6)
        assert verdict(unlearned) == verdict(retrained) == "released"


# --- values and their bits


@in_pairs(history=HISTORIES, loss=list(KINDS), storage=STORAGES)
def test_worlds_have_the_same_intercept_and_verification_bit_for_bit(history, loss, storage, monkeypatch):
    pair = worlds(history, loss, True, storage, size=1e3)
    rng = np.random.default_rng(0)
    threads = ex.get_num_threads()
    for trial in range(10):
        coef = rng.normal(size=D) * 10.0 ** rng.uniform(-3, 1)
        found = []
        for un in pair:
            if trial == 5:  # from here on also with rows of another block
                un.apply(ex.AddRows(storage(np.ones((3, D))), np.arange(3) % 2, np.ones(3)))
            for count in (1, 2):
                ex.set_num_threads(count)
                intercept = best_intercept(inside(un).data.panels(), coef, inside(un).loss)
                at = inside(un).measured(np.append(coef, intercept))
                found.append((intercept, at.residual, at.floor, at.largest_norm))
        ex.set_num_threads(threads)
        assert len(set(found)) == 1, trial


@in_pairs(history=HISTORIES, loss=list(KINDS), fit_intercept=INTERCEPT)
def test_worlds_release_the_same_numbers_by_rounding(history, loss, fit_intercept):
    pair = worlds(history, loss, fit_intercept, size=1e3, tolerance=1e-8, theta_bound=1e4)
    for seed in range(5):  # each fails with a probability of 1e-5
        first, second = (un.release(EPSILON, DELTA, mechanism="rounding", random_state=seed) for un in pair)
        np.testing.assert_array_equal(first.coef_, second.coef_)
        np.testing.assert_array_equal(first.intercept_, second.intercept_)


def sums(un, seed):
    """Steps of what is released, and by the twin in fractions, of what was verified and of these digits."""
    released = un.release(EPSILON, DELTA, random_state=seed)
    held = released.certificate_
    steps = Grid(round(held.sigma / held.resolution), frexp(held.resolution)[1] - 1)
    theta = inside(un).within(held.tolerance).theta[:D]
    expected = reference_noise.add_normal(theta, steps.steps, steps.exponent, random_bytes(seed))
    return np.ravel(released.coef_) / held.resolution, expected


@each_loss
def test_worlds_release_the_exact_sum_rounded(loss):
    for un in worlds("row", loss, True, size=1e3, tolerance=1e-6):
        for seed in range(20):
            np.testing.assert_array_equal(*sums(un, seed))


def test_worlds_with_noise_off_by_one_step_are_found(monkeypatch):
    """Planted: one step of the grid, a millionth of sigma, in one of the worlds."""
    true = release_module.add_normal
    un = worlds("row", "squared", True, size=1e3, tolerance=1e-6)[0]
    monkeypatch.setattr(
        release_module,
        "add_normal",
        lambda theta, grid, seed: true(theta, grid, seed) + grid.step,
    )
    released, expected = sums(un, 0)
    assert (released != expected).all()


# --- the last bits


def reachable(out, theta, sigma, around=40):
    """Whether theta plus a value of the old noise, the quantiles of 2^52 numbers, rounds to this (d,)."""
    k0 = np.floor(ndtr((out - theta) / sigma) * 2.0**52).astype(np.int64)
    hit = np.zeros(out.shape, bool)
    for dk in range(-around, around + 1):
        k = np.clip(k0 + dk, 0, 2**52 - 1).astype(float)
        hit |= theta + sigma * ndtri((k + 0.5) * 2.0**-52) == out
    return hit


def old_noise(theta, grid, seed):
    """Planted: quantiles of 2^52 uniform numbers, added in floats."""
    bits = np.frombuffer(random_bytes(seed)(8 * theta.size), dtype=np.uint64)
    return theta + grid.width * ndtri(((bits >> 12).astype(float) + 0.5) * 2.0**-52)


def empty_columns():
    """Columns that only the forgotten row holds: the retrained coefficients are exactly 0."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(N, D + 10)), rng.normal(size=N)
    X[:, D:] = 0.0
    X[17, D:] = 1.0
    stay = np.arange(N) != 17
    un = ex.Unlearner(ex.Ridge().fit(X, y), X, y)
    un.apply(ex.RemoveRows([17]))
    return un, ex.Unlearner(ex.Ridge().fit(X[stay], y[stay]), X[stay], y[stay]), slice(D, None)


def ordinary_columns():
    """Who knows D' computes the retrained coefficients bit for bit."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, 30))
    y = (X @ rng.normal(size=30) > 0).astype(int)
    stay = np.arange(N) != 17
    un = ex.Unlearner(ex.LogisticRegression().fit(X, y), X, y, tolerance=1e-2)
    un.apply(ex.RemoveRows([17]))
    kept = X[stay], y[stay]
    return un, ex.Unlearner(ex.LogisticRegression().fit(*kept), *kept, tolerance=1e-2), slice(None)


def chances(make, runs=60):
    """How often all coefficients lie on the old lattice around the retrained ones: (unlearned, retrained)."""
    unlearned, retrained, columns = make()
    theta = np.ravel(retrained.model.coef_)[columns].copy()
    seen = []
    for un in (unlearned, retrained):
        hits = 0
        for _ in range(runs):
            released = un.release(EPSILON, DELTA)
            out = np.ravel(released.coef_)[columns]
            hits += bool(reachable(out, theta, released.certificate_.sigma).all())
        seen.append(hits / runs)
    return seen


@pytest.mark.parametrize("make", [empty_columns, ordinary_columns])
def test_worlds_are_not_told_apart_by_the_last_bits(make):
    unlearned, retrained = chances(make)
    assert retrained <= np.exp(EPSILON) * unlearned + 0.1
    assert unlearned <= np.exp(EPSILON) * retrained + 0.1


@pytest.mark.parametrize("make", [empty_columns, ordinary_columns])
def test_worlds_with_the_old_sampler_are_told_apart_by_the_last_bits(make, monkeypatch):
    monkeypatch.setattr(release_module, "add_normal", old_noise)
    unlearned, retrained = chances(make, runs=20)
    assert retrained == 1.0
    assert np.exp(EPSILON) * unlearned < 0.8


def low_digits(un, runs, columns):
    """Of all released numbers, what is left of them modulo 16 steps of their grid."""
    found = []
    for seed in range(runs):
        released = un.release(EPSILON, DELTA, random_state=seed)
        steps = np.ravel(released.coef_)[columns] / released.certificate_.resolution
        assert (steps == np.round(steps)).all()
        found.append(steps.astype(np.int64) % 16)
    return np.bincount(np.concatenate(found), minlength=16)


@pytest.mark.slow
@pytest.mark.parametrize("make", [empty_columns, ordinary_columns])
def test_worlds_have_uniform_low_digits(make):
    unlearned, retrained, columns = make()
    for un in (unlearned, retrained):
        counts = low_digits(un, 300, columns)
        expected = counts.sum() / 16
        assert chi2.sf(((counts - expected) ** 2 / expected).sum(), 15) > 1e-6


@pytest.mark.slow
def test_worlds_of_drebin_are_not_told_apart_by_columns_of_one_row():
    X, y = drebin().X, drebin().y
    rows_of = np.bincount(X.indices, minlength=X.shape[1])
    columns_of_one = np.flatnonzero(rows_of == 1)
    holders = sparse.csc_array(X)[:, columns_of_one].indices
    gone = np.unique(holders)[:3]
    columns = columns_of_one[np.isin(holders, gone)]
    stay = np.setdiff1d(np.arange(X.shape[0]), gone)
    un = ex.Unlearner(ex.LogisticRegression(tol=1e-4).fit(X, y), X, y, tolerance=1e-4)
    un.apply(ex.RemoveRows(gone))
    re = ex.Unlearner(ex.LogisticRegression(tol=1e-4).fit(X[stay], y[stay]), X[stay], y[stay], tolerance=1e-4)
    hits = []
    for world in (un, re):
        released = [world.release(EPSILON, DELTA) for _ in range(5)]
        outs = np.array([np.ravel(model.coef_)[columns] for model in released])
        hits.append(reachable(outs, 0.0, released[0].certificate_.sigma).all(axis=1).sum())
        steps = outs / released[0].certificate_.resolution
        assert (steps == np.round(steps)).all()
    assert hits == [0, 0]


# --- what is kept

SECRET = 1234567.890123  # as a cell, a label or a weight
NAME = "tel_4915123456789"


def shown(value, secret):
    """Whether the digits of a number are those of the secret, of a power of it, or of few of them."""
    if not (np.isfinite(value) and value):
        return False
    for power in (0.5, 1, 2, 3, 4):
        mantissa, _ = frexp(abs(value) / secret**power)
        for times in range(1, 32, 2):
            if abs(mantissa / frexp(times)[0] - 1.0) < 1e-9 or abs(mantissa * frexp(times)[0] * 2 - 1) < 1e-9:
                return True
    return False


def numbers_in(values):
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, list | tuple):
        return [number for value in values for number in numbers_in(value)]
    if isinstance(values, float | np.ndarray):
        return list(np.ravel(values).astype(float)) if np.asarray(values).dtype.kind == "f" else []
    return []


def traces(secret, blobs, numbers):
    """Where the secret is found: in its bytes, in its text, in the digits of numbers."""
    forms = [struct.pack("<d", secret), struct.pack(">d", secret), struct.pack("<f", secret)]
    forms += [str(secret).encode(), str(int(secret)).encode()]
    found = [f"{name} holds {form!r}" for name, blob in blobs.items() for form in forms if form in blob]
    return found + [
        f"{name}: {value!r}" for name, values in numbers.items() for value in values if shown(value, secret)
    ]


def kept_of(un, update, path):
    """All that outlives a request: (blobs, numbers)."""
    un.save(path)
    with np.load(path) as entries:
        numbers = {
            name: numbers_in(entries[name]) for name in entries.files if entries[name].dtype.kind == "f"
        }
    loaded = ex.Unlearner.load(path)
    receipt = update.receipt()
    pickled = pickle.loads(pickle.dumps(update))
    blobs = {
        "file": path.read_bytes(),
        "receipt": receipt.encode(),
        "repr": (repr(update) + str(update) + repr(un) + repr(loaded.model) + repr(un.budget)).encode(),
        "pickles": pickle.dumps(update) + pickle.dumps(un.model) + pickle.dumps(loaded.model),
    }
    numbers["receipt"] = numbers_in(json.loads(receipt))
    numbers["pickle"] = numbers_in(list(vars(pickled).values()))
    numbers["attributes"] = [un.residual_on_entry, loaded.residual_on_entry]
    return blobs, numbers


def forgotten(kind, loss, fit_intercept, storage, detached):
    """An Unlearner that the secret has left, and the update: it was in one row, one column or one cell."""
    X, y, s = corrected(loss)
    secret = np.float32(SECRET).item() if X.dtype == np.float32 else SECRET
    row, label, weight = X[17].copy(), y[17], 1.0
    if kind == "cell":
        row[2] = secret
    elif kind == "label":
        label = secret
    else:
        weight = secret
    before = np.insert(X, 17, row, axis=0), np.insert(y, 17, label), np.insert(s, 17, weight)
    un = unlearner(before, loss, fit_intercept, storage, tolerance=1e-2)
    un.apply(ex.CorrectValues([0], [0], 0.5), method="first_order")  # what it keeps for further steps, too
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if detached:
            un.detach()
            edit = ex.Edit(before=(storage(row[None]), [label], [weight]))
            return un, un.apply(edit, method="second_order")
        un.apply(ex.RemoveRows([17]))
        return un, un.apply(ex.CorrectValues([1], [0], 0.25), method="first_order")


@in_pairs(
    secret=["cell squared", "cell logistic", "label squared", "weight squared", "weight logistic"],
    fit_intercept=INTERCEPT,
    storage={"dense": np.ascontiguousarray, "csr": sparse.csr_array},
    detached={"attached": False, "detached": True},
)
def test_worlds_leave_no_digit_of_a_row_that_left(secret, fit_intercept, storage, detached, tmp_path):
    kind, loss = secret.split()
    un, update = forgotten(kind, loss, fit_intercept, storage, detached)
    assert traces(SECRET, *kept_of(un, update, tmp_path / "file")) == []
    again = ex.Unlearner.load(tmp_path / "file")
    again.save(tmp_path / "again")
    with np.load(tmp_path / "again") as entries:
        numbers = {
            name: numbers_in(entries[name]) for name in entries.files if entries[name].dtype.kind == "f"
        }
    assert traces(SECRET, {"file": (tmp_path / "again").read_bytes()}, numbers) == []


@each_intercept
def test_worlds_leave_no_digit_of_a_column_that_left_a_detached_model(fit_intercept, tmp_path):
    X, y, s = corrected("squared")
    secrets, files = (SECRET, SECRET * (1 + 1e-6)), []
    for k, secret in enumerate(secrets):
        wide = np.insert(X, 3, np.where(np.arange(N) == 8, secret, 0.0), axis=1)
        un = unlearner((wide, y, s), "squared", fit_intercept, tolerance=1e9).detach()
        update = un.apply(ex.RevokeFeatures([3]))
        assert traces(secret, *kept_of(un, update, tmp_path / f"file{k}")) == []
        with np.load(tmp_path / f"file{k}") as entries:
            files.append(entries["statistics.numbers"])
    np.testing.assert_array_equal(files[0][3:], files[1][3:])  # norms and bounds tell no digit


@each_intercept
@each_loss
def test_worlds_keep_no_digit_of_the_residual_on_entry(loss, fit_intercept, tmp_path):
    """It was measured on rows that have left; files carry it on."""
    X, y, s = corrected(loss)
    un = ex.Unlearner(KINDS[loss](fit_intercept=fit_intercept, tol=1e-3).fit(X, y, s), X, y, s)
    before = un.residual_on_entry
    assert np.frexp(before)[0] != 0.5
    un.apply(ex.RemoveRows([3]))
    un.save(tmp_path / "file")
    for after in (un.residual_on_entry, ex.Unlearner.load(tmp_path / "file").residual_on_entry):
        assert before <= after <= 2.0 * before
        assert np.frexp(after)[0] == 0.5


def test_worlds_count_no_draws_of_noise_in_a_release():
    X, y, _ = corrected("logistic")
    model = ex.LogisticRegression(noise=1e-3).fit(X, y)
    un = ex.Unlearner(model, X, y, epsilon=0.5, delta=1e-5, on_exhausted="retrain")
    un.apply(ex.RemoveRows(range(100)), method="first_order", tau=1e-9)
    assert inside(un).noise.draws == 1
    assert un.release(0.5, 1e-5, mechanism="objective")._noise.draws == 0


def test_worlds_name_no_revoked_column_in_messages():
    pandas = pytest.importorskip("pandas")
    X, y, _ = corrected("squared")
    frame = pandas.DataFrame(X, columns=["a", NAME, "b", "c", "d"])
    un = ex.Unlearner(ex.Ridge().fit(frame, y), frame, y)
    un.apply(ex.RevokeFeatures([NAME]))
    for columns in ([1], ["nope"]):
        with pytest.raises(ValueError, match="column") as raised:
            un.apply(ex.RevokeFeatures(columns))
        assert NAME not in str(raised.value)


def test_worlds_lose_what_left_when_rows_are_attached_again(tmp_path):
    X, y, _ = corrected("squared")
    row = np.full(D, SECRET)
    un = ex.Unlearner(
        ex.Ridge().fit(np.vstack([X, row]), np.append(y, 1.0)), np.vstack([X, row]), np.append(y, 1.0)
    )
    inside(un).tolerance = 1e9
    un.detach().apply(ex.Edit(before=(row[None], [1.0])))
    un.attach(X, y).save(tmp_path / "file")
    with np.load(tmp_path / "file") as entries:
        assert entries["statistics.numbers"][3] <= 16.0


@pytest.mark.parametrize("with_rows", [False, True])
@each_loss
def test_worlds_leave_no_digit_of_a_cell_a_row_or_a_column_that_was_corrected(loss, with_rows, tmp_path):
    X, y, s = corrected(loss)
    X[5, 1] = SECRET
    X = np.insert(X, 3, np.where(np.arange(N) == 8, SECRET, 0.0), axis=1)
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["a", "b", "c", NAME, "d", "e"])
    model = KINDS[loss](1.0).fit(frame, y, s)
    un = ex.Unlearner(model, frame, y, s, tolerance=1e-2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        un.apply([ex.CorrectValues([5], ["b"], 0.5), ex.RevokeFeatures([NAME])])
        joined = np.append(np.full(4, 0.5), SECRET)[None]
        un.apply([ex.AddRows(joined, [1.0], [1.0])])
        update = un.apply(ex.RemoveRows([N]))
    blobs, numbers = kept_of(un, update, tmp_path / "file")
    if with_rows:
        un.save(tmp_path / "rows", include_rows=True)
        blobs["rows"] = (tmp_path / "rows").read_bytes()
        with np.load(tmp_path / "rows") as entries:
            numbers |= {
                name: numbers_in(entries[name]) for name in entries.files if entries[name].dtype.kind == "f"
            }
    assert traces(SECRET, blobs, numbers) == []
    for name, blob in blobs.items():
        for form in (NAME.encode(), NAME.encode("utf-32-le")):
            assert form not in blob, name


@each_intercept
@each_loss
def test_worlds_with_the_old_norm_are_found_in_files(loss, fit_intercept, monkeypatch, tmp_path):
    """Planted: sums as they were kept, with the largest norm that a row ever had."""

    def kept(engine):
        objective, theta = engine.objective(), engine.state.theta
        at, anchor = objective.evaluate(theta), core.Anchor(objective, theta)
        floor = objective.rounding_floor(theta)
        return core.AnchoredStatistics(objective, anchor, at, floor, engine.data.largest_norm)

    row = np.zeros(D)
    row[2] = SECRET
    X, y, s = corrected(loss)
    data = np.insert(X, 17, row, axis=0), np.insert(y, 17, 1), np.insert(s, 17, 1)
    monkeypatch.setattr(CorrectedData, "measure_rows", lambda data, objective: False)
    un = unlearner(data, loss, fit_intercept, tolerance=1e-2)
    update = un.apply(ex.RemoveRows([17]))
    assert traces(SECRET, *kept_of(un, update, tmp_path / "file")) == []
    monkeypatch.setattr(Attached, "statistics", kept)
    assert traces(SECRET, *kept_of(un, update, tmp_path / "file")) != []


def test_worlds_show_no_value_in_the_repr_of_a_request():
    for request in (
        ex.CorrectValues([3], [1], SECRET),
        ex.CorrectLabels([3], SECRET),
        ex.AddRows([[SECRET]], [SECRET], [SECRET]),
        ex.Edit(before=([[SECRET]], [SECRET])),
        ex.RemoveRows([4711]),
        ex.RevokeFeatures([NAME]),
    ):
        for form in (str(SECRET), "4711", NAME):
            assert form not in repr(request)


@each_storage
def test_worlds_lose_a_row_whose_gradient_is_below_the_tolerance(storage, tmp_path):
    """Where theta met the tolerance still, its gradient would be the row's: x could be read off a file."""
    rng = np.random.default_rng(0)
    X, w = rng.normal(size=(400, 6)), rng.normal(size=6)
    y = (X @ w + 0.3 * rng.normal(size=400) > 0).astype(float)
    coef = ex.LogisticRegression().fit(X, y).coef_[0]
    row = np.sign(coef) * [2.437, 1.196296, 0.4073741, 2.174047, 0.63367, 1.799663]
    X[17], y[17] = row, 1.0
    X = storage(X)
    un = ex.Unlearner(ex.LogisticRegression().fit(X, y), X, y)
    update = un.apply(ex.RemoveRows([17]), method="exact")
    assert update.settled
    assert update.step.any()
    un.save(tmp_path / "file")
    g = inside(ex.Unlearner.load(tmp_path / "file")).statistics.at.gradient
    along = abs(g @ np.append(row, 1.0)) / np.linalg.norm(np.append(row, 1.0))
    assert along < 1e-12  # the row's own is 7e-9
