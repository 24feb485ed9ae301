"""What rows are called beside their numbers: ids that the caller gave, and labels of the frame that X was.

A name leads to its rows in the same time whatever the data. Once all rows of a name have left, it is
forgotten: what stays is a tombstone, its HMAC-SHA256 under a key, by which a repeated request is recognised.
Whether a row has left is asked of the register; so a request that is undone leaves nothing to undo here but
what it appended.
"""

from __future__ import annotations

import hmac
from bisect import bisect_left
from collections.abc import Hashable, Iterable, Sequence
from secrets import token_bytes
from typing import Any, Literal, NamedTuple

import numpy as np

from .._arrays import Index, require_unmasked
from .._frames import is_default, is_frame, is_missing
from ..atomic import Change
from ..errors import AlreadyForgotten, UnknownId
from .overlay import Growing

Kind = Literal["id", "label"]
Missing = Literal["raise", "ignore"]
NO_IDS = "this Unlearner knows no ids: make it with ids=, or name rows by number or label"
NOBODY = type("Nobody", (), {"__repr__": lambda self: "no name"})()  # of a row without a name, or that left


class Tombstones:
    """Keyed digests of names whose rows have all left.

    Parameters
    ----------
    key : bytes or None
        The caller's; None for one that is made up and never leaves this process.
    """

    def __init__(self, key: bytes | None, digests: Iterable[bytes] = ()) -> None:
        self.key = token_bytes(32) if key is None else key
        self.is_kept_apart = key is not None  # so that digests are of use in another process
        self.digests = set(digests)

    def digest(self, kind: str, name: Hashable) -> bytes:
        """Of one name; equal names have equal digests."""
        return hmac.digest(self.key, f"expunge.{kind}s:".encode() + canonical(name), "sha256")

    def add(self, kind: Kind, name: Hashable) -> None:
        """All rows of the name have left."""
        self.digests.add(self.digest(kind, name))

    def has(self, kind: Kind, name: Hashable) -> bool:
        """Whether all rows of the name had left at some time."""
        return self.digest(kind, name) in self.digests


def canonical(name: Any) -> bytes:
    """Bytes that are equal where names of int, float, bool, text, bytes or tuples of them are."""
    if isinstance(name, np.generic):
        name = name.item()
    if isinstance(name, float) and not name.is_integer():
        return b"f" + name.hex().encode()
    if isinstance(name, int | float):
        return b"i%d" % int(name)
    if isinstance(name, str):
        return b"s" + name.encode(errors="surrogatepass")
    if isinstance(name, bytes):
        return b"b" + name
    if isinstance(name, tuple):
        parts = [canonical(part) for part in name]
        return b"t" + b"".join(b"%d:" % len(part) + part for part in parts)
    kind = type(name)
    return f"o{kind.__module__}.{kind.__qualname__}:{name!r}".encode(errors="surrogatepass")


class Selection(NamedTuple):
    """Rows that a request named, and in which order it gives values for them."""

    rows: Index
    names: list[Any] | None = None  # ids or labels by which they were named; None: by numbers, or a mask
    which: Index | None = None  # for each row, which of those that were asked for it is; None: the same
    asked: list[Any] | Index | None = None  # names or numbers of rows, those that are missing included


