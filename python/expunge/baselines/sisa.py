"""SISA: an ensemble of models on shards of the rows, each trained slice after slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil, nan
from time import perf_counter
from typing import Any, Literal, NamedTuple, NoReturn, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit

from .._arrays import Float, Index, as_matrix
from .._frames import select_columns
from .._numbers import as_count, as_number
from ..atomic import assign_all
from ..engine.attached import Attached
from ..engine.fitted import Fitted
from ..engine.state import WITHIN, How, Promise
from ..models.adopt import rows_of
from ..models.base import noise_of, theta_of
from ..noise import check_random_state
from ..requests import Request
from ..update import Update
from .base import Strategy, first_goal, problem_to_compare, trained

Aggregate = Literal["mean", "majority"]
Checkpoints = list[list[Float | None]]  # of each shard, theta after each slice; None: too few rows so far


class Members(NamedTuple):
    """The models of all shards."""

    coef: Float  # (shards, d)
    intercept: Float  # (shards,)
    names: list[str] | None


class Ensemble:
    """What predicts from the models of all shards; :attr:`Sisa.model`.

    Attributes
    ----------
    coef_ : (shards, d) array
    intercept_ : (shards,) array
    classes_ : (2,) array
        Of a classifier.
    n_features_in_ : int

    Examples
    --------
    >>> import numpy as np
    >>> import expunge as ex
    >>> from expunge.baselines import Sisa
    >>> X, y = np.arange(6.0)[:, None], np.arange(6.0)
    >>> ensemble = Sisa(ex.Ridge().fit(X, y), X, y, shards=2, random_state=0).model
    >>> ensemble.coef_.shape, ensemble.predict(X).shape
    ((2, 1), (6,))
    """

    def __init__(self, classes: NDArray[Any] | None, aggregate: Aggregate) -> None:
        if classes is not None:
            self.classes_ = classes
        self._aggregate = aggregate
        self.members: Members  # replaced as a whole

    @property
    def coef_(self) -> Float:
        """See the class."""
        return self.members.coef

    @property
    def intercept_(self) -> Float:
        """See the class."""
        return self.members.intercept

    @property
    def n_features_in_(self) -> int:
        """How many columns it takes."""
        return int(self.members.coef.shape[1])

    def _etas(self, X: Any) -> Float:
        """Linear predictors of all members (n, shards)."""
        members = self.members
        X = as_matrix(select_columns(X, members.names), columns=members.coef.shape[1])
        etas: Float = X @ members.coef.T + members.intercept
        return etas

    def predict(self, X: Any) -> NDArray[Any]:
        """Labels (n,): of the class that is more probable on average, or of most votes; or mean targets."""
        etas = self._etas(X)
        if not hasattr(self, "classes_"):
            return np.asarray(etas.mean(axis=1))
        ahead = expit(etas).mean(axis=1) - 0.5
        if self._aggregate == "majority":
            votes = (etas > 0.0).mean(axis=1) - 0.5
            ahead = np.where(votes == 0.0, ahead, votes)  # a tie is broken by probabilities
        labels: NDArray[Any] = self.classes_[(ahead > 0.0).astype(np.intp)]
        return labels

    def predict_proba(self, X: Any) -> Float:
        """Probabilities (n, 2) of classes_, the mean of the members'."""
        etas = self._classifier()._etas(X)
        return np.column_stack([expit(-etas).mean(axis=1), expit(etas).mean(axis=1)])

    def decision_function(self, X: Any) -> Float:
        """Log-odds (n,) of the mean probabilities."""
        etas = self._classifier()._etas(X)
        ahead, behind = np.logaddexp.reduce(log_expit(etas), 1), np.logaddexp.reduce(log_expit(-etas), 1)
        return np.asarray(ahead - behind)

    def _classifier(self) -> Ensemble:
        if not hasattr(self, "classes_"):
            raise AttributeError("an ensemble of Ridge models has no probabilities: use predict")
        return self


