"""Ids and labels in a file: as JSON, without pickle; of those that left at most keyed digests.

Entries: "rows.ids" and "rows.labels" are JSON lists in ASCII, one name for each current row, null for none;
"rows.labels" is a number n where the first n rows are called by their numbers. bytes are {"bytes": hex}, and
a tuple is a list. "tombstones" are digests, ascending, and "tombstones.check" is that of the key itself.
"rows.library" is the package that the frame was of, "names.labels" JSON of columns' labels that are not text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ..engine.data import CorrectedData
from ..engine.row_names import NOBODY, Names, RowNames, Tombstones

_CHECK = "key"  # the kind of digest that tells whether a key is the one
_FIX = {
    "ids": "make the Unlearner with ids=[str(id) for id in ids]",
    "labels of rows": "make the Unlearner of X.set_axis(X.index.astype(str)), or of X.reset_index(drop=True)",
    "labels of columns": "make the Unlearner of X.rename(columns=str), and fit the model to it",
}


@dataclass(frozen=True)
class SavedNames:
    """What rows are called beside their numbers, in the order of these; lists, n for labels 0 to n - 1."""

    ids: list[Any] | None = None
    labels: list[Any] | int | None = None
    digests: frozenset[bytes] = frozenset()
    check: bytes | None = None  # of the key of these digests
    library: str | None = None

    @classmethod
    def of(cls, data: CorrectedData) -> SavedNames:
        """What is kept of the current rows, and digests of the others if their key is kept elsewhere."""
        names, live = data.row_names, data.register.live()
        if names is None:
            return cls(library=data.library)
        labels: list[Any] | int | None = None
        if names.labels is not None:
            labels = names.labels.numbered if names.labels.are_numbers else names.labels.of(live)
        kept = cls(None if names.ids is None else names.ids.of(live), labels, library=data.library)
        if not names.tombstones.is_kept_apart:
            return kept
        names.sweep(data.register)
        stones = names.tombstones
        return cls(kept.ids, labels, frozenset(stones.digests), stones.digest(_CHECK, ""), data.library)

    def entries(self) -> dict[str, Any]:
        """For the archive; TypeError where a name cannot be stored."""
        entries: dict[str, Any] = {}
        if self.library is not None:
            entries["rows.library"] = self.library
        if self.ids is not None:
            entries["rows.ids"] = as_json(self.ids, "ids")
        if self.labels is not None:
            entries["rows.labels"] = as_json(self.labels, "labels of rows")
        if self.check is not None:
            digests = b"".join(sorted(self.digests))
            entries["tombstones"] = np.frombuffer(digests, dtype=np.uint8).reshape(-1, 32)
            entries["tombstones.check"] = np.frombuffer(self.check, dtype=np.uint8)
        return entries

    @classmethod
    def read(cls, entries: Any, n: int) -> SavedNames:
        """From the entries of a file with n rows; ValueError where they are not such."""
        labels = from_json(entries, "rows.labels")
        ids = from_json(entries, "rows.ids", n)
        if not (labels is None or type(labels) is int) and len(labels) != n:
            raise ValueError("rows.labels are not as many as rows")
        if ids is not None and NOBODY in ids:
            raise ValueError("rows.ids has a null")
        library = entries.optional("rows.library", "U")
        if library not in (None, "pandas", "polars"):
            raise ValueError(f"unknown rows.library {library!r}")
        if "tombstones" not in entries:
            return cls(ids, labels, library=library)
        stones = entries.array("tombstones", "u", None, 32)
        check = entries.array("tombstones.check", "u", 32)
        if stones.dtype != np.uint8 or check.dtype != np.uint8 or (ids is None and labels is None):
            raise ValueError("tombstones are not digests of names of rows")
        return cls(ids, labels, frozenset(map(bytes, stones)), bytes(check), library)

    def row_names(self, numbers: NDArray[np.int64], n_rows: int, key: bytes | None) -> RowNames | None:
        """Of rows with these numbers, of `n_rows` given out. Digests without their key are left out."""
        if self.ids is None and self.labels is None:
            return None

        def spread(names: list[Any]) -> list[Any]:
            spread = [NOBODY] * n_rows
            for row, name in zip(numbers.tolist(), names, strict=True):
                spread[row] = name
            return spread

        labels: Names | None = None
        if isinstance(self.labels, int):
            labels = Names("label", range(min(self.labels, n_rows)))
            labels.append([NOBODY] * (n_rows - len(labels)))
        elif self.labels is not None:
            labels = Names("label", spread(self.labels))
        ids = None if self.ids is None else Names("id", spread(self.ids))
        digests = self.digests if key is not None else ()
        return RowNames(ids, labels, Tombstones(key, digests))

    def require_key(self, key: bytes | None) -> None:
        """ValueError where the digests were made under another key."""
        if key is not None and self.check is not None and Tombstones(key).digest(_CHECK, "") != self.check:
            raise ValueError(
                "the tombstones in this file were made with another key: pass that, or none to leave them out"
            )


def as_json(names: Sequence[Any] | int, what: str) -> NDArray[np.uint8]:
    """The bytes of a JSON list; TypeError where a name is of a type that a file cannot hold."""
    plain = names if isinstance(names, int) else [_plain(name, what) for name in names]
    text = json.dumps(plain, separators=(",", ":"), allow_nan=False)
    return np.frombuffer(text.encode("ascii"), dtype=np.uint8)


def _plain(name: Any, what: str) -> Any:
    if isinstance(name, np.generic):
        name = name.item()
    if name is NOBODY:
        return None
    if isinstance(name, tuple):
        return [_plain(part, what) for part in name]
    if isinstance(name, bytes):
        return {"bytes": name.hex()}
    if isinstance(name, int | str) or (isinstance(name, float) and isfinite(name)):
        return name
    raise TypeError(
        f"{what} of type {type(name).__name__} cannot be stored: int, str, bytes, bool, finite float and "
        f"tuples of these can. {_FIX[what]}"
    )


def from_json(entries: Any, name: str, size: int | None = None) -> Any:
    """The names of an entry, None where it is not there; a number where one stands for a list."""
    if name not in entries:
        return None
    array = entries.array(name, "u", None)
    text = array.tobytes()
    plain = json.loads(text, parse_constant=_refuse)
    if type(plain) is int and plain >= 0 and size is None:
        return plain
    if not isinstance(plain, list) or array.dtype != np.uint8 or size not in (None, len(plain)):
        raise ValueError(f"{name} is not a list of {'' if size is None else size} names")
    names = [NOBODY if value is None else _name(value) for value in plain]
    if as_json(names, "labels of rows").tobytes() != text:
        raise ValueError(f"{name} is not written as such names are")
    return names


def _name(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_name(part) for part in value)
    if isinstance(value, dict) and list(value) == ["bytes"] and isinstance(value["bytes"], str):
        return bytes.fromhex(value["bytes"])
    if isinstance(value, int | str) or (isinstance(value, float) and isfinite(value)):
        return value
    raise ValueError("a name is neither number nor text nor made of them")


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
