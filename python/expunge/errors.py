"""What can go wrong besides a wrong argument, which is a ValueError or TypeError."""

from numpy.linalg import LinAlgError

__all__ = [
    "CertificateError",
    "ConvergenceError",
    "NotPositiveDefiniteError",
    "RowsRequired",
    "ToleranceExceeded",
]


class NotPositiveDefiniteError(LinAlgError):
    """A matrix has no Cholesky factor; the message names the pivot or eigenvalue that is not positive."""


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
        What the residual would be at most (E10).
    tolerance : float
    """

    def __init__(self, bound: float, tolerance: float) -> None:
        super().__init__(bound, tolerance)
        self.bound = bound
        self.tolerance = tolerance

    def __str__(self) -> str:
        return (
            f"the bound of the residual, {self.bound:.3g}, is above the tolerance {self.tolerance:.3g}, and "
            "without rows it cannot be made smaller: attach the current rows, set a larger tolerance, or use "
            "method='second_order', which keeps the step whatever its bound"
        )