class Sisa(Strategy):
    """Sharded, isolated, sliced and aggregated training: only affected shards are trained again.

    Rows are dealt to shards, and within a shard to slices, at random. The model of a shard is trained on its
    first slice, then from there on the first two, and so on; theta after each is a checkpoint. A request has
    every shard that it touches trained again from the checkpoint before the first slice that it touches. A
    revoked column touches the rows that are not 0 in it.

    Parameters
    ----------
    model : fitted Ridge or LogisticRegression, of expunge or of scikit-learn
        Says what to train; it is not changed.
    X, y, sample_weight : as of :class:`expunge.Unlearner`
    shards : int, default=20
    slices : int, default=1
        Of each shard.
    aggregate : {"mean", "majority"}
        Of classifiers: the mean of the members' probabilities, or a vote on labels. Targets are averaged.
    within : float, default=0.01
        How many standard errors (E41) each member may be from its minimiser, proven.
    random_state : int, optional
        Of the deal, which must not depend on the data.

    Attributes
    ----------
    name : "sisa"
    model : Ensemble
    retrained : int
        How many shards the last request has trained again.

    Raises
    ------
    ValueError
        A shard with rows of one class alone, or without rows, at construction or after a request; a number of
        shards or slices that is not positive; noise in the objective.

    Notes
    -----
    L. Bourtoule et al., *Machine Unlearning*, IEEE S&P 2021. Each member has the penalty ``alpha / shards``,
    its share by rows. Added rows join the last slice of a shard that is drawn for their number. The loss is
    convex, so that members are minimisers whatever the slices: these save work where rows of late slices
    leave, and cost as many fits as there are. `residual` and `distance` are NaN, as no theta stands for the
    ensemble. A pass over the rows of one shard counts as their share of a pass.

    Examples
    --------
    >>> import numpy as np
    >>> import expunge as ex
    >>> from expunge.baselines import Sisa
    >>> X = np.random.default_rng(0).standard_normal((200, 3))
    >>> y = X[:, 0] - X[:, 1] > 0.0
    >>> sisa = Sisa(ex.LogisticRegression().fit(X, y), X, y, shards=5, random_state=0)
    >>> update = sisa.apply(ex.RemoveRows([3]))
    >>> sisa.retrained, update.distance
    (1, nan)
    """

    name = "sisa"

    def __init__(
        self,
        model: Any,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        shards: int = 20,
        slices: int = 1,
        aggregate: Aggregate = "mean",
        within: float = WITHIN,
        random_state: int | None = None,
    ) -> None:
        problem, width = problem_to_compare(model), theta_of(model).size
        if noise_of(model) is not None:
            raise ValueError("noise in the objective is for one theta: fit the model without it")
        if aggregate not in get_args(Aggregate):
            raise ValueError(
                f"unknown aggregate={aggregate!r}: choose one of {', '.join(get_args(Aggregate))}"
            )
        deal = Deal(as_count(shards, "shards"), as_count(slices, "slices"), check_random_state(random_state))
        names = getattr(model, "feature_names_in_", None)
        d = width - int(problem.fit_intercept)
        data = rows_of(X, y, sample_weight, problem, d, names, False)
        share = replace(problem, alpha=problem.alpha / deal.shards)
        promise = Promise.checked(None, as_number(within, "within", above=0.0))
        solver, memory_limit = getattr(model, "solver", "auto"), getattr(model, "memory_limit", None)
        solver = solver if solver in ("auto", "cholesky", "cg") else "auto"
        self._members = Shards(
            Ensemble(problem.classes, aggregate),
            Attached(share, data, promise, solver, memory_limit),
            deal,
            named=names is not None,
        )
        self._fitted = self._members
        self._begin_turns()

    @property
    def retrained(self) -> int:
        """See the class."""
        return self._members.retrained

    @property
    def gradients(self) -> int:
        """Gradients of single rows that the last request took."""
        return self._members.gradients

    def residual(self) -> float:
        """NaN: no theta stands for an ensemble."""
        return nan

    def distance(self) -> float:
        """NaN: no theta stands for an ensemble."""
        return nan

    def standard_errors(self, columns: Any = None) -> NoReturn:
        """TypeError: no theta stands for an ensemble."""
        raise TypeError("an ensemble has no theta, and no standard errors of it: use a model of all rows")


class Deal(NamedTuple):
    """How rows are dealt to shards and slices: by their number and the seed, never by their values."""

    shards: int
    slices: int
    seed: int | None

    def places(self, n: int) -> Index:
        """Of n rows: shard * slices + slice, of even sizes."""
        order = np.random.default_rng(self.seed).permutation(n)
        places = np.empty(n, dtype=np.int64)
        places[order] = np.arange(n) % (self.shards * self.slices)
        return places

    def extended(self, places: Index, n: int) -> Index:
        """The same with rows that were added: each in the last slice of a shard."""
        if n == places.size:
            return places
        seed = 0 if self.seed is None else self.seed
        shards = [np.random.default_rng([seed, row]).integers(self.shards) for row in range(places.size, n)]
        return np.append(places, np.array(shards, dtype=np.int64) * self.slices + self.slices - 1)


