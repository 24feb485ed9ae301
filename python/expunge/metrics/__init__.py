"""What to look at after unlearning: numbers about a model, from arrays that any library can give.

:func:`residual` and :func:`distance` are for linear models. The others take losses and probabilities, of
networks too, and each is two-sided: a model that remembers lies on one side of the retrained ones, and one
that forgot too much, which an observer notices just as well, on the other.

| question | measure |
|---|---|
| does the model prefer a secret to others like it? | :func:`exposure` |
| does it answer as retrained models do? | :func:`spreads`, :func:`mean_kl` |
| is a number what retrained models give? | :func:`outside` |
| is the secret still inside, and easily woken? | :func:`relearning`, :func:`rebound` |
| can forgotten rows be told from rows never seen? | :func:`membership` |
"""

from .behaviour import mean_kl, outside, spreads
from .linear import distance, residual
from .membership import Membership, membership
from .secrets import Exposure, Relearning, exposure, rebound, relearning

__all__ = [
    "Exposure",
    "Membership",
    "Relearning",
    "distance",
    "exposure",
    "mean_kl",
    "membership",
    "outside",
    "rebound",
    "relearning",
    "residual",
    "spreads",
]
