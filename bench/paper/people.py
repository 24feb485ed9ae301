"""Adult, a small network, and four requests: labels, a few and many, rows, and columns."""

import numpy as np
import torch
from torch import nn

import expunge as ex

from .data import FIRST_SEED, adult
from .training import Recipe, Task

REVOKED = ("marital-status_", "relationship_")  # 11 columns


def mlp(width):
    """Logits of two classes."""
    return nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))


def tasks(rows, epochs, seed=FIRST_SEED):
    """The four, on the first so many rows; "many" are 1,500 of Adult's 32,561 rows, or the same share."""
    (X, y), test, names = adult(rows)
    X, y, test = torch.tensor(X), torch.tensor(y), tuple(map(torch.tensor, test))
    n, rng = len(X), np.random.default_rng(seed)
    many = round(1500 / 32561 * n)
    common = {"build": lambda: mlp(X.shape[1]), "recipe": Recipe(epochs, 128, 2e-3, 1e-5), "test": test}
    for count in (50, many):
        chosen = torch.tensor(np.sort(rng.choice(n, size=count, replace=False)))
        wrong = y.clone()
        wrong[chosen] = 1 - y[chosen]
        yield Task(
            name=f"correct {count:,} labels",
            data=(X, wrong),
            corrected=(X, y),
            touched=chosen,
            request=lambda networks, method, rows=chosen: ex.CorrectLabels(rows.numpy(), y[rows].numpy()),
            **common,
        )
    chosen = torch.tensor(np.sort(rng.choice(n, size=many, replace=False)))
    stays = torch.ones(n, dtype=torch.bool)
    stays[chosen] = False
    yield Task(
        name=f"remove {many:,} rows",
        data=(X, y),
        corrected=(X[stays], y[stays]),
        touched=chosen,
        stays=stays,
        request=lambda networks, method: ex.RemoveRows(chosen.numpy()),
        **common,
    )
    columns = [j for j, name in enumerate(names) if name.startswith(REVOKED)]
    without = X.clone()
    without[:, columns] = 0.0
    blind = test[0].clone()
    blind[:, columns] = 0.0
    yield Task(
        name=f"revoke {len(columns)} columns",
        data=(X, y),
        corrected=(without, y),
        touched=torch.nonzero((without != X).any(dim=1))[:, 0],
        request=lambda networks, method: networks.RevokeFeatures(columns, fill=0.0),
        **common | {"test": (blind, test[1])},
    )