class Names:
    """The names of one kind, by row.

    Parameters
    ----------
    kind : {"id", "label"}
    given : sequence
        One for each row number so far: a list in which NOBODY has no name, an Index of pandas, or range(n)
        where rows are called by their numbers. Nothing is looked up in it before a name is asked for.
    """

    def __init__(self, kind: Kind, given: Any) -> None:
        self.kind = kind
        self._given: Any = range(len(given)) if is_default(given) else given
        self._added = Growing(np.empty(0, dtype=object))  # of rows behind these
        self._rows: dict[Hashable, list[int]] | None = None  # perhaps more rows than have the name
        self._swept = False  # whether names of rows that left before the table was made are gone

    def __len__(self) -> int:
        return len(self._given) + len(self._added)

    def __getitem__(self, row: int) -> Any:
        n = len(self._given)
        return self._given[row] if row < n else self._added[row - n]

    @property
    def are_numbers(self) -> bool:
        """Whether rows that were handed over are called by their numbers, and no others have names."""
        return isinstance(self._given, range) and all(name is NOBODY for name in self._added.values)

    @property
    def numbered(self) -> int:
        """How many rows were handed over."""
        return len(self._given)

    def of(self, rows: Index) -> list[Any]:
        """The names of rows, NOBODY where there is none."""
        if isinstance(self._given, range) and not len(self._added):
            return list(rows.tolist())
        return [self[row] for row in rows.tolist()]

    def shown(self, rows: Index) -> list[Any]:
        """The same, None where there is none."""
        return [None if name is NOBODY else name for name in self.of(rows)]

    def append(self, names: Sequence[Any]) -> None:
        """More rows, with these names."""
        first = len(self)
        self._added.append(np.fromiter(names, dtype=object, count=len(names)))
        if self._rows is not None:
            _list(self._rows, first, names)

    def as_is(self) -> Change:
        """What to assign to make them what they are now: names appended since leave."""
        return self._added.as_is()

    def table(self) -> dict[Hashable, list[int]]:
        """From names to rows, of rows that are called by their numbers none; some may have another name."""
        if self._rows is None:
            if not isinstance(self._given, range | list):
                self._given = [NOBODY if is_missing(name) else name for name in self._given.tolist()]
            rows: dict[Hashable, list[int]] = {}
            if isinstance(self._given, list):
                _list(rows, 0, self._given)
            _list(rows, len(self._given), self._added.values.tolist())
            self._rows = rows
        return self._rows

    def rows_of(self, name: Hashable) -> list[int]:
        """All rows that are called so, those that left in this request included."""
        table, n = self.table(), len(self)
        rows = [row for row in table.get(name, ()) if row < n and self[row] == name]
        if isinstance(self._given, range) and _is_number_in(self._given, name):
            rows.insert(0, int(name))  # type: ignore[call-overload]
        return rows

    def forget(self, left: Iterable[Index], register: Any, tombstones: Tombstones) -> None:
        """Rows that left lose their names, names that lost all their rows become tombstones.

        Does not harm where it is done twice, as after an interrupt.
        """
        if self._rows is None:
            return
        if not self._swept:
            left = [np.setdiff1d(np.arange(len(self)), register.live())]
        numbered = self._given if isinstance(self._given, range) else ()  # of these the register tells
        for rows in left:
            gone = {row for row in rows.tolist() if row not in numbered}
            for name in {self[row] for row in gone} - {NOBODY}:
                stay = [row for row in self._rows.get(name, ()) if row not in gone and row < len(self)]
                stay = [row for row in stay if self[row] == name]
                if not stay:
                    tombstones.add(self.kind, name)
                    self._rows.pop(name, None)
                else:
                    self._rows[name] = stay
            for row in gone:
                self._set_nobody(row)
        self._swept = True

    def _set_nobody(self, row: int) -> None:
        n = len(self._given)
        if row >= n:
            self._added[row - n] = NOBODY
        else:
            self._given[row] = NOBODY


def _list(table: dict[Hashable, list[int]], first: int, names: Iterable[Any]) -> None:
    """Names of the rows from the first on join a table, in which they may be already."""
    for row, name in enumerate(names, first):
        if name is NOBODY:
            continue
        rows = table.setdefault(name, [])
        if not rows or rows[-1] < row:
            rows.append(row)
        elif rows[at := bisect_left(rows, row)] != row:
            rows.insert(at, row)


def _is_number_in(numbers: range, name: Any) -> bool:
    """Whether a label is one of these row numbers."""
    number = isinstance(name, int | float | np.integer | np.floating) and not isinstance(name, bool)
    return number and 0 <= name < len(numbers) and name == int(name)


