"""Other ways to make a linear model forget, each with the face of an Unlearner, to compare with.

All are made as ``Strategy(model, X, y, sample_weight)`` of a fitted model and its data, and then take
requests by ``apply``; docs/baselines.md says what each costs and refuses. A runner is one loop:

>>> import numpy as np
>>> import expunge as ex
>>> from expunge import baselines
>>> X = np.random.default_rng(0).standard_normal((500, 4))
>>> y = X[:, 0] - X[:, 1] > 0.0
>>> for kind in (baselines.Auto, baselines.Retraining, baselines.FineTuning, baselines.GuoOneStep):
...     strategy = kind(ex.LogisticRegression().fit(X, y), X, y)
...     update = strategy.apply(ex.RemoveRows([3, 17]))
...     print(f"{update.method}: {'near' if strategy.distance() < 0.01 else 'far'}")
auto: near
retraining: near
fine_tuning: far
guo: near
"""

from .descent import DeltaGrad, FineTuning
from .occlusion import Occlusion
from .one_step import (
    FisherForgetting,
    GuoOneStep,
    InfinitesimalJackknife,
    ProjectiveResidual,
    RescaledInfluence,
)
from .ours import Auto, Exact, FirstOrder, SecondOrder
from .private import Privacy, PrivateTraining
from .retraining import Retraining
from .sisa import Ensemble, Sisa

__all__ = [
    "Auto",
    "DeltaGrad",
    "Ensemble",
    "Exact",
    "FineTuning",
    "FirstOrder",
    "FisherForgetting",
    "GuoOneStep",
    "InfinitesimalJackknife",
    "Occlusion",
    "Privacy",
    "PrivateTraining",
    "ProjectiveResidual",
    "RescaledInfluence",
    "Retraining",
    "SecondOrder",
    "Sisa",
]
