"""The face for networks: an Unlearner holds a module and its rows, and applies requests to both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from threading import Lock
from time import perf_counter
from typing import Any

import numpy as np
from torch import Tensor

from .._numbers import as_number
from ..requests import Request, as_requests
from .data import CorrectedRows, Data, Reads, source_of
from .edits import edited
from .methods import Damping
from .module import Function
from .objective import Curvature, Loss, Losses, Penalty, Total
from .task import Method, Options, Solver, Task, whole
from .update import Update

__all__ = ["Unlearner"]

_BATCH = 512  # rows, where no DataLoader says


class Unlearner:
    """Corrects a trained PyTorch module for what its data should not have held.

    Its objective is a sum over rows, never a mean: ``J = Σ loss + ½ alpha |w|²`` (E1). What ``weight_decay``
    is to a mean loss, ``alpha / n`` is here.

    Parameters
    ----------
    module : torch.nn.Module
        It is updated in place, after a request has succeeded, where it is: on a GPU too. Only parameters and
        running means and variances ever change, never flags, ``.grad``, ``requires_grad``, other buffers or
        the state of random generators. A BatchNorm keeps its running means where it alone is in eval mode or
        its parameters are not trained. Norms that are not PyTorch's keep theirs.
    loss : callable
        ``loss(outputs, y)``, one value for each row (its mean or sum over positions, for instance), not
        reduced over rows: ``functools.partial(torch.nn.functional.cross_entropy, reduction="none")``.
    X : tensor or array (n, ...), dict of such, map-style Dataset, or DataLoader
        What the module was trained on. An item of a Dataset is ``(x, y)``, ``(x, more, y)`` or a dict, which
        goes to the module as keyword arguments. Of a DataLoader the dataset, the collate function and the
        batch size are used, but not its order. Rows are read when they are needed, and are not copied but for
        those corrected.
    y : tensor or array (n, ...), or str, optional
        Targets; or, where items are dicts, the key of the target, "labels" by default.
    alpha : float or dict, default=0.0
        Penalty of every trained parameter but those named bias; or one for each name (any of those that a
        tied parameter has), 0 where it says none.
    parameters : names of parameters or submodules, or parameters, optional
        Only these are updated: last layers, adapters. By default all with ``requires_grad``.
    damping : float or "auto"
        Added to the curvature of a second-order update. "auto" begins at 0 and rises where the objective
        falls by less than a quarter of what the quadratic model says, or curvature is negative.
    logits : callable, optional
        Takes the tensor of outputs from what the module gives, as ``lambda out: out.logits``. For ``forget``
        it holds the logits of each entry of y: classes come last, or second as for cross_entropy. Where the
        loss shifts targets, as in causal models of transformers, shift the logits: ``lambda out:
        torch.nn.functional.pad(out.logits[:, :-1], (0, 0, 1, 0))``.
    batch_size : int, optional
        Rows that are computed with at a time, 512 by default; memory goes by it, and not by n.
    random_state : int, default=0
        Seed of what is drawn: samples, alternatives, the order of fine-tuning.

    Attributes
    ----------
    module : the object that was passed in

    See Also
    --------
    expunge.torch.head : frozen features and a linear model of them, which has certificates
    docs/networks.md : what each method means, and why a whole network has no certificate

    Examples
    --------
    >>> import torch
    >>> import expunge as ex, expunge.torch
    >>> _ = torch.manual_seed(0)
    >>> X = torch.randn(200, 4)
    >>> y = (X[:, 0] > 0).long()
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    >>> loss = lambda out, y: torch.nn.functional.cross_entropy(out, y, reduction="none")
    >>> un = ex.torch.Unlearner(net, loss, X, y, alpha=0.1)
    >>> update = un.apply([ex.RemoveRows([3, 17]), ex.CorrectLabels([5], 1)], method="second_order")
    >>> update.objective_after < update.objective_before, update.rows_touched
    (True, 3)
    """

    def __init__(
        self,
        module: Any,
        loss: Loss,
        X: Any,
        y: Any = None,
        *,
        alpha: float | Mapping[str, float] = 0.0,
        parameters: Any = None,
        damping: Damping = "auto",
        logits: Callable[[Any], Tensor] | None = None,
        batch_size: int | None = None,
        random_state: int = 0,
    ) -> None:
        if not callable(loss):
            raise TypeError(f"loss must be a function of outputs and y, got {type(loss).__name__}")
        if logits is not None and not callable(logits):
            raise TypeError(
                f"logits must be a function of what the module gives, got {type(logits).__name__}"
            )
        self._function = Function(module, parameters, logits)
        self._losses = Losses(self._function, loss)
        self._alpha = dict(alpha) if isinstance(alpha, Mapping) else alpha
        Penalty(self._function, alpha)  # which checks it
        self._damping: Damping = damping if damping == "auto" else as_number(damping, "damping")
        source, of_loader = source_of(X, y)
        if not len(source):
            raise ValueError("X has no rows")
        self._batch_size = whole(batch_size, "batch_size") or of_loader
        main = getattr(module, "main_input_name", 0)
        self._data = Data(source, main, self._batch_size or _BATCH, self._function.placed, Reads())
        known = isinstance(random_state, int | np.integer) and not isinstance(random_state, bool)
        if not known or not 0 <= random_state < 2**32:
            raise ValueError(f"random_state must be a whole number from 0 to 2**32 - 1, got {random_state!r}")
        self._seed, self._applied = int(random_state), 0
        self._lock = Lock()

    @property
    def module(self) -> Any:
        """The object that was passed in."""
        return self._function.module

    @property
    def _penalty(self) -> Penalty:
        """Of the parameters as they are now."""
        return Penalty(self._function, self._alpha)

    def __len__(self) -> int:
        """How many rows are left."""
        return len(self._data)

    def __repr__(self) -> str:
        name = type(self.module).__name__
        return f"Unlearner(module={name}, rows={len(self)}, parameters={self._function.size})"

    def corrected_data(self) -> CorrectedRows:
        """The rows as they are now, a map-style Dataset of items in their form: what a retraining takes."""
        return CorrectedRows(self._data)

    def loss(self) -> float:
        """J on the rows as they are now."""
        with self._lock, self._function.undisturbed(self._seed):
            return Total(self._losses, self._data, self._penalty).value(self._function.theta)

    def apply(
        self,
        request: Request | Iterable[Request],
        *,
        method: Method = "auto",
        steps: int | None = None,
        tau: float | None = None,
        sample: int | None = None,
        curvature: Curvature = "ggn",
        solver: Solver = "cg",
        iterations: int | None = None,
        epochs: float | None = None,
        seconds: float | None = None,
        lr: float | None = None,
    ) -> Update:
        """Corrects the rows and the module.

        Parameters
        ----------
        request : request or list of requests
            RemoveRows, CorrectLabels and CorrectValues of expunge, RevokeFeatures and ForgetValues of
            expunge.torch. A list means its members applied in order, as one atomic request.
        method : {"auto", "first_order", "second_order", "proximal", "forget", "fine_tune"}
            ``first_order``: ``theta - tau g`` (E4), g the gradient of J on all corrected rows, tau by line
            search. ``second_order``: ``theta - H^-1 g`` (E5) by conjugate gradients, H the Gauss-Newton
            matrix plus the damping. Of a network this is no retraining, but the proximal Bregman response
            (Bae et al. 2022): rows are corrected, while outputs on others stay near what they are. A step is
            halved while the objective rises by it, or falls by less than a quarter of what the quadratic
            model says and half of it is better; ``why`` then says so. A fall that rounding hides, as in
            float32 where few of many rows change, is found from the gradients at both ends.
            ``proximal``: Adam on that objective, whose first step follows the gradient difference of the
            touched rows alone (E3). J, as these and the sample show it, may rise by 2 % at most.
            ``forget``: for ForgetValues. ``fine_tune``: Adam on the corrected rows, the touched ones twice as
            often at first. It is no unlearning update but what to beat: from some hundredths of the rows on
            it is nearest to retraining. ``auto`` chooses by the request and the share of rows it touches, and
            says why.
        steps : int, optional
            Of second_order, each with a new H and gradient (1 by default); of proximal (20); of forget, at
            most (400).
        tau : float, optional
            Step size of first_order in place of the line search.
        sample : int, optional
            Rows that proximal reads beside the touched ones, 1,024 by default or an eighth of all.
            second_order then makes that objective smaller too, in place of J.
        curvature : {"ggn", "hessian"}
            H of second_order. Both are the same for a linear module.
        solver : {"cg", "lissa"}
            ``lissa`` is the recursion of the paper, its scale found by power iteration.
        iterations : int, optional
            Of the solver at each step. By default 20; in float64, with 1,000 parameters at most and without a
            sample, H is formed and solved with to rounding, at the price of as many products as there are
            parameters.
        epochs : float, optional
            Of fine_tune: 2 by default.
        seconds : float, optional
            Of fine_tune, where that is earlier, looks at J before and after included.
        lr : float, optional
            Of Adam. By default 3e-3 in forget and in proximal, 1e-2 in fine_tune. The latter two then try a
            tenth where their objective did not fall, and fine_tune a hundredth.

        Returns
        -------
        Update

        Raises
        ------
        ConvergenceError
            The method did not make its objective smaller, or J rose by more than it may. After this and all
            other errors, module and rows are what they were, bit for bit.
        ValueError, TypeError
            A request that cannot be granted.
        """
        requests = as_requests(request)
        options = Options(
            method, self._damping, steps, tau, sample, curvature, solver, iterations, epochs, seconds, lr
        )
        with self._lock, self._function.undisturbed(self._seed):
            begun, reads = perf_counter(), self._data.reads
            reads.count = 0
            staged = edited(self._data, requests)
            try:
                size, seed = self._batch_size, self._seed + self._applied
                task = Task(self._function, self._losses, self._penalty, staged, size, seed)
                update = task.update(options)
                done = [(self, "_data", staged.after), (self, "_applied", self._applied + 1)]
                self._function.write(task.written, self._function.buffers, done)
            finally:
                self._function.reset()
                self._losses.normalised = None
            return replace(update, samples_read=reads.count, seconds=perf_counter() - begun)
