"""Row by row: an unlearned model beside a retrained one."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import is_classifier

from .._arrays import Float, as_real
from ..losses import get_loss
from .display import Display

Quantity = Literal["loss", "logit"]


class FidelityDisplay(Display):
    """Test losses (or logits) of an unlearned model against those of a retrained one: equal on the diagonal.

    Parameters
    ----------
    unlearned, retrained : (m,) arrays
        Of the same rows.
    quantity : str
        What they are, for the labels of the axes.

    Attributes
    ----------
    points_, diagonal_ : matplotlib PathCollection and Line2D
    ax_, figure_ : matplotlib Axes and Figure

    Raises
    ------
    ValueError
        Arrays of different lengths, or with NaN.

    Examples
    --------
    >>> from expunge.plots import FidelityDisplay
    >>> FidelityDisplay([0.1, 0.75], [0.1, 0.5]).largest_gap
    0.25
    """

    points_: Any
    diagonal_: Any

    def __init__(self, unlearned: ArrayLike, retrained: ArrayLike, *, quantity: str = "loss") -> None:
        self.unlearned, self.retrained = as_real(unlearned, "unlearned"), as_real(retrained, "retrained")
        self.quantity = quantity
        if (
            self.unlearned.ndim != 1
            or self.unlearned.shape != self.retrained.shape
            or not self.unlearned.size
        ):
            raise ValueError(
                f"unlearned has shape {self.unlearned.shape} and retrained {self.retrained.shape}: both "
                "have to be (m,), of the same rows"
            )
        if not np.isfinite(self.unlearned - self.retrained).all():
            raise ValueError("unlearned or retrained contains NaN or infinity")

    @property
    def largest_gap(self) -> float:
        """The largest distance of a row from the diagonal, along an axis."""
        return float(np.max(np.abs(self.unlearned - self.retrained)))

    @classmethod
    def from_estimators(
        cls,
        unlearned: Any,
        retrained: Any,
        X: Any,
        y: ArrayLike,
        *,
        quantity: Quantity = "loss",
        ax: Any = None,
        **options: Any,
    ) -> Self:
        """Of two fitted models, on rows that neither was fitted to.

        Parameters
        ----------
        unlearned, retrained : classifier of two classes with decision_function, or regressor
            decision_function is taken for the log odds, which that of LogisticRegression is.
        X : (m, d) array or CSR matrix
            Of the columns that both have: ``X[:, un.get_support()]`` after columns were revoked.
        y : (m,) array
            Labels, or numbers.
        quantity : {"loss", "logit"}
            The loss of each row (E1), or the log odds; of regressors the prediction.
        ax : matplotlib Axes, optional
            A new figure's by default.
        **options
            Of matplotlib's scatter.

        Returns
        -------
        FidelityDisplay

        Raises
        ------
        ValueError
            Models of different classes or of more than two, labels of another class.
        ImportError
            matplotlib is not installed.
        """
        if is_classifier(unlearned) != is_classifier(retrained):
            raise ValueError("one model is a classifier and the other is not: pass two of a kind")
        if not is_classifier(unlearned):
            values, loss, targets = [model.predict(X) for model in (unlearned, retrained)], "squared", y
        else:
            classes = np.asarray(unlearned.classes_)
            if classes.size != 2 or not np.array_equal(classes, retrained.classes_):
                raise ValueError(
                    f"the models have classes {classes.tolist()} and {list(retrained.classes_)}: both "
                    "have to have the same two; losses of other models go to FidelityDisplay itself"
                )
            if not np.isin(y, classes).all():
                raise ValueError(f"y has labels that are not among the classes {classes.tolist()}")
            values, loss = [model.decision_function(X) for model in (unlearned, retrained)], "logistic"
            targets = np.asarray(y) == classes[1]
        return cls.from_predictions(targets, *values, loss=loss, quantity=quantity, ax=ax, **options)

    @classmethod
    def from_predictions(
        cls,
        y: ArrayLike,
        unlearned: ArrayLike,
        retrained: ArrayLike,
        *,
        loss: str = "logistic",
        quantity: Quantity = "loss",
        ax: Any = None,
        **options: Any,
    ) -> Self:
        """Of what two models predict for the same rows.

        Parameters
        ----------
        y : (m,) array
            0 and 1 with the logistic loss.
        unlearned, retrained : (m,) arrays
            Log odds of class 1, or predicted numbers.
        loss : {"logistic", "squared"}
        quantity, ax, **options
            As of :meth:`from_estimators`.

        Returns
        -------
        FidelityDisplay

        Raises
        ------
        ValueError
            Arrays that do not fit, or an unknown loss or quantity.
        ImportError
            matplotlib is not installed.
        """
        if quantity not in ("loss", "logit"):
            raise ValueError(f"quantity must be 'loss' or 'logit', got {quantity!r}")
        name = "prediction" if loss == "squared" and quantity == "logit" else quantity
        display = cls(*_shown(y, unlearned, retrained, loss, quantity), quantity=name)
        return display.plot(ax, **options)

    def plot(self, ax: Any = None, **options: Any) -> Self:
        """Draws the rows and the diagonal.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            A new figure's by default.
        **options
            Of matplotlib's scatter.

        Returns
        -------
        FidelityDisplay

        Raises
        ------
        ImportError
            matplotlib is not installed.
        """
        ax = self._axes(ax)
        style = {"marker": "o", "s": 16, "facecolors": "none", "edgecolors": "black", "linewidths": 0.6}
        label = f"a row; the largest gap is {self.largest_gap:.2g}"
        self.points_ = ax.scatter(self.retrained, self.unlearned, **({"label": label} | style | options))
        both = np.concatenate([self.unlearned, self.retrained])
        ends = [both.min(), both.max()]
        (self.diagonal_,) = ax.plot(ends, ends, linestyle="--", color="gray", label="equal", zorder=0)
        ax.set(xlabel=f"{self.quantity}, retrained", ylabel=f"{self.quantity}, unlearned")
        ax.legend()
        return self


def _shown(
    y: ArrayLike, unlearned: ArrayLike, retrained: ArrayLike, loss: str, quantity: Quantity
) -> tuple[Any, Any]:
    if quantity == "logit":
        return unlearned, retrained
    of, targets = get_loss(loss), as_real(y, "y")
    of.check_targets(targets)

    def losses(predicted: ArrayLike, name: str) -> Float:
        values = as_real(predicted, name)
        if values.shape != targets.shape:
            raise ValueError(f"{name} has shape {values.shape}, expected {targets.shape} to match y")
        return of.value(targets, values)

    return losses(unlearned, "unlearned"), losses(retrained, "retrained")
