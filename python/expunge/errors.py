"""What can go wrong besides a wrong argument, which is a ValueError or TypeError."""

from collections.abc import Sequence
from typing import Any

from numpy.linalg import LinAlgError

__all__ = [
    "AlreadyForgotten",
    "CertificateError",
    "ConvergenceError",
    "NotFittedToThisData",
    "NotPositiveDefiniteError",
    "RowsRequired",
    "StreamInterrupted",
    "StreamStopped",
    "ToleranceExceeded",
    "UnknownId",
]


class NotPositiveDefiniteError(LinAlgError):
    """A matrix has no Cholesky factor; the message names the pivot or eigenvalue that is not positive."""


class NotFittedToThisData(ValueError):
    """A model is further from the minimum on the data handed over than its solver can have left it.

    Nothing was changed.

    Attributes
    ----------
    distance : float
        From the minimum, in standard errors (E41).
    limit : float
        What it may be.
    """

    def __init__(self, distance: float, limit: float, more: str = "") -> None:
        super().__init__(distance, limit, more)
        self.distance = distance
        self.limit = limit
        self.more = more

    def __str__(self) -> str:
        return (
            f"the model is {self.distance:.3g} standard errors from the minimum on these data, and its "
            f"solver leaves {self.limit:.2g} at most: it was fitted to others. Check, the cheapest first: "
            "sample_weight, the same as in the fit; y, in the order of the rows of X and with labels that "
            "mean the same; X as the model saw it, scaled or transformed and its columns in that order; all "
            "rows of the fit and no others; alpha or C and fit_intercept, not changed since the fit. "
            f"refit=True trains the model on these data instead{self.more}"
        )


class ConvergenceError(RuntimeError):
    """A tolerance was not reached although the data's rounding would allow it; nothing was changed."""


class CertificateError(RuntimeError):
    """A certificate cannot be given: the message says what does not hold. Nothing was changed or released."""


class RowsRequired(RuntimeError):
    """What was asked for needs the rows, which a detached Unlearner does not hold; nothing was changed."""


class ToleranceExceeded(RuntimeError):
    """The proven bound of a detached request is above the tolerance; nothing was changed.

    Attributes
    ----------
    bound : float
        What the residual (E10), or the distance to retraining (E41), would be at most.
    tolerance : float
    """

    def __init__(self, bound: float, tolerance: float, what: str = "residual") -> None:
        super().__init__(bound, tolerance, what)
        self.bound = bound
        self.tolerance = tolerance
        self.what = what

    def __str__(self) -> str:
        return (
            f"the bound of the {self.what}, {self.bound:.3g}, is above the {self.tolerance:.3g} that is "
            "promised, and without rows it cannot be less: attach the current rows, make the Unlearner "
            f"with a larger {'tolerance' if self.what == 'residual' else 'within'}, or use "
            "method='second_order', which keeps the step whatever its bound"
        )


class _WrongIds(ValueError):
    """A request names rows that are not there; nothing was changed."""

    problem: str

    def __init__(self, ids: Sequence[Any], kind: str = "id") -> None:
        super().__init__(list(ids), kind)
        self.ids = list(ids)
        self.kind = kind

    def __str__(self) -> str:
        more = f" (and {len(self.ids) - 1} more)" if len(self.ids) > 1 else ""
        return f"{self.kind} {self.ids[0]!r}{more} {self.problem}, or pass missing='ignore' to pass over it"


class UnknownId(_WrongIds):
    """A request names rows by ids or labels that were never here, or of which nothing is known any more.

    Attributes
    ----------
    ids : list
        All of them.
    kind : {"id", "label"}
    """

    problem = (
        "is not known: no row has it, nor is it known that one had it. Check its spelling and type (a tuple "
        "is one id: pass several in a list)"
    )


class AlreadyForgotten(_WrongIds):
    """A request names rows that have left already.

    Attributes
    ----------
    ids : list
        All of them: ids, labels or row numbers.
    kind : {"id", "label", "row"}
    """

    problem = "was removed before: it is no longer in the data. Leave it out"


class _Stopped(BaseException):
    """A stream of requests ended before its last one; those before stand, and the others left no trace."""

    why: str

    def __init__(self, number: int, updates: Any) -> None:
        super().__init__(number, updates)
        self.number = number
        self.updates = updates

    def __str__(self) -> str:
        return f"{self.why} {self.number}: the {self.number} before it were granted, and are in `updates`"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.number, None)  # Updates are not pickled


class StreamStopped(_Stopped, RuntimeError):
    """A request of a stream was refused, or `progress` or a signal handler raised; why is the cause.

    The requests before it stand; it and those after it left no trace.

    Attributes
    ----------
    number : int
        Its position, from 0 on.
    updates : Updates
        Of the requests before it.
    """

    why = "the stream stopped before request"


class StreamInterrupted(_Stopped, KeyboardInterrupt):
    """A stream of requests was interrupted by Ctrl-C.

    The requests before it stand; it and those after it left no trace.

    Attributes
    ----------
    number : int
        Of the first request that was not granted.
    updates : Updates
        Of the requests before it.
    """

    why = "the stream was interrupted before request"
