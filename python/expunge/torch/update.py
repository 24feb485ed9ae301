"""What one request did to a network."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from .._html import table

__all__ = ["Update"]


@dataclass(frozen=True)
class Update:
    """What one request did. Nothing of it is a proof: no whole network has a certificate.

    Attributes
    ----------
    method : {"first_order", "second_order", "proximal", "forget", "fine_tune"}
    why : str
        Why this one was taken. And, where that was so, that second-order steps were halved, that the fall of
        the objective was hidden by its rounding and found from gradients, or that there was none to be had.
    objective : str
        What the method made smaller: "J", J on the corrected data; "proximal", the proximal Bregman objective
        on the touched rows and a sample; "forget", see :class:`expunge.torch.ForgetValues`.
    objective_before, objective_after : float
        It; the second is the smaller one, or the same number where it fell by less than its digits show.
    loss_before, loss_after : float or None
        J on the corrected data; where the method reads a sample, as touched rows and that sample show it. J
        may rise there, while the objective falls: by 2 % at most after "proximal". None after "forget". Where
        running means and variances are found anew, by which J may rise by 2 % too, loss_before is with those
        that the module had, and objective_before with the new ones.
    gradient_before, gradient_after : float or None
        Norm of the gradient of that objective. Of a network it tells little: training stops before it is 0.
    rows_touched : int
        All of them where columns were revoked.
    samples_read : int
        Rows read, each time it was: for running means and variances too. Those that were corrected are kept.
    steps : int
        Steps that were taken.
    cg_residual : float or None
        Of the solver, relative, at the last step.
    damping : float or None
        Added to the curvature, at the last step.
    tau : float or None
        Step size of a first-order update.
    rank : float or None
        After ``forget``: the share of control values that the module prefers to those forgotten, where 0 says
        that they are still known, 1 that they are avoided, and all between that they cannot be told from
        others.
    seconds : float
    certified : bool
        False.

    Examples
    --------
    >>> import torch
    >>> import expunge as ex, expunge.torch
    >>> X, y = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.0], [1.0], [2.0]])
    >>> un = ex.torch.Unlearner(torch.nn.Linear(1, 1), lambda out, y: 0.5 * (out - y) ** 2, X, y, alpha=1.0)
    >>> update = un.apply(ex.RemoveRows([0]), method="second_order")
    >>> update.loss_after < update.loss_before, update.certified
    (True, False)
    """

    method: str
    why: str
    objective: str
    objective_before: float
    objective_after: float
    loss_before: float | None = None
    loss_after: float | None = None
    gradient_before: float | None = None
    gradient_after: float | None = None
    rows_touched: int = 0
    samples_read: int = 0
    steps: int = 0
    cg_residual: float | None = None
    damping: float | None = None
    tau: float | None = None
    rank: float | None = None
    seconds: float = 0.0
    certified: bool = False

    def _shown(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: f"{value:.4g}" if isinstance(value, float) else value
            for name, value in values.items()
            if value is not None
        }

    def __repr__(self) -> str:
        return f"Update({', '.join(f'{name}={value}' for name, value in self._shown().items())})"

    def _repr_html_(self) -> str:
        return table("Update", self._shown())
