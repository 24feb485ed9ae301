"""How often requests read the data, to a residual of 1e-8: never more often than 0.4.0 did."""

import numpy as np
import pytest
from problems import adult, drebin
from scipy import sparse

import expunge as ex

SINGLE, HUNDREDS = 24, 6  # requests of one row, and of a hundred
KINDS = ("remove", "label", "values", "hundred")
OF_0_4_0 = {  # of each kind, counted with that release on these requests
    "gaussian": (98, 142, 85, 37),
    "adult": (73, 94, 70, 32),
    "drebin": (125, 184, 24, 46),
    "text": (443, 447, 411, 100),
}


def gaussian():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20_000, 100))
    return X, (0.3 * X @ rng.standard_normal(100) + rng.logistic(size=20_000) > 0) * 1.0


def text():
    """20,000 rows of norm 1 over 5,000 columns, some in most rows and many in hardly any, as words are."""
    rng = np.random.default_rng(0)
    often = 1.0 / np.arange(1, 5001)
    words = [np.unique(rng.choice(5000, 60, p=often / often.sum())) for _ in range(20_000)]
    indptr = np.append(0, np.cumsum([row.size for row in words]))
    X = sparse.csr_array((rng.uniform(0.5, 1.5, indptr[-1]), np.concatenate(words), indptr), (20_000, 5000))
    X.data /= np.repeat(np.sqrt(X.multiply(X).sum(axis=1)), np.diff(indptr))
    return X, (6.0 * X @ rng.standard_normal(5000) + rng.logistic(size=20_000) > 0) * 1.0


def of(dataset):
    return lambda: (dataset().X, np.asarray(dataset().y, dtype=float))


DATA = {"gaussian": gaussian, "adult": of(adult), "drebin": of(drebin), "text": text}


def passes(package, X, y, kind):
    """The passes of all requests of a kind; none ends at a residual above 1e-8."""
    model = package.LogisticRegression(1.0).fit(X, y)
    un = package.Unlearner(model, X, y, tolerance=1e-8)
    rows, total = np.random.default_rng(1).permutation(len(y)), 0
    cells = np.zeros((1, 2)) if sparse.issparse(X) else np.array([[0.5, -0.5]])
    for k in range(HUNDREDS if kind == "hundred" else SINGLE):
        row = rows[k : k + 1]
        request = {
            "remove": lambda row=row: package.RemoveRows(row),
            "label": lambda row=row: package.CorrectLabels(row, 1.0 - y[row]),
            "values": lambda row=row: package.CorrectValues(row, [3, 5], cells),
            "hundred": lambda k=k: package.RemoveRows(rows[100 * k : 100 * k + 100]),
        }[kind]()
        update = un.apply(request)
        assert update.residual_bound <= 1e-8
        total += update.passes
    return total


@pytest.mark.slow
@pytest.mark.parametrize("name", DATA)
def test_requests_read_the_data_no_more_often(name):
    X, y = DATA[name]()
    assert all(passes(ex, X, y, kind) <= most for kind, most in zip(KINDS, OF_0_4_0[name], strict=True))
