"""The tables of docs/adoption.md, walked: what is adopted, what is refused, and that the advice works."""

import ast
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn import linear_model
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import all_estimators

import expunge as ex

PAGE = Path(__file__).resolve().parents[2] / "docs" / "adoption.md"
pytestmark = [
    pytest.mark.skipif(not PAGE.exists(), reason="docs/ is not beside the tests"),
    pytest.mark.filterwarnings("ignore"),
]


def table(heading):
    """Cells of each row of the table that begins with this column."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    found = re.search(rf"^\| {re.escape(heading)} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, flags=re.MULTILINE)
    return (
        [[cell.strip() for cell in row[1:-1].split(" | ")] for row in found[1].splitlines()] if found else []
    )


def code_in(cell):
    return re.findall(r"`([^`]+)`", cell)


def rows_of(heading):
    return pytest.mark.parametrize("row", table(heading), ids=lambda row: row[0].strip("`")[:50])


def namespace(**more):
    """All of scikit-learn's estimators by name."""
    known = dict(all_estimators())
    for other in (CountVectorizer, FrozenEstimator, HashingVectorizer, TfidfVectorizer):
        known[other.__name__] = other
    for other in (GridSearchCV, RandomizedSearchCV, make_pipeline):
        known[other.__name__] = other
    return known | {"np": np} | more


def arguments_of(name):
    return set(__import__("inspect").signature(namespace()[name]).parameters)


def known_here(code):
    """Whether this scikit-learn has the keyword arguments of the outermost call."""
    call = ast.parse(code, mode="eval").body
    return {keyword.arg for keyword in call.keywords} <= arguments_of(call.func.id)


def test_the_tables_are_there():
    assert len(table("model")) > 45
    assert len(table("transformer")) > 20
    assert len(table("fitted to other data")) == 15


@rows_of("model")
def test_models_are_adopted_or_refused_with_what_to_pass_instead(row):
    code, happens, instead = row[0].strip("`"), row[1], code_in(row[2])
    X, y = load_breast_cancer(return_X_y=True)
    X, y = StandardScaler().fit_transform(X)[::3], y[::3]
    s = np.ones(len(y))
    if re.match(r"(Gamma|Poisson|Tweedie)", code):
        y = y + 1.0
    names = namespace(X=X, y=y, s=s)
    model = eval(code, names)
    if not hasattr(model, "estimator") or "Frozen" not in code:
        model.fit(X, y)
    if happens.startswith("adopted"):
        assert ex.Unlearner(model, X, y).residual() <= 1e-8
        return
    with pytest.raises((TypeError, ValueError)) as raised:
        ex.Unlearner(model, X, y)
    message = str(raised.value)
    first = eval(instead[0], names | {"model": model})
    kind = type(first).__name__
    assert re.search(rf"{kind}|refit with|pass|Pass|fit it unconstrained|alpha must be", message)
    if instead[0].startswith("model") or "model." in instead[0]:
        assert instead[0].removesuffix("[0]") in message
    elif isinstance(raised.value, TypeError):
        assert kind in message
    target = np.where(y == 1, 1.0, -1.0) if "np.where" in instead[0] else y
    if "TransformedTarget" in code and model.transformer_ is not None:
        target = model.transformer_.transform(y[:, None].astype(float))
    assert ex.Unlearner(first, X, target).residual() <= 1e-8


TEXTS = {"CountVectorizer", "TfidfVectorizer", "HashingVectorizer"}
CATEGORIES = {"OneHotEncoder", "OrdinalEncoder", "TargetEncoder"}


