"""The methods of an Unlearner with the face of a strategy, so that one loop compares them all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from numpy.typing import ArrayLike

from .._numbers import as_number
from ..engine.state import Hessian, How, Method
from ..requests import Request
from ..unlearner import Unlearner
from ..update import Update


class _Ours:
    """An Unlearner of which one method is used.

    What an Unlearner takes beside model and data, goes to it.
    """

    name: ClassVar[Method]
    accepts: ClassVar[tuple[type[Request], ...]] = (Request,)
    gradients: int = 0  # of single rows: those that the last request took

    def __init__(
        self, model: Any, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None, **unlearner: Any
    ) -> None:
        self._how: dict[str, Any] = {}
        self.unlearner = Unlearner(model, X, y, sample_weight, **unlearner)

    @property
    def model(self) -> Any:
        """What predicts."""
        return self.unlearner.model

    def apply(self, request: Request | Iterable[Request]) -> Update:
        """Corrects data and model: :meth:`expunge.Unlearner.apply` with this method."""
        update = self.unlearner.apply(request, method=self.name, **self._how)
        self.gradients = update.passes * self.unlearner._fitted.rows().data.register.live().size
        return update

    def residual(self) -> float:
        """See :meth:`expunge.Unlearner.residual`."""
        return self.unlearner.residual()

    def distance(self) -> float:
        """See :meth:`expunge.Unlearner.distance`."""
        return self.unlearner.distance()

    def corrected_data(self) -> tuple[Any, ...]:
        """See :meth:`expunge.Unlearner.corrected_data`."""
        return self.unlearner.corrected_data()

    def __repr__(self) -> str:
        return f"{type(self).__name__}{repr(self.unlearner).removeprefix('Unlearner')}"


class Auto(_Ours):
    """``method="auto"`` of an :class:`expunge.Unlearner` (E9, E41).

    Parameters
    ----------
    model, X, y, sample_weight, **unlearner : as of :class:`expunge.Unlearner`

    Attributes
    ----------
    name : "auto"
    unlearner : Unlearner

    Examples
    --------
    >>> import expunge as ex
    >>> from expunge.baselines import Auto
    >>> X, y = [[0.0], [1.0], [3.0], [4.0]], [0.0, 1.0, 2.0, 2.0]
    >>> Auto(ex.Ridge().fit(X, y), X, y).apply(ex.RemoveRows([0])).method
    'auto'
    """

    name = "auto"


class Exact(_Ours):
    """``method="exact"`` of an :class:`expunge.Unlearner` (E11, E13).

    Parameters
    ----------
    model, X, y, sample_weight, **unlearner : as of :class:`expunge.Unlearner`

    Attributes
    ----------
    name : "exact"
    unlearner : Unlearner

    Examples
    --------
    >>> import expunge as ex
    >>> from expunge.baselines import Exact
    >>> X, y = [[0.0], [1.0], [3.0], [4.0]], [0.0, 1.0, 2.0, 2.0]
    >>> Exact(ex.Ridge().fit(X, y), X, y).apply(ex.RemoveRows([0])).residual < 1e-8
    True
    """

    name = "exact"


class SecondOrder(_Ours):
    """``method="second_order"`` of an :class:`expunge.Unlearner`, the source paper's second update (E5).

    Parameters
    ----------
    model, X, y, sample_weight, **unlearner : as of :class:`expunge.Unlearner`
    hessian : {"corrected", "original"}
        The second is the influence function, extended to revoked columns.

    Attributes
    ----------
    name : "second_order"
    unlearner : Unlearner

    Examples
    --------
    >>> import expunge as ex
    >>> from expunge.baselines import SecondOrder
    >>> X, y = [[0.0], [1.0], [3.0], [4.0]], [0.0, 1.0, 2.0, 2.0]
    >>> SecondOrder(ex.Ridge().fit(X, y), X, y).apply(ex.RemoveRows([0])).hessian
    'corrected'
    """

    name = "second_order"

    def __init__(
        self,
        model: Any,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        hessian: Hessian = "corrected",
        **unlearner: Any,
    ) -> None:
        How.checked(self.name, hessian, None)
        super().__init__(model, X, y, sample_weight, **unlearner)
        self._how = {"hessian": hessian}


class FirstOrder(_Ours):
    """``method="first_order"`` of an :class:`expunge.Unlearner`, the source paper's first update (E4).

    Parameters
    ----------
    model, X, y, sample_weight, **unlearner : as of :class:`expunge.Unlearner`
    tau : float, optional
        The step; by default the safe ``1 / L``.

    Attributes
    ----------
    name : "first_order"
    unlearner : Unlearner

    Examples
    --------
    >>> import expunge as ex
    >>> from expunge.baselines import FirstOrder
    >>> X, y = [[0.0], [1.0], [3.0], [4.0]], [0.0, 1.0, 2.0, 2.0]
    >>> FirstOrder(ex.Ridge().fit(X, y), X, y, tau=0.01).apply(ex.RemoveRows([0])).tau
    0.01
    """

    name = "first_order"

    def __init__(
        self,
        model: Any,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        tau: float | None = None,
        **unlearner: Any,
    ) -> None:
        if tau is not None:
            as_number(tau, "tau", above=0.0)
        super().__init__(model, X, y, sample_weight, **unlearner)
        self._how = {"tau": tau}
