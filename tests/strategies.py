"""Every strategy of expunge.baselines, small problems for them, and what they are compared with."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from problems import retrain
from unlearning import ALPHA, make_data

import expunge as ex
from expunge import baselines

ROWS = ex.RemoveRows([3, 17, 40])
FLIPPED = ex.CorrectLabels([5, 9], [1.0, 0.0])
VALUES = ex.CorrectValues([7, 8], [1], 0.25)
COLUMN = ex.RevokeFeatures([2])


@dataclass(frozen=True)
class Case:
    """A strategy, how it is made, and one request of each kind that it takes."""

    kind: Any
    options: dict = field(default_factory=dict)
    takes: tuple = (ROWS, FLIPPED, VALUES, COLUMN)
    passes: Any = None  # of the first request, where that is known

    @property
    def fit_intercept(self):
        return self.kind is not baselines.PrivateTraining

    def of(self, X, y, s=None, *, loss="logistic", model=None, **options):
        """The strategy on these data."""
        kind = {"logistic": ex.LogisticRegression, "squared": ex.Ridge}[loss]
        model = model or kind(ALPHA, fit_intercept=self.fit_intercept).fit(X, y, s)
        return self.kind(model, X, y, s, **(self.options | options))


REMOVED = (ROWS,)
KEEPS_COLUMNS = (ROWS, FLIPPED, VALUES)
CASES = {
    "cold": Case(baselines.Retraining),
    "warm": Case(baselines.Retraining, {"warm": True}),
    "lbfgs": Case(baselines.Retraining, {"solver": "lbfgs"}),
    "sisa": Case(baselines.Sisa, {"shards": 3, "slices": 2, "random_state": 0}),
    "fine_tuning": Case(baselines.FineTuning, {"epochs": 2, "random_state": 0}, passes=2),
    "occlusion": Case(baselines.Occlusion, {}, (COLUMN,), passes=0),
    "private": Case(
        baselines.PrivateTraining,
        {"epsilon": 5.0, "rows": 200, "row_norm": 8.0, "random_state": 0},
        passes=0,
    ),
    "first_order": Case(baselines.FirstOrder),
    "second_order": Case(baselines.SecondOrder),
    "original": Case(baselines.SecondOrder, {"hessian": "original"}),
    "exact": Case(baselines.Exact),
    "auto": Case(baselines.Auto),
    "guo": Case(baselines.GuoOneStep, {}, REMOVED, passes=1),
    "projective": Case(baselines.ProjectiveResidual, {}, REMOVED, passes=0),
    "fisher": Case(baselines.FisherForgetting, {}, REMOVED, passes=1),
    "empirical": Case(baselines.FisherForgetting, {"fisher": "empirical"}, REMOVED, passes=2),
    "deltagrad": Case(
        baselines.DeltaGrad, {"steps": 60, "period": 10, "burn_in": 10}, KEEPS_COLUMNS, passes=15
    ),
    "jackknife": Case(baselines.InfinitesimalJackknife, {}, KEEPS_COLUMNS, passes=0),
    "rescaled": Case(baselines.RescaledInfluence, {}, REMOVED, passes=0),
}
OURS = ("first_order", "second_order", "original", "exact", "auto")


def fresh(name, *, loss="logistic", represent=np.array, weighted=False, **options):
    """The strategy of that name on small data, and these data."""
    data = make_data(loss, weighted=weighted)
    X, y, s = data.rows
    s = None if s is None else np.minimum(s, 1.0)
    data.s[:] = np.minimum(data.s, 1.0)
    return CASES[name].of(represent(X), y, s, loss=loss, **options), data


def minimiser(data, loss="logistic", *, alpha=ALPHA, fit_intercept=True):
    """The minimiser on the data as they are now, by code that shares nothing with the package."""
    X, y, s = data.rows
    return retrain(X, y, alpha=alpha, loss=loss, sample_weight=s, fit_intercept=fit_intercept)
