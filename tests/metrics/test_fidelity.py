"""Quality of classifiers, and how near one is to the retrained one."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn import linear_model, metrics

import expunge as ex
from expunge.metrics import efficacy, fidelity, inversion, quality

RNG = np.random.default_rng(0)
X = RNG.standard_normal((400, 5))
Y = (X @ RNG.standard_normal(5) + RNG.logistic(size=400) > 0) * 1.0
LOGITS = X @ RNG.standard_normal(5)


def test_quality_is_what_scikit_learn_measures():
    found = quality(Y, LOGITS)
    predicted = LOGITS > 0
    assert found.accuracy == metrics.accuracy_score(Y, predicted)
    assert found.macro_f1 == metrics.f1_score(Y, predicted, average="macro")
    assert found.roc_auc == metrics.roc_auc_score(Y, LOGITS)
    assert found.pr_auc == metrics.average_precision_score(Y, LOGITS)


def test_accuracy_hides_a_rare_class_and_macro_f1_does_not():
    rare = np.array([1.0, 1.0] + [0.0] * 98)
    found = quality(rare, np.full(100, -1.0) + 1e-3 * np.arange(100))
    assert found.accuracy == 0.98
    assert found.macro_f1 < 0.5


def test_a_model_is_faithful_to_itself():
    found = fidelity(Y, LOGITS, LOGITS)
    assert found.quality == found.of_retrained
    assert found.mean_kl == found.largest_gap == 0.0


def test_the_divergence_is_from_the_retrained_model_and_finite_at_large_margins():
    shifted = LOGITS + 0.5
    p, q = (1 / (1 + np.exp(-eta)) for eta in (shifted, LOGITS))
    expected = np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    found = fidelity(Y, LOGITS, shifted)
    assert_allclose(found.mean_kl, expected, rtol=1e-9)
    assert_allclose(found.largest_gap, 0.5, rtol=1e-12)
    assert np.isfinite(fidelity(Y, 900.0 * LOGITS, 800.0 * LOGITS).mean_kl)


@pytest.mark.parametrize(
    ("y", "logits", "message"),
    [
        ([0, 1, 2], [0.0, 1.0, 2.0], "0 and 1"),
        ([1, 1], [0.0, 1.0], "0 and 1"),
        ([0, 1], [0.0, 1.0, 2.0], "match y"),
        ([0, 1], [0.0, np.nan], "NaN"),
    ],
)
def test_what_quality_refuses(y, logits, message):
    with pytest.raises(ValueError, match=message):
        quality(y, logits)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_efficacy_is_the_distance_in_the_norm_of_the_hessian(loss, fit_intercept):
    y = Y if loss == "logistic" else LOGITS + np.random.default_rng(1).standard_normal(400)
    kind = ex.LogisticRegression if loss == "logistic" else ex.Ridge
    old, new = (
        kind(1.0, fit_intercept=fit_intercept).fit(X[rows], y[rows])
        for rows in (slice(None), slice(20, None))
    )
    found = efficacy(old, new, X[20:], y[20:])
    A = np.column_stack([X[20:], np.ones(380)]) if fit_intercept else X[20:]
    theta, best = (
        np.append(np.ravel(m.coef_), np.ravel(m.intercept_)[: int(fit_intercept)]) for m in (old, new)
    )
    p = 1 / (1 + np.exp(-A @ best))
    w = p * (1 - p) if loss == "logistic" else np.ones(380)
    penalty = np.append(np.ones(5), np.zeros(int(fit_intercept)))
    step, scale = theta - best, 1.0
    if loss == "squared":
        scale = np.sqrt(np.mean((y[20:] - A @ best) ** 2))
    expected = np.sqrt(step @ ((A.T * w) @ A + np.diag(penalty)) @ step) / scale
    assert_allclose(found.distance, expected, rtol=1e-8)
    assert_allclose(found.residual, ex.residual(old, X[20:], y[20:]), rtol=1e-12)
    assert found.distance <= found.proven * (1 + 0.2)  # both in standard errors; H is at other points
    assert 0 < found.relative < 1
    same = efficacy(new, new, X[20:], y[20:])
    assert same.distance == same.relative == 0.0


def test_models_of_scikit_learn_are_taken_and_other_columns_are_not():
    old, new = linear_model.LogisticRegression(C=1.0).fit(X, Y), ex.LogisticRegression(1.0).fit(X, Y)
    assert efficacy(old, new, X, Y).distance < 0.1
    with pytest.raises(ValueError, match=r"columns|features"):
        efficacy(old, ex.LogisticRegression(1.0).fit(X[:, :4], Y), X, Y)


def revealed(log_likelihood, values):
    return np.column_stack([log_likelihood(v) for v in values])


def test_inversion_finds_what_a_model_tells_and_nothing_once_it_is_revoked():
    rng = np.random.default_rng(2)
    secret = (rng.random(4000) < 0.4).astype(int)
    Z = np.column_stack([secret, rng.standard_normal((4000, 2))])
    y = (rng.random(4000) < 1 / (1 + np.exp(-(4.0 * secret - 2.0 + Z[:, 1])))) * 1.0

    def told(model, columns):
        def of(value):
            rows = Z.copy()
            rows[:, 0] = value
            eta = model.decision_function(rows[:, columns])
            return np.where(y == 1.0, -np.logaddexp(0, -eta), -np.logaddexp(0, eta))

        return revealed(of, (0, 1))

    model = ex.LogisticRegression(1.0).fit(Z, y)
    found = inversion(told(model, [0, 1, 2]), secret)
    assert found.accuracy > found.prior + 0.1
    assert found.z > 5.0
    un = ex.Unlearner(model, Z, y)
    un.apply(ex.RevokeFeatures([0]))
    left = inversion(told(un.model, [1, 2]), secret)
    assert left.accuracy == left.prior
    assert left.z == 0.0


@pytest.mark.parametrize(
    ("told", "values", "options", "message"),
    [
        (np.zeros(3), [0, 1, 0], {}, "expected"),
        (np.zeros((2, 2)), [0, 2], {}, "integers"),
        (np.zeros((2, 2)), [0.0, 1.0], {}, "integers"),
        (np.full((2, 2), np.nan), [0, 1], {}, "NaN"),
        (np.zeros((2, 2)), [0, 1], {"prior": [0.0, 0.0]}, "frequencies"),
    ],
)
def test_what_inversion_refuses(told, values, options, message):
    with pytest.raises(ValueError, match=message):
        inversion(told, values, **options)