@pytest.mark.slow
@rows_of("transformer")
def test_the_last_step_is_adopted_with_the_transformed_X_and_not_with_X_as_it_came(row):
    code, happens = row[0].strip("`"), row[1]
    if not known_here(code):
        pytest.skip("this scikit-learn has no such parameter")
    name = code.partition("(")[0]
    X, y = load_breast_cancer(return_X_y=True)
    if name in TEXTS:
        X = np.array([" ".join(f"w{j}" for j in np.flatnonzero(row > np.median(X, axis=0))) for row in X])
    elif name in CATEGORIES:
        X = np.where(X[:, :4] > np.median(X[:, :4], axis=0), "high", "low")
    elif name == "SimpleImputer":
        X = np.where(X > 1000.0, np.nan, X)
    pipe = make_pipeline(eval(code, namespace()), linear_model.LogisticRegression(max_iter=10_000)).fit(X, y)
    with pytest.raises(TypeError, match=re.escape("model[:-1].transform(X)")):
        ex.Unlearner(pipe, X, y)
    error, _, words = happens.partition(": ")
    expected = ex.NotFittedToThisData if error == "NotFittedToThisData" else ValueError
    with pytest.raises(expected, match=re.escape(words)):
        ex.Unlearner(pipe[-1], X, y)
    un = ex.Unlearner(pipe[-1], pipe[:-1].transform(X), y, tolerance=1e-6)
    assert un.residual() <= 1e-6
    assert un.distance_on_entry < np.sqrt(un.model.n_features_in_)


def mismatches(loss):
    """What it was fitted to, with which parameters, and what is handed over, in the order of the table."""
    if loss == "logistic":
        raw, y = load_breast_cancer(return_X_y=True)
    else:
        raw, y = load_diabetes(return_X_y=True, scaled=False)
    X, n = StandardScaler().fit_transform(raw), len(y)
    rng = np.random.default_rng(0)
    s, order = rng.integers(1, 9, n) / 4.0, rng.permutation(n)
    half, most = (np.sort(np.random.default_rng(0).permutation(n)[: round(part * n)]) for part in (0.5, 0.75))
    exchanged = X.copy()
    exchanged[:, [0, 3]] = X[:, [3, 0]]
    return [
        ((X, y), {}, (raw, y)),
        ((raw, y), {}, (X, y)),
        ((X, y), {}, (X, 1 - y if loss == "logistic" else -y)),
        ((X, y), {}, (X[order], y)),
        ((X, y), {}, (X[:, ::-1], y)),
        ((X, y), {}, (exchanged, y)),
        ((X[half], y[half]), {}, (X, y)),
        ((X[most], y[most]), {}, (X, y)),
        ((X[:-1], y[:-1]), {}, (X, y)),
        ((X, y, s), {}, (X, y)),
        ((X, y), {"alpha": 2.0}, (X, y)),
        ((X, y), {"alpha": 100.0}, (X, y)),
        ((X, y), {"fit_intercept": False}, (X, y)),
        ((X, y), {}, (X.astype(np.float32), y)),
        ((X, y), {}, (X, y)),
    ]


def their_logistic(alpha=1.0, **parameters):
    return linear_model.LogisticRegression(C=1.0 / alpha, max_iter=10_000, **parameters)


MODELS = [("logistic", 1, their_logistic), ("logistic", 2, ex.LogisticRegression)]
MODELS += [("squared", 3, linear_model.Ridge), ("squared", 3, ex.Ridge)]


@pytest.mark.parametrize(
    ("loss", "column", "make"), MODELS, ids=["their_logistic", "our_logistic", "their_ridge", "our_ridge"]
)
@pytest.mark.parametrize("line", range(15))
def test_what_is_caught_and_what_is_not(loss, column, make, line):
    fitted_to, parameters, handed_over = mismatches(loss)[line]
    told, verdict = table("fitted to other data")[line][column].split(", ")
    model = make(**parameters).fit(*fitted_to)
    if "alpha" in parameters:
        model.set_params(**({"C": 1.0} if hasattr(model, "C") else {"alpha": 1.0}))
    model.set_params(fit_intercept=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            away, found = ex.Unlearner(model, *handed_over).distance_on_entry, "polished"
    except ex.NotFittedToThisData as error:
        away, found = error.distance, "refused"
    assert found == verdict
    if float(told) > 0.2:
        assert 0.9 * float(told) < away < 1.1 * float(told)
    else:  # what the solver left is as much of it
        assert away < 2.0 * float(told) + 0.01
