"""Several attributes as one: what neither an error nor an interrupt can split."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import starmap
from typing import Any

Change = tuple[Any, str, Any]  # owner, name of an attribute, value

_NONE = object()


def assign_all(changes: Sequence[Change]) -> None:
    """Sets attributes, or none of them where one cannot be set or an interrupt (Ctrl-C) comes.

    Each way is one call, made ready before, during which Python runs no signal handler.
    """
    before = [(owner, name, getattr(owner, name, _NONE)) for owner, name, _ in changes]
    forth = starmap(setattr, changes)
    back = starmap(setattr, [change for change in before if change[2] is not _NONE])
    try:
        any(forth)  # to the last: setattr returns None
    except BaseException:
        any(back)
        raise
