"""SISA trains affected shards alone, from their checkpoints, and is what training all anew would give."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit
from strategies import CASES, fresh
from unlearning import ALPHA, make_data

import expunge as ex
from expunge import _core
from expunge.baselines import Sisa


def members(strategy):
    return np.column_stack([strategy.model.coef_, strategy.model.intercept_])


def places(n, shards, slices, seed=0):
    """Shard and slice of each row, as the class says: dealt at random, by number."""
    order = np.random.default_rng(seed).permutation(n)
    place = np.empty(n, dtype=int)
    place[order] = np.arange(n) % (shards * slices)
    return np.divmod(place, slices)


def anew(data, shards, slices, loss="logistic"):
    """Members trained on the data as they are now, in the same deal, by estimators."""
    kind = ex.LogisticRegression if loss == "logistic" else ex.Ridge
    shard, _ = places(len(data.y), shards, slices)
    found = []
    for k in range(shards):
        rows = data.live & (shard == k)
        s = data.s[rows] if data.weighted else None
        model = kind(ALPHA / shards, within=1e-8).fit(data.X[rows][:, data.kept], data.y[rows], s)
        found.append(np.append(model.coef_, model.intercept_))
    return np.array(found)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("slices", [1, 3])
def test_after_each_request_it_is_sisa_trained_anew_with_the_same_deal(loss, weighted, slices):
    options = {"shards": 3, "slices": slices, "within": 1e-8}
    strategy, data = fresh("sisa", loss=loss, weighted=weighted, **options)
    assert_allclose(members(strategy), anew(data, 3, slices, loss), rtol=0, atol=1e-6)
    requests = (
        ex.RemoveRows([3, 17]),
        ex.CorrectLabels([5], 1.0),
        ex.CorrectValues([7], [1], 0.25),
        ex.RevokeFeatures([2]),
    )
    for request in requests:
        strategy.apply(request)
        data = data.after(request)
        assert_allclose(members(strategy), anew(data, 3, slices, loss), rtol=0, atol=1e-6)


def spied(strategy, request, monkeypatch):
    """The update, and where each fit of it began and how many rows it had."""
    fits, minimize = [], _core.minimize

    def spy(J, theta, *more, **how):
        fits.append((theta.copy(), J.rows))
        return minimize(J, theta, *more, **how)

    with monkeypatch.context() as patch:
        patch.setattr(_core, "minimize", spy)
        update = strategy.apply(request)
    return update, fits


def test_only_affected_shards_are_trained_again(monkeypatch):
    strategy, _ = fresh("sisa", shards=4, slices=1)
    shard, _ = places(60, 4, 1)
    before = members(strategy)
    rows = np.flatnonzero(shard == 2)[:3].tolist()
    update, fits = spied(strategy, ex.RemoveRows(rows), monkeypatch)
    assert strategy.retrained == 1
    assert {n for _, n in fits} == {12}
    assert_array_equal(np.flatnonzero((members(strategy) != before).any(axis=1)), [2])
    assert update.passes <= 12  # over a quarter of the rows, the passes of one small fit


def test_a_shard_is_trained_from_the_checkpoint_before_the_first_affected_slice(monkeypatch):
    strategy, _ = fresh("sisa", shards=2, slices=3)
    shard, part = places(60, 2, 3)
    rows = np.flatnonzero((shard == 1) & (part == 1))[:1].tolist()
    _, fits = spied(strategy, ex.RemoveRows(rows), monkeypatch)
    assert list(dict.fromkeys(n for _, n in fits)) == [19, 29]  # two slices, then three
    X, y, _ = make_data("logistic").rows
    first = (shard == 1) & (part == 0)
    checkpoint = ex.LogisticRegression(ALPHA / 2, within=1e-8).fit(X[first], y[first])
    assert_allclose(fits[0][0], np.append(checkpoint.coef_, checkpoint.intercept_), rtol=0, atol=1e-4)
    early, _ = fresh("sisa", shards=2, slices=3)
    rows = np.flatnonzero((shard == 1) & (part == 0))[:1].tolist()
    _, fits = spied(early, ex.RemoveRows(rows), monkeypatch)
    assert_array_equal(fits[0][0], np.zeros(7))
    assert next(n for _, n in fits) == 9


def test_a_revoked_column_affects_shards_with_values_in_it_alone(monkeypatch):
    data = make_data("logistic")
    shard, _ = places(60, 3, 1)
    data.X[shard != 1, 2] = 0.0
    strategy = CASES["sisa"].of(data.X, data.y, shards=3, slices=1, within=1e-8)
    spied(strategy, ex.RevokeFeatures([2]), monkeypatch)
    assert strategy.retrained == 1
    assert_allclose(members(strategy), anew(data.after(ex.RevokeFeatures([2])), 3, 1), rtol=0, atol=1e-6)


def test_added_rows_join_the_last_slice_of_a_shard():
    strategy, data = fresh("sisa", shards=3, slices=2)
    before = members(strategy)
    request = ex.AddRows(np.ones((1, 6)), [1.0])
    strategy.apply(request)
    changed = np.flatnonzero((members(strategy) != before).any(axis=1))
    assert strategy.retrained == changed.size == 1
    shard, _ = places(60, 3, 2)
    X, y, _ = data.rows
    rows = shard == changed[0]
    model = ex.LogisticRegression(ALPHA / 3).fit(np.vstack([X[rows], np.ones(6)]), np.append(y[rows], 1.0))
    assert_allclose(strategy.model.coef_[changed[0]], model.coef_[0], rtol=0, atol=1e-4)
    strategy.apply(ex.RemoveRows([60]))  # by its number
    assert_allclose(members(strategy), before, rtol=0, atol=1e-4)


def test_predictions_are_means_or_votes():
    strategy, data = fresh("sisa", shards=3)
    X = data.rows[0]
    etas = X @ strategy.model.coef_.T + strategy.model.intercept_
    mean = expit(etas).mean(axis=1)
    model = strategy.model
    assert_allclose(model.predict_proba(X), np.column_stack([1 - mean, mean]), rtol=0, atol=1e-12)
    assert_allclose(expit(model.decision_function(X)), mean, rtol=0, atol=1e-12)
    assert_array_equal(model.predict(X), mean > 0.5)
    votes = CASES["sisa"].of(X, data.rows[1], aggregate="majority").model
    assert_array_equal(votes.predict(X), (etas > 0).sum(axis=1) >= 2)
    tied = CASES["sisa"].of(X, data.rows[1], shards=2, aggregate="majority").model
    etas = X @ tied.coef_.T + tied.intercept_
    halved = (etas > 0).sum(axis=1) == 1
    assert halved.any()
    assert_array_equal(tied.predict(X)[halved], expit(etas).mean(axis=1)[halved] > 0.5)
    ridge, data = fresh("sisa", loss="squared")
    assert_allclose(
        ridge.model.predict(X), (X @ ridge.model.coef_.T + ridge.model.intercept_).mean(axis=1), atol=1e-12
    )
    with pytest.raises(AttributeError, match="no probabilities"):
        ridge.model.predict_proba(X)


def test_labels_and_frames():
    pandas = pytest.importorskip("pandas")
    X, y, _ = make_data("logistic").rows
    frame, labels = pandas.DataFrame(X, columns=list("abcdef")), np.where(y == 1.0, "yes", "no")
    strategy = Sisa(ex.LogisticRegression(ALPHA).fit(frame, labels), frame, labels, shards=3, random_state=0)
    strategy.apply([ex.RevokeFeatures(["c"]), ex.CorrectLabels([4], "yes")])
    assert set(strategy.model.predict(frame)) == {"yes", "no"}  # the column that left is passed over
    with pytest.raises(ValueError, match="columns"):
        strategy.model.predict(X)


def test_a_first_slice_of_one_class_has_no_checkpoint_and_a_shard_of_one_class_is_refused():
    X, y, _ = make_data("logistic").rows
    shard, part = places(60, 2, 3)
    y = y.copy()
    y[(shard == 0) & (part == 0)] = 1.0
    data = make_data("logistic")
    data.y[:] = y
    strategy = CASES["sisa"].of(X, y, shards=2, slices=3, within=1e-8)
    assert_allclose(members(strategy), anew(data, 2, 3), rtol=0, atol=1e-6)
    before = members(strategy)
    with pytest.raises(ValueError, match=r"shard 0 would have .* use fewer shards"):
        strategy.apply(ex.RemoveRows(np.flatnonzero((shard == 0) & (y == 0.0)).tolist()))
    assert_array_equal(members(strategy), before)
    assert len(strategy.corrected_data()[1]) == 60
    with pytest.raises(ValueError, match="use fewer shards"):
        CASES["sisa"].of(X, y, shards=59)


def test_bad_parameters():
    X, y, _ = make_data("logistic").rows
    model = ex.LogisticRegression(ALPHA).fit(X, y)
    for wrong in (
        {"shards": 0},
        {"slices": 0.5},
        {"aggregate": "median"},
        {"within": 0.0},
        {"random_state": -1},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Sisa(model, X, y, **wrong)
    with pytest.raises(ValueError, match="noise in the objective"):
        Sisa(ex.LogisticRegression(ALPHA, noise=1.0, random_state=0).fit(X, y), X, y)


def test_no_theta_stands_for_an_ensemble():
    strategy, _ = fresh("sisa")
    update = strategy.apply(ex.RemoveRows([3]))
    told = (strategy.residual(), strategy.distance(), update.distance, update.residual_bound)
    assert np.isnan(told).all()
    assert update.residual is None
    assert update.shortfall is None
    with pytest.raises(TypeError, match="no theta"):
        strategy.standard_errors()
