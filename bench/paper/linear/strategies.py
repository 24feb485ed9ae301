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
    """A name, how it is made of (model, X, y), and whether its theta is the minimiser's where it succeeds."""

    name: str
    make: Any
    ours: bool = False


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


STRATEGIES = [
    Strategy("nothing", Nothing),
    Strategy("first order", b.FirstOrder, True),
    Strategy("second order", b.SecondOrder, True),
    Strategy("influence, old Hessian", partial(b.SecondOrder, hessian="original")),
    Strategy("exact", b.Exact, True),
    Strategy("auto", b.Auto, True),
    Strategy("retraining, cold", b.Retraining),
    Strategy("retraining, warm", partial(b.Retraining, warm=True)),
    Strategy("newton-cholesky, cold", partial(b.Retraining, solver="newton-cholesky")),
    Strategy("newton-cg, warm", partial(b.Retraining, solver="newton-cg", warm=True)),
    Strategy("lbfgs, warm", partial(b.Retraining, solver="lbfgs", warm=True)),
    Strategy("one step (Guo)", b.GuoOneStep),
    Strategy("projective residual (Izzo)", b.ProjectiveResidual),
    Strategy("Fisher (Mahadevan)", b.FisherForgetting),
    Strategy("rescaled influence", b.RescaledInfluence),
    Strategy("DeltaGrad", b.DeltaGrad),
    Strategy("fine-tuning", partial(b.FineTuning, random_state=0)),
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
    try:
        made = strategy.make(copy.deepcopy(model), study.X, study.y)
        begun = process_time()
        update = made.apply(asked.request)
        seconds = process_time() - begun
    except REFUSALS as error:
        return Answer(reason=str(error).partition(":")[0].partition(". ")[0])
    return Answer(made.model, seconds, 0.0 if update is None else float(update.passes))
