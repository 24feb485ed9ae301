"""The objective of a model (E1) without its rows.

The only place that makes a native Objective, and the only one that knows how theta is laid out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import fsum, inf, isfinite, sqrt
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core
from ._arrays import (
    Block,
    Blocks,
    Float,
    Index,
    as_matrix,
    as_noise,
    as_penalty,
    as_targets,
    as_vector,
    as_weights,
    require_unmasked,
)
from ._frames import is_missing, refuse_lazy
from ._numbers import as_flag
from .class_weights import Balance, balanced, weighed
from .losses import Loss, get_loss, tweedie
from .multinomial import SOFTMAX
from .noise import Noise

SCALARS = (bool, int, float, str)
# Which estimator minimises a loss; that of a Tweedie loss has a power
KINDS = {
    "squared": "Ridge",
    "logistic": "LogisticRegression",
    "softmax": "LogisticRegression",
    "poisson": "PoissonRegressor",
    "tweedie": "TweedieRegressor",
    "squared_hinge": "LinearSVC",
}


@dataclass(frozen=True, eq=False)
class Problem:
    """E1 of a fitted model; theta (p,) is coef (d,), then the intercept if there is one.

    Of K > 2 classes (E28) theta (K p,) holds that of each class, one after the other. All functions of theta
    here are over such a table, which has one row elsewhere.

    Parameters
    ----------
    loss : str
        Its name in `LOSSES`, or "softmax" of more than two classes.
    alpha : float
        Penalty of every coefficient, on the sum scale.
    per_weight : float or None
        Where the loss is a mean, of some models of scikit-learn: alpha over the sum of the weights, with
        which alpha moves (E35). See :meth:`weighing`.
    fit_intercept : bool
    classes : (K,) array or None
        Labels of targets 0, 1, ...
    intercept_scaling : float or None
        Where the intercept is penalised: what it is divided by there. None: it is free.
    noise : Noise or None
        The b of E1, over all columns of the X that was handed over.
    class_weights : (K,) array or None
        What rows of each class count, times their own weight.
    balance : {"weights", "rows"} or None
        What these are to even out between classes, so that they move with the rows (E35). See
        :meth:`balancing`.
    """

    loss: str
    alpha: float
    fit_intercept: bool
    classes: NDArray[Any] | None = None
    noise: Noise | None = None
    class_weights: Float | None = None
    per_weight: float | None = None
    intercept_scaling: float | None = None
    balance: Balance | None = None

    # --- properties

    def require_one_output(self, what: str) -> None:
        """ValueError where theta is of more than two classes."""
        if self.outputs > 1:
            raise ValueError(
                f"{what} is for models of numbers or two classes, and this one has {self.n_classes} classes"
            )

    @cached_property
    def constant_hessian(self) -> bool:
        """Whether the Hessian does not depend on theta."""
        return self.row_loss.max_d3 == 0

    @cached_property
    def row_loss(self) -> Loss:
        """The loss of one row and its derivatives."""
        return SOFTMAX if self.outputs > 1 else get_loss(self.loss)

    @cached_property
    def outputs(self) -> int:
        """How many predictors a row has: the classes of a softmax, else 1."""
        return outputs_of(self.n_classes)

    @property
    def n_classes(self) -> int:
        """How many classes there are; 0: targets are none."""
        return 0 if self.classes is None else len(self.classes)

    @property
    def power(self) -> float | None:
        """Of a Tweedie loss."""
        return self.row_loss.power

    @property
    def kind(self) -> str:
        """The name of the estimator that minimises it."""
        return KINDS[self.row_loss.name.partition("(")[0]]

    def weighing(self, weight: float) -> Self:
        """The problem of rows whose weights add up to this: another only where the loss is a mean (E35)."""
        return self if self.per_weight is None else replace(self, alpha=self.per_weight * weight)

    def balancing(self, targets: Float, own_weights: Float | None) -> Self:
        """The problem of these rows: another only where its class weights move with them (E35)."""
        if self.balance is None:
            return self
        weights = balanced(targets, own_weights, self.n_classes, self.balance)
        return replace(self, class_weights=weights)

    @cached_property
    def described(self) -> dict[str, Any]:
        """The model as receipts describe it: all that does not depend on the data."""
        told = {
            "kind": self.kind,
            "alpha": self.alpha if self.per_weight is None else self.per_weight,
            "fit_intercept": self.fit_intercept,
            "classes": None if self.classes is None else len(self.classes),
        }
        if self.per_weight is not None:
            told["mean"] = True
        if self.intercept_scaling is not None:
            told["intercept_scaling"] = self.intercept_scaling
        if self.power is not None:
            told["power"] = self.power
        if self.balance is not None:
            return {**told, "class_weight": "balanced"}
        return told if self.class_weights is None else {**told, "class_weight": self.class_weights.tolist()}

    @property
    def free_intercept(self) -> bool:
        """Whether there is an intercept that is not penalised: columns may then be moved (E43)."""
        return self.fit_intercept and self.intercept_scaling is None

    @property
    def has_kinks(self) -> bool:
        """Whether curvatures jump, so that sums over rows tell of no other theta (E36)."""
        return not isfinite(self.row_loss.remainder)

    def with_noise(self, noise: Noise | None) -> Self:
        """The problem with another b."""
        return self if noise is self.noise else replace(self, noise=noise)

    # --- the layout of theta

    def parameters(self, d: int) -> int:
        """How many numbers theta has for d columns."""
        return self.outputs * (d + int(self.fit_intercept))

    def split(self, theta: Float) -> tuple[Float, Float]:
        """Coef (d,) and intercept, (1,) or (0,); of K classes (K, d) and (K,)."""
        return split(theta, self.fit_intercept, self.outputs)

    def joined(self, coef: Float, intercept: ArrayLike) -> Float:
        """The reverse of :meth:`split`; without an intercept coef alone."""
        return joined(coef, intercept, self.fit_intercept)

    def survives(self, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which coordinates of theta stay if these columns do."""
        return np.tile(np.append(kept, np.ones(int(self.fit_intercept), dtype=bool)), self.outputs)

    def coordinates(self, columns: Index, d: int) -> Index:
        """Those of theta, (K m,) class after class, of m columns of d."""
        blocks = np.arange(self.outputs)[:, None] * (d + int(self.fit_intercept))
        return (blocks + columns).ravel()

    def moved(self, theta: Float, old: Float | None, new: Float | None) -> Float:
        """Theta over x - new from that over x - old; the intercept alone differs (E43).

        Intercepts of classes add up to 0: a constant for all of them changes nothing (E28).
        """
        if not self.fit_intercept or old is new:
            return theta
        if self.outputs == 1:
            return moved(theta, old, new)
        rows = np.array([moved(row, old, new) for row in theta.reshape(self.outputs, -1)])
        return centred(rows.ravel(), self.outputs)

    def gradient_over_x(self, g: Float, shift: Float) -> Float:
        """Of the objective over x, from that over x - shift."""
        coef, intercept = self.split(g)
        return self.joined(coef + np.multiply.outer(intercept, shift).reshape(coef.shape), intercept)

    # --- targets

    def spread(self, targets: Float, weights: Float | None) -> float:
        """The root mean square of the targets of a squared loss, whose minimiser has their unit; else 1."""
        if not self.constant_hessian:
            return 1.0
        scale = float(np.abs(targets).max(initial=0.0)) or 1.0  # so that no square overflows
        return scale * sqrt(float(np.average((targets / scale) ** 2, weights=weights)))

    @cached_property
    def _scalar_targets(self) -> dict[Any, Float]:
        """The labels' targets, (1,) each."""
        labels = [] if self.classes is None else self.classes.tolist()
        return {label: np.array([float(target)]) for target, label in enumerate(labels)}

    def encode(self, y: ArrayLike, n: int) -> Float:
        """Targets (n,) of the loss from targets in the user's form, (n,) or a scalar.

        Raises
        ------
        ValueError
            Another shape, NaN or infinity, a label that is not one of the classes.
        """
        if n == 1 and isinstance(y, SCALARS):  # fast for streams of single rows
            if y in self._scalar_targets:
                return self._scalar_targets[y]
            if self.classes is None and isinstance(y, float) and self.row_loss.contains(y):
                return np.array([float(y)])
        if type(y) is not np.ndarray:
            refuse_lazy(y, "y")
            require_unmasked(y, "y")
        if self.classes is None:
            y = np.asarray(y)
            return as_targets(np.full(n, y) if y.ndim == 0 else _one_column(y), self.row_loss, n)
        labels = _one_column(np.asarray(y))
        if labels.ndim == 0:
            labels = np.full(n, labels)
        if labels.shape != (n,):
            raise ValueError(f"y has shape {labels.shape}, expected ({n},) to match X")
        targets = np.zeros(n)
        try:
            unseen = np.ones(n, dtype=bool)
            for target, label in enumerate(self.classes):
                found = np.asarray(labels == label, dtype=bool)
                targets[found] = target
                unseen &= ~found
        except TypeError:  # pandas.NA is equal to nothing, and not unequal
            unseen = np.array([is_missing(label) for label in labels])
        if unseen.any():
            unknown = labels[unseen][:1].tolist()[0]
            raise ValueError(f"label {unknown!r} is not one of the classes {self.classes.tolist()}")
        return targets

    def decode(self, targets: Float) -> NDArray[Any]:
        """Targets of the loss in the user's form."""
        return targets if self.classes is None else self.classes[targets.astype(np.intp)]

    def weights(self, targets: Float, sample_weight: ArrayLike | None) -> Float | None:
        """What rows count in E1 (n,): their own weights times those of their classes; None: 1.

        Of all rows, where class weights move with them.
        """
        own = as_weights(sample_weight, targets.size)
        return weighed(self.balancing(targets, own).class_weights, targets, own)

    def check_enough(self, targets: Float, weights: Float | None) -> None:
        """Raises without a row of positive weight, for a classifier of each class: no minimiser exists.

        Nor does one, with a free intercept, where all targets pull it to one side (E34).
        """
        counted = targets if weights is None else targets[weights > 0]
        if counted.size == 0:
            raise ValueError("every sample_weight is zero: a row of positive weight is needed")
        if self.classes is None:
            self._check_between(counted)
        elif counted.min() == counted.max():
            raise ValueError("only one class has rows of positive sample_weight: two are needed")
        elif (empty := np.bincount(counted.astype(np.intp), minlength=len(self.classes)) == 0).any():
            raise ValueError(
                f"class {self.classes[empty].tolist()[0]!r} has no rows of positive sample_weight: fit "
                "without it, or take it out of a model by RevokeClass"
            )

    def _check_between(self, counted: Float) -> None:
        low, high = self.row_loss.between
        if self.fit_intercept and not (counted.max() > low and counted.min() < high):
            raise ValueError(
                f"every target of positive weight is {counted[0]:g}, so no intercept is the best one: keep a "
                "row with another target, or fit with fit_intercept=False"
            )

    @property
    def needs_targets(self) -> bool:
        """Whether which targets are left decides whether there is a minimiser, beside those of classes."""
        return self.classes is None and self.fit_intercept and self.row_loss.between != (-inf, inf)

    # --- the objective

    def penalty(self, d: int) -> Float:
        """Diagonal of Lambda (p,) for d columns."""
        penalty = as_penalty(self.alpha, d, self.fit_intercept)
        if self.fit_intercept and self.intercept_scaling is not None:
            penalty[d] = self.alpha / self.intercept_scaling**2
        return np.tile(penalty, self.outputs) if self.outputs > 1 else penalty

    def noise_on(self, columns: NDArray[np.bool_]) -> Float:
        """B (p,) over a mask of all columns, 0 at the intercept; zeros where there is none."""
        if self.noise is None:
            return np.zeros(self.parameters(int(np.count_nonzero(columns))))
        return self.joined(self.noise.values[columns], 0.0)

    def objective(
        self,
        blocks: Blocks,
        columns: NDArray[np.bool_],
        *,
        stored: NDArray[np.bool_] | None = None,
        largest_norm: float | None = None,
        loss: str | None = None,
        penalised: bool = True,
        noisy: bool = True,
        shift: Float | None = None,
        ball: _core.Ball | None = None,
    ) -> _core.Objective:
        """E1 on rows, over a mask of all columns that were ever handed over.

        `stored` is that mask over the columns that the rows hold, None where they hold no others; `shift` is
        taken off these (E43), and the rows then lie in the `ball`. Without `penalised` rows stand for
        themselves, without `noisy` there is no b; `loss` replaces the loss.
        """
        d = int(np.count_nonzero(columns))
        penalty = self.penalty(d) if penalised else np.zeros(self.parameters(d))
        b = None
        if noisy and self.noise is not None:  # of one output
            b = as_noise(self.noise.values[columns], d, self.fit_intercept)
        outputs = self.outputs if loss is None else 1
        loss = self.loss if loss is None else loss
        if outputs != self.outputs:
            penalty = penalty[: penalty.size // self.outputs]
        how: dict[str, Any] = {"shift": shift, "ball": ball, "outputs": outputs}
        return _core.Objective(blocks, loss, penalty, self.fit_intercept, stored, largest_norm, b, **how)


def loss_of_kind(kind: str, power: float | None) -> str:
    """The loss that an estimator of this name minimises; ValueError where there is none."""
    loss = next((loss for loss, name in KINDS.items() if name == kind), None)
    if loss is None or (power is None) == (loss == "tweedie"):
        raise ValueError(f"unknown model {kind!r}{'' if power is None else f' of power {power}'}")
    return loss if power is None else tweedie(power).name


def outputs_of(classes: int) -> int:
    """How many predictors a row of a model has: one for each class, where there are more than two."""
    return classes if classes > 2 else 1


def split(theta: Float, fit_intercept: bool, outputs: int = 1) -> tuple[Float, Float]:
    """See :meth:`Problem.split`; views."""
    if outputs > 1:
        rows = theta.reshape(outputs, -1)
        d = rows.shape[1] - bool(fit_intercept)
        return rows[:, :d], rows[:, d:].ravel()
    d = theta.size - bool(fit_intercept)
    return theta[:d], theta[d:]


def joined(coef: Float, intercept: ArrayLike, fit_intercept: bool) -> Float:
    """See :meth:`Problem.joined`."""
    if coef.ndim == 2:
        return np.column_stack([coef, intercept] if fit_intercept else [coef]).ravel()
    return np.append(coef, intercept) if fit_intercept else coef


def centred(theta: Float, outputs: int) -> Float:
    """A theta with intercepts of several classes, their mean taken off (E28)."""
    rows = theta.reshape(outputs, -1).copy()
    rows[:, -1] -= fsum(rows[:, -1]) / outputs
    return rows.ravel()


def moved(theta: Float, old: Float | None, new: Float | None) -> Float:
    """See :meth:`Problem.moved`; shifts (d,), None for 0.

    What the intercept takes, ``(new - old) @ coef``, is a sum rounded once: the same on every machine.
    """
    if old is new:
        return theta
    by = (0.0 if new is None else new) - (np.zeros(theta.size - 1) if old is None else old)
    here = np.flatnonzero(by)
    return np.append(theta[:-1], fsum([theta[-1], *(by[here] * theta[here])]))


def _one_column(y: NDArray[Any]) -> NDArray[Any]:
    return y.ravel() if y.ndim == 2 and y.shape[1] == 1 else y


def as_block(X: Any, y: ArrayLike, sample_weight: ArrayLike | None, loss: Loss) -> Block:
    """The rows of a matrix that was checked, with targets and weights that were not yet."""
    n = X.shape[0]
    return X, as_targets(y, loss, n), as_weights(sample_weight, n)


def as_objective(
    X: Any,
    y: Any,
    sample_weight: ArrayLike | None,
    theta: ArrayLike,
    *,
    alpha: ArrayLike,
    loss: str,
    fit_intercept: bool,
    noise: ArrayLike | None = None,
    finite: bool = True,
    canonical: bool = True,
    curvature: bool = False,
) -> tuple[_core.Objective, Float]:
    """E1 over arrays that were not checked yet, and its theta (p,).

    `finite` and `canonical` as in :func:`expunge._arrays.as_matrix`; without the second, J is there for one
    product alone. `curvature`: only the Hessian is asked for, which looks at y where it depends on it (E6).
    """
    chosen, fit_intercept = get_loss(loss), as_flag(fit_intercept, "fit_intercept")
    X = as_matrix(X, finite=finite, canonical=canonical)
    n, d = X.shape
    if curvature and chosen.curvature_of_targets and y is None:
        raise ValueError(f"the Hessian of the {loss} loss depends on targets: pass y")
    without = curvature and not chosen.curvature_of_targets
    block = (X, None, as_weights(sample_weight, n)) if without else as_block(X, y, sample_weight, chosen)
    penalty = as_penalty(alpha, d, fit_intercept)
    b = as_noise(noise, d, fit_intercept)
    J = _core.Objective([block], loss, penalty, fit_intercept, None, None, b, canonical)
    return J, as_vector(theta, "theta", penalty.size, match=" to match X")
