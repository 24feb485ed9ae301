"""Every strategy with one face: made from a trained model and its rows, then asked."""

import copy
from dataclasses import dataclass
from functools import partial
from time import process_time
from typing import Any

import numpy as np

import expunge as ex
from expunge import baselines as b

REFUSALS = (ValueError, TypeError, ex.ConvergenceError)


@dataclass(frozen=True)
class Strategy:
    """A name and how it is made of (model, X, y); of several ways the one that ends nearest is taken."""

    name: str
    make: Any
    others: tuple = ()  # makes with other settings, which cost as much


class Nothing:
    """The model as it was; of revoked columns it only loses the coefficients."""

    def __init__(self, model, X, y):
        self.model = model

    def apply(self, request):
        model = self.model
        if isinstance(request, ex.RevokeFeatures):
            stay = np.setdiff1d(np.arange(model.coef_.shape[1]), request.columns)
            model.coef_ = model.coef_[:, stay]
            model.n_features_in_ = stay.size
        return None


def at_rate(share):
    """Fine-tuning at a share of its default rate: one epoch, whatever the rate."""

    def make(model, X, y):
        tuned = b.FineTuning(model, X, y, random_state=0)
        tuned.learning_rate *= share
        return tuned

    return make


STRATEGIES = [
    Strategy("nothing", Nothing),
    Strategy("first order", b.FirstOrder),
    Strategy("second order", b.SecondOrder),
    Strategy("influence, old Hessian", partial(b.SecondOrder, hessian="original")),
    Strategy("exact", b.Exact),
    Strategy("auto", b.Auto),
    Strategy("retraining, cold", b.Retraining),
    Strategy("retraining, warm", partial(b.Retraining, warm=True)),
    Strategy("retraining to 1e-8, cold", partial(b.Retraining, tolerance=1e-8)),
    Strategy("retraining to 1e-8, warm", partial(b.Retraining, tolerance=1e-8, warm=True)),
    Strategy("newton-cholesky, cold", partial(b.Retraining, solver="newton-cholesky")),
    Strategy("newton-cg, warm", partial(b.Retraining, solver="newton-cg", warm=True)),
    Strategy("lbfgs, warm", partial(b.Retraining, solver="lbfgs", warm=True)),
    Strategy("one step (Guo)", b.GuoOneStep),
    Strategy("projective residual (Izzo)", b.ProjectiveResidual),
    Strategy("Fisher (Mahadevan)", b.FisherForgetting),
    Strategy("rescaled influence", b.RescaledInfluence),
    Strategy("DeltaGrad", b.DeltaGrad),
    Strategy("fine-tuning", at_rate(1), others=tuple(at_rate(4.0**-k) for k in (1, 2, 3))),
    Strategy("SISA", partial(b.Sisa, random_state=0)),
    Strategy("occlusion", b.Occlusion),
]
BY_NAME = {strategy.name: strategy for strategy in STRATEGIES}


@dataclass
class Answer:
    """What a strategy did: its model, CPU seconds of the request alone, passes; or why it refused."""

    model: Any = None
    seconds: float = float("nan")
    passes: float = float("nan")
    reason: str = ""


def answer(strategy, study, model, asked):
    """The best of its settings, by the residual on the corrected data; its own time alone counts."""
    tried = [applied(make, study, model, asked) for make in (strategy.make, *strategy.others)]
    if len(tried) == 1 or tried[0].model is None:
        return tried[0]
    return min(tried, key=lambda a: ex.residual(a.model, asked.X, asked.y))


def applied(make, study, model, asked):
    try:
        made = make(copy.deepcopy(model), study.X, study.y)
        begun = process_time()
        update = made.apply(asked.request)
        seconds = process_time() - begun
    except REFUSALS as error:
        return Answer(reason=str(error).partition(":")[0].partition(". ")[0])
    return Answer(made.model, seconds, 0.0 if update is None else float(update.passes))
