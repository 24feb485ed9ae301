"""How many threads kernels use."""

from __future__ import annotations

import os
from numbers import Integral

from . import _core

__all__ = ["get_num_threads", "set_num_threads"]

MOST = 256


def get_num_threads() -> int:
    """How many threads a kernel may use; see :func:`set_num_threads`.

    Returns
    -------
    int

    Examples
    --------
    >>> import expunge
    >>> expunge.get_num_threads() >= 1
    True
    """
    return _core.threads()


def set_num_threads(count: int) -> None:
    """Sets how many threads a kernel may use, the calling one included.

    At import it is the environment variable ``EXPUNGE_NUM_THREADS``, or else as many as the process has cores
    (its affinity). Results are the same, bit for bit, for any number. Small work is done by one thread.

    Parameters
    ----------
    count : int
        From 1 to 256.

    Returns
    -------
    None

    Raises
    ------
    ValueError

    Examples
    --------
    >>> import expunge
    >>> before = expunge.get_num_threads()
    >>> expunge.set_num_threads(2)
    >>> expunge.get_num_threads()
    2
    >>> expunge.set_num_threads(before)
    """
    if isinstance(count, bool) or not isinstance(count, Integral) or not 1 <= int(count) <= MOST:
        raise ValueError(f"count must be an integer from 1 to {MOST}, got {count!r}")
    _core.set_threads(int(count))


def _at_import() -> int:
    asked = os.environ.get("EXPUNGE_NUM_THREADS")
    if asked is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(cores, MOST)
    if not (asked.isascii() and asked.isdecimal() and 1 <= int(asked) <= MOST):
        raise ImportError(f"EXPUNGE_NUM_THREADS={asked!r}: expected an integer from 1 to {MOST}")
    return int(asked)


set_num_threads(_at_import())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_core.reset_after_fork)
