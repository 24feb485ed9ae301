"""Several assignments as one, which neither an error nor an interrupt can split."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import starmap
from typing import Any

Change = tuple[Any, str, Any]  # owner, name of an attribute, value


def assign_all(changes: Sequence[Change]) -> None:
    """Sets attributes, or none of them where one cannot be set or an interrupt (Ctrl-C) comes.

    Each way is one call, made ready before, during which Python runs no signal handler.
    """
    before: list[Change] = []
    for owner, name, _ in changes:
        try:
            before.append((owner, name, getattr(owner, name)))
        except AttributeError:  # it is new
            continue
    forth, back = starmap(setattr, changes), starmap(setattr, before)
    try:
        any(forth)  # to the last: setattr returns None
    except BaseException:
        any(back)
        raise
