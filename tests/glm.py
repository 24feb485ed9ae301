"""Data of generalised linear models, and requests to them with what they make of the data."""

import numpy as np
from problems import targets_of

import expunge as ex
from expunge.losses import get_loss


def data_of(loss, *, n=120, d=5, seed=0, weighted=False, sized=0.4):
    """X (n, d), y (n,), s (n,) or None."""
    rng = np.random.default_rng([seed, n, d, len(loss)])
    X = rng.standard_normal((n, d))
    eta = sized * (X @ rng.standard_normal(d))
    y = targets_of("tweedie(1.5)" if loss == "tweedie(1.9)" else loss, eta, rng)
    return X, y, rng.uniform(0.5, 2.0, n) if weighted else None


class Rows:
    """Data, and what requests make of them."""

    def __init__(self, X, y, s):
        self.X, self.y, self.s = X.copy(), y.copy(), None if s is None else s.copy()
        self.live, self.kept = np.ones(len(y), dtype=bool), np.ones(X.shape[1], dtype=bool)

    def granted(self, request):
        match request:
            case ex.RemoveRows():
                self.live[request.rows] = False
            case ex.CorrectLabels():
                self.y[request.rows] = request.labels
            case ex.CorrectValues():
                self.X[np.ix_(request.rows, request.columns)] = request.values
            case ex.RevokeFeatures():
                self.kept[request.columns] = False
            case ex.AddRows():
                X = np.zeros((len(request.y), self.X.shape[1]))
                X[:, self.kept] = request.X
                self.X, self.y = np.vstack([self.X, X]), np.append(self.y, request.y)
                self.live = np.append(self.live, np.ones(len(X), dtype=bool))
                if self.s is not None:
                    self.s = np.append(self.s, request.sample_weight)
        return self

    @property
    def now(self):
        s = None if self.s is None else self.s[self.live]
        return self.X[self.live][:, self.kept], self.y[self.live], s


def requests_of(loss, d, weighted):
    y = [2.5, 4.0] if get_loss(loss).power else [2.0, 7.0]
    return {
        "remove": ex.RemoveRows([3, 8, 11]),
        "add": ex.AddRows(np.full((2, d), 0.5), y, np.array([0.5, 2.0]) if weighted else None),
        "labels": ex.CorrectLabels([4, 9], y),
        "values": ex.CorrectValues([5, 6], [0, 2], np.array([[1.5, -1.0], [0.25, 2.0]])),
        "revoke": ex.RevokeFeatures([1]),
    }


KINDS = list(requests_of("poisson", 5, False))
