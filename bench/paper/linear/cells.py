"""What is measured: one cell is one strategy on one request of one seed, and a record of numbers."""

import copy
import json
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

import expunge as ex
from expunge.metrics import efficacy, fidelity, membership

from .strategies import answer
from .studies import ALPHA, asked

NEAR = 0.01  # standard errors: what counts as retrained
SHOWN = 300  # test rows whose losses are kept for the scatter


class Cells:
    """Records by key, in a file of JSON lines, so that a run that was interrupted goes on where it ended."""

    def __init__(self, path, origin):
        self.path, self.records = Path(path), {}
        head = json.dumps({"origin": origin}, sort_keys=True)
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        if not lines or lines[0] != head:  # of another commit, machine or command
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(head + "\n", encoding="utf-8")
            lines = [head]
        for line in lines[1:]:
            record = json.loads(line)
            self.records[record["key"]] = record

    def get(self, key, make):
        """The record of this key, made unless it is known."""
        if key not in self.records:
            record = {"key": key, **make()}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            self.records[key] = record
        return self.records[key]


def reference(request):
    """An independent retraining: scikit-learn's Newton's method, as far as it goes."""
    model = LogisticRegression(
        C=1.0 / ALPHA, fit_intercept=False, solver="newton-cholesky", tol=1e-12, max_iter=200
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # below its rounding it finds no better step
        return model.fit(request.X, request.y)


def logits(model, X, columns):
    """Of a model of all columns, or of those that stay."""
    width = getattr(model, "n_features_in_", X.shape[1])
    return model.decision_function(X if width == X.shape[1] else X[:, columns])


def losses(eta, y):
    return np.logaddexp(0.0, np.where(y > 0, -eta, eta))


def compare(study, model, kind, amount, seed, strategies, cells, say):
    """Records of all strategies on one request, each beside the same retrained model."""
    table, of_request, found = f"{study.name}|{kind}|{amount}|{seed}", [], []

    def make(strategy):
        if not of_request:
            request = asked(kind, study, amount, seed)
            of_request[:] = request, reference(request)
        return measured(study, model, *of_request, strategy, seed)

    for strategy in strategies:
        found.append(cells.get(f"{table}|{strategy.name}", partial(make, strategy)))
    say(table)
    return found


def measured(study, model, request, best, strategy, seed):
    """Numbers of one strategy."""
    given = answer(strategy, study, model, request)
    record = {
        "data": study.name,
        "kind": request.kind,
        "amount": request.amount,
        "seed": seed,
        "strategy": strategy.name,
        "rows": int(study.X.shape[0]),
        "columns": int(study.X.shape[1]),
        "touched": int(request.rows.size),
        "refused": given.reason,
    }
    if given.model is None:
        return record
    record |= {"seconds": given.seconds, "passes": given.passes}
    record |= {"gradients": given.passes * request.X.shape[0] + request.rows.size}
    own, other = (logits(m, study.X_test, request.columns) for m in (given.model, best))
    near = fidelity(study.y_test, own, other)
    record |= {f"{name}": value for name, value in vars(near.quality).items()}
    record |= {f"retrained_{name}": value for name, value in vars(near.of_retrained).items()}
    record |= {"mean_kl": near.mean_kl, "largest_gap": near.largest_gap}
    coef = getattr(given.model, "coef_", None)
    if coef is not None and np.shape(coef) == (1, request.X.shape[1]):
        record |= left(given.model, best, request)
    if request.kind == "remove rows":
        record |= seen(study, request, given.model, best)
    rows = np.linspace(0, study.y_test.size - 1, SHOWN).astype(int)
    record["losses"] = losses(own, study.y_test)[rows].round(5).tolist()
    record["retrained_losses"] = losses(other, study.y_test)[rows].round(5).tolist()
    return record


def left(model, best, request):
    """What is left between a model and the retrained one; by NumPy alone, which knows nothing of bounds."""
    theta, other = model.coef_[0], best.coef_[0]
    p, step = expit(request.X @ other), theta - other
    squared = np.sum(p * (1.0 - p) * (request.X @ step) ** 2) + ALPHA * step @ step
    return {
        "residual": ex.residual(model, request.X, request.y),
        "distance": float(np.sqrt(squared)),
        "relative": float(np.linalg.norm(step) / np.linalg.norm(other)),
    }


def seen(study, request, model, best):
    """Whether the rows that left can be told from test rows, by the losses of either model."""
    X, y = study.X[request.rows], study.y[request.rows]
    found = {}
    for name, m in (("membership", model), ("retrained_membership", best)):
        inside = losses(logits(m, X, request.columns), y)
        found[name] = membership(inside, losses(logits(m, study.X_test, request.columns), study.y_test)).auc
    return found


def sequence(study, model, count, seed):
    """Single rows that leave one after the other: what is proven, what is true, and what a budget spends."""
    rows = np.random.default_rng(seed).permutation(study.X.shape[0])[:count].tolist()
    un = ex.Unlearner(copy.deepcopy(model), study.X, study.y)
    noisy = ex.LogisticRegression(ALPHA, fit_intercept=False, noise=1.0, random_state=seed, tol=1e-8)
    budgeted = ex.Unlearner(noisy.fit(study.X, study.y), study.X, study.y, epsilon=0.5, delta=1e-2)
    every, record = max(1, count // 10), {"at": [], "proven": [], "true": [], "spent": [], "total": []}
    for k, row in enumerate(rows, 1):
        update = un.apply(ex.RemoveRows(row))
        budgeted.apply(ex.RemoveRows(row), method="second_order")
        if k % every:
            continue
        X, y, _ = un.corrected_data()
        best = un.retrain()
        record["at"].append(k)
        record["proven"].append(update.distance)
        record["true"].append(efficacy(un.model, best, X, y).distance)
        record["spent"].append(budgeted.budget.spent)
        record["total"].append(budgeted.budget.total)
    return record | {"data": study.name, "seed": seed}