class Shards(Fitted):
    """An ensemble and the data that it stands for: they change together or not at all."""

    def __init__(self, ensemble: Ensemble, engine: Attached, deal: Deal, *, named: bool) -> None:
        self.model, self.engine = ensemble, engine
        self._data, self._deal, self._named = engine.data, deal, named
        self._places = deal.places(engine.data.n_rows)
        self._checkpoints: Checkpoints = [[None] * deal.slices for _ in range(deal.shards)]
        self.retrained = self.gradients = 0
        first = dict.fromkeys(range(deal.shards), 0)
        checkpoints, _ = self._trained(first, self._checkpoints, self._places)
        self._checkpoints, self.model.members = checkpoints, self._of(checkpoints)

    def check(self) -> None:
        """Undoes a request whose undoing was interrupted."""
        self._data.rollback()

    def names(self) -> list[str] | None:
        """Of the surviving columns, where the model handed over has names."""
        return self._data.surviving_names() if self._named else None

    def apply(self, requests: Sequence[Request], how: How, budget: Any, log: Any = None) -> Update:
        """Data and ensemble become those of the corrected data; where that fails, all stays."""
        started, data = perf_counter(), self._data
        try:
            data.compact()
            data.begin()
            for request in requests:
                request.edit(data, self.engine.problem.encode)
            touched = data.finish()
            rows = np.unique(np.concatenate([data.register.touched(), *touched.revoked_rows]))
            places = self._deal.extended(self._places, data.n_rows)
            first = self._first_slices(places[rows])
            survives = self.engine.problem.survives(data.kept[touched.columns])
            kept: Checkpoints = [
                [None if theta is None else theta[survives] for theta in shard] for shard in self._checkpoints
            ]
            checkpoints, gradients = self._trained(first, kept, places)
            members = self._of(checkpoints)
            nothing = np.full(survives.sum(), nan)
            update = Update(
                Sisa.name,
                nothing,
                nothing,
                None,
                nan,
                ceil(gradients / max(1, data.register.live().size)),
                distance=nan,
                rows_touched=rows.size,
                features_revoked=len(touched.revoked),
                seconds=perf_counter() - started,
            )
            assign_all(
                [
                    (self.model, "members", members),
                    (self, "_checkpoints", checkpoints),
                    (self, "_places", places),
                    (self, "retrained", len(first)),
                    (self, "gradients", gradients),
                    *data.committed(),
                ]
            )
        except BaseException:
            data.rollback()
            raise
        data.forget()
        return update

    def _first_slices(self, places: Index) -> dict[int, int]:
        """Of each shard with rows at these places, the first slice with such rows."""
        first: dict[int, int] = {}
        for place in np.unique(places).tolist():
            first.setdefault(*divmod(place, self._deal.slices))
        return first

    def _of(self, checkpoints: Checkpoints) -> Members:
        thetas = np.array([shard[-1] for shard in checkpoints])
        thetas = np.array(
            [self.engine.problem.moved(theta, self._data.surviving_shift(), None) for theta in thetas]
        )
        d = self._data.n_columns
        intercept = thetas[:, d] if self.engine.problem.fit_intercept else np.zeros(len(thetas))
        return Members(thetas[:, :d], intercept, self.names())

    # --- training

    def _trained(
        self, first: dict[int, int], checkpoints: Checkpoints, places: Index
    ) -> tuple[Checkpoints, int]:
        """Checkpoints with those of some shards made anew from a slice on; gradients of rows that took."""
        live, checkpoints = self._data.register.live(), [list(shard) for shard in checkpoints]
        shard, place = np.divmod(places[live], self._deal.slices)
        gradients = 0
        for k, start in first.items():
            theta = checkpoints[k][start - 1] if start else None
            for j in range(start, self._deal.slices):
                rows = live[(shard == k) & (place <= j)]
                theta, passes = self._member(rows, theta, k, last=j + 1 == self._deal.slices)
                checkpoints[k][j] = theta
                gradients += passes * rows.size
        return checkpoints, gradients

    def _member(self, rows: Index, theta: Float | None, k: int, *, last: bool) -> tuple[Float | None, int]:
        """Theta on these rows, from another one or from 0 (None where they are too few), and passes."""
        engine, data, problem = self.rows(), self._data, self.engine.problem
        X, y, s = data.get(rows)
        try:
            problem.check_enough(y, s)
        except ValueError as error:
            if not last:
                return None, 0
            raise ValueError(
                f"shard {k} would have {rows.size} rows, and {error}: use fewer shards"
            ) from None
        objective = problem.objective(
            [(X, y, s)], data.kept, stored=data.stored_columns(data.kept), shift=data.stored_shift
        )
        start = np.zeros(problem.parameters(data.n_columns)) if theta is None else theta
        assert isinstance(engine, Attached)
        found = trained(engine, objective, start, first_goal(engine, y, s))
        return found.theta, int(found.passes)
