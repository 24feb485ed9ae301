"""What to look at after unlearning: numbers about a model, from arrays that any library can give.

:func:`residual`, :func:`distance` and :func:`efficacy` are for linear models. The others take losses and
probabilities, of networks too, and most are two-sided: a model that remembers lies on one side of the
retrained ones, and one that forgot too much, which an observer notices just as well, on the other.

| question | measure |
|---|---|
| does the model prefer a secret to others like it? | :func:`exposure` |
| does it answer as retrained models do? | :func:`spreads`, :func:`mean_kl` |
| is a number what retrained models give? | :func:`outside` |
| is the secret still inside, and easily woken? | :func:`relearning`, :func:`rebound` |
| can forgotten rows be told from rows never seen? | :func:`membership` |
| can a revoked feature still be guessed? | :func:`inversion` |
| is a classifier as good as the retrained one, with its answers? | :func:`quality`, :func:`fidelity` |
| how near is a linear model to the retrained one? | :func:`efficacy` |
"""

from .behaviour import mean_kl, outside, spreads
from .fidelity import Fidelity, Quality, fidelity, quality
from .inversion import Inversion, inversion
from .linear import Efficacy, distance, efficacy, residual
from .membership import Membership, membership
from .secrets import Exposure, Relearning, exposure, rebound, relearning

__all__ = [
    "Efficacy",
    "Exposure",
    "Fidelity",
    "Inversion",
    "Membership",
    "Quality",
    "Relearning",
    "distance",
    "efficacy",
    "exposure",
    "fidelity",
    "inversion",
    "mean_kl",
    "membership",
    "outside",
    "quality",
    "rebound",
    "relearning",
    "residual",
    "spreads",
]