class RowNames:
    """Ids and labels of rows, and what is known of those that left.

    Parameters
    ----------
    ids, labels : Names or None
    tombstones : Tombstones
    """

    def __init__(self, ids: Names | None, labels: Names | None, tombstones: Tombstones) -> None:
        self.ids = ids
        self.labels = labels
        self.tombstones = tombstones
        self.left: list[Index] = []  # rows that left since `forget`; replaced, never changed

    @classmethod
    def over(cls, ids: list[Any] | None, labels: Any, key: bytes | None) -> RowNames | None:
        """Of rows with these ids and labels; None where they have neither.

        Parameters
        ----------
        ids : list or None
        labels : list, Index of pandas, range or None
        key : bytes or None
            See Tombstones.
        """
        if ids is None and labels is None:
            return None
        names = None if ids is None else Names("id", ids)
        if names is not None:
            names.table()  # raises where one is not hashable
        return cls(names, None if labels is None else Names("label", labels), Tombstones(key))

    @property
    def kinds(self) -> list[Names]:
        """Those that there are."""
        return [names for names in (self.ids, self.labels) if names is not None]

    def find(self, names: Names, asked: list[Any], register: Any, missing: Missing) -> Selection:
        """The rows that have one of these names.

        Raises
        ------
        UnknownId, AlreadyForgotten
            Names without rows, unless they are to be ignored.
        TypeError
            One that no row could have.
        """
        asked = list(dict.fromkeys(asked))
        found = [self._here(names, name, register) for name in asked]
        if missing == "raise":
            without = [name for name, rows in zip(asked, found, strict=True) if not rows.size]
            unknown = [name for name in without if not self._was_here(names, name)]
            if unknown:
                raise UnknownId(unknown, names.kind)
            if without:
                raise AlreadyForgotten(without, names.kind)
        which = np.repeat(np.arange(len(asked)), [rows.size for rows in found])
        rows = np.concatenate([np.empty(0, dtype=np.int64), *found])
        return Selection(rows, asked, which, asked)

    def _here(self, names: Names, name: Hashable, register: Any) -> Index:
        rows = np.array(names.rows_of(name), dtype=np.int64)
        return rows[register.of(rows)[0] >= 0] if rows.size else rows

    def _was_here(self, names: Names, name: Hashable) -> bool:
        return bool(names.rows_of(name)) or self.tombstones.has(names.kind, name)

    def is_forgotten(self, name: Hashable, register: Any) -> bool:
        """Whether rows had this id, and all of them have left."""
        assert self.ids is not None
        return not self._here(self.ids, name, register).size and self._was_here(self.ids, name)

    def as_is(self) -> list[Change]:
        """What to assign to make these what they are now: names of rows added since leave."""
        return [names.as_is() for names in self.kinds]

    def append(self, n: int, ids: list[Any] | None, labels: Sequence[Any], register: Any) -> None:
        """The names of n more rows.

        Raises
        ------
        ValueError
            Ids where there are none, or none where there are; a label that a row has already.
        """
        if (ids is None) != (self.ids is None):
            raise ValueError(
                "these rows need ids, as all others have them: AddRows(..., ids=[...])"
                if ids is None
                else NO_IDS
            )
        if self.labels is not None:
            self.require_new(labels, register)
            self.labels.append(labels or [NOBODY] * n)
        if self.ids is not None and ids is not None:
            self.ids.append(ids)

    def require_new(self, labels: Iterable[Any], register: Any) -> None:
        """ValueError where a row is called so already."""
        assert self.labels is not None
        for label in dict.fromkeys(labels):
            if label is not NOBODY and self._here(self.labels, label, register).size:
                raise ValueError(
                    f"a row is labelled {label!r} already: X.reset_index(drop=True) adds rows without "
                    "labels, X.set_axis([...]) with others; CorrectValues and CorrectLabels change a row"
                )

    def forget(self, register: Any) -> None:
        """What left is forgotten; for once a request was granted, and again where that was broken off."""
        for names in self.kinds:
            names.forget(self.left, register, self.tombstones)
        self.left = []

    def sweep(self, register: Any) -> None:
        """What left is forgotten, also where nobody asked for a name yet."""
        for names in self.kinds:
            names.table()
        self.forget(register)

    def drop_tombstones(self, register: Any) -> None:
        """Nothing is known any more of names that left."""
        self.sweep(register)
        self.tombstones.digests = set()


def names_given(given: Any, what: str, n: int | None = None) -> list[Any]:
    """Ids or labels as a list of Python's objects: of n rows, or as a request names them.

    Lists, arrays, sets and the like hold several; a text, a tuple and anything else is one.

    Raises
    ------
    ValueError
        Another number than n; entries that are missing or masked out.
    TypeError
        One that is not hashable; a frame; one in place of n.
    """
    require_unmasked(given, what)
    if is_frame(given):
        raise TypeError(f"{what} is a frame: pass one of its columns, or a list of tuples")
    one = isinstance(given, str | bytes | tuple) or not hasattr(given, "__iter__")
    if one and n is not None:
        raise TypeError(f"{what} must be a list with an entry for each row of X, got {type(given).__name__}")
    if one:
        names = [given.item() if isinstance(given, np.generic) else given]
    elif hasattr(given, "tolist"):
        names = np.atleast_1d(given).tolist() if isinstance(given, np.ndarray) else given.tolist()
    else:
        names = [name.item() if isinstance(name, np.generic) else name for name in given]
    if n is not None and len(names) != n:
        raise ValueError(f"{what} has {len(names)} entries, expected {n}: one for each row of X")
    for i, name in enumerate(names):
        if not isinstance(name, Hashable):
            raise TypeError(
                f"{what} must be hashable, got {type(name).__name__} at position {i}: pass a list of int, "
                "text or tuples, for several columns list(zip(first, second))"
            )
        if is_missing(name):
            raise ValueError(f"{what} holds {name!r} at position {i}, which names nobody: leave it out")
    return names


def labels_of(index: Any) -> list[Any]:
    """Labels that a frame brings with its rows: none of them where these are made up by pandas."""
    if index is None or is_default(index):
        return []
    return [NOBODY if is_missing(label) else label for label in index.tolist()]
