"""One call of an Unlearner at a time, in its own thread too."""

from __future__ import annotations

import os
from inspect import currentframe
from pathlib import Path
from threading import RLock
from typing import Any
from weakref import WeakSet

VERBS = frozenset(
    ("apply", "apply_each", "release", "detach", "attach", "save", "retrain")  # in unlearner.py
).union(
    ("corrected_data", "get_support", "residual", "distance", "standard_errors"),  # in current.py
    ("rows_of", "is_forgotten", "drop_tombstones"),
)
_FACES = {str(Path(__file__).parent / name) for name in ("unlearner.py", "current.py", "baselines/base.py")}


class Verb:
    """A call of an Unlearner that needs data and model to belong together, under its lock.

    The lock keeps other threads out, but lets its own in: a signal handler, or what a request calls, may ask
    in the middle of another verb, and is refused. The mark of one that was interrupted may stay; then the
    stack tells.
    """

    def __init__(self) -> None:
        self._busy = False

    def __enter__(self) -> None:
        if self._busy and self._inside_another():
            raise RuntimeError(
                "this was called in the middle of a request of the same thread, by a signal handler or the "
                "like, where data and model do not belong together: ask after it"
            )
        self._busy = True

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._busy = False

    def _inside_another(self) -> bool:
        frame, verbs = currentframe(), 0
        while frame is not None:
            if frame.f_code.co_filename in _FACES and frame.f_code.co_name in VERBS:
                verbs += getattr(frame.f_locals.get("self"), "_verb", None) is self
            frame = frame.f_back
        return verbs > 1


class TakesTurns:
    """What has a lock and a :class:`Verb`, both new in a forked child.

    There nobody would let go of a lock that another thread of the parent held. What that thread had begun is
    undone by the next call, as after an interrupt.
    """

    def _begin_turns(self) -> None:
        self._lock, self._verb = RLock(), Verb()
        _TAKERS.add(self)


_TAKERS: WeakSet[TakesTurns] = WeakSet()


def _begin_anew() -> None:
    for taker in list(_TAKERS):
        taker._begin_turns()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
