"""What can go wrong besides a wrong argument, which is a ValueError or TypeError."""

from numpy.linalg import LinAlgError

__all__ = ["ConvergenceError", "NotPositiveDefiniteError"]


class NotPositiveDefiniteError(LinAlgError):
    """A matrix has no Cholesky factor; the message names the pivot or eigenvalue that is not positive."""


class ConvergenceError(RuntimeError):
    """A tolerance was not reached although the data's rounding would allow it; nothing was changed."""
