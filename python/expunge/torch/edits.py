"""What requests do to the rows of a network. Everything is checked here, before anything changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._arrays import Index, as_indices
from ..errors import AlreadyForgotten
from ..requests import CorrectLabels, CorrectValues, RemoveRows, Request
from ..requests import RevokeFeatures as Dropped
from .data import Data, Row, as_kept, cells
from .requests import ForgetValues, RevokeFeatures

__all__ = ["Edited", "Secret", "edited"]


@dataclass(frozen=True)
class Secret:
    """Values to be forgotten: of one row, which entries of its target, and what might stand there."""

    row: int
    before: Row
    mask: Tensor
    alternatives: Tensor | None  # (k, entries), or None: to be drawn


@dataclass
class Edited:
    """Data under a request, and what it touched; `rows` is None where it may be every row."""

    before: Data
    after: Data
    rows: set[int] | None = field(default_factory=set)
    secrets: list[Secret] = field(default_factory=list)
    mixed: bool = False  # whether other requests came with those to forget values

    @property
    def touched(self) -> int:
        """How many rows."""
        return len(self.before) if self.rows is None else len(self.rows)

    def touch(self, rows: Index) -> None:
        """These too."""
        if self.rows is not None:
            self.rows.update(rows.tolist())


def edited(data: Data, requests: Sequence[Request]) -> Edited:
    """The data as all of the requests leave them."""
    staged = Edited(data, data)
    for request in requests:
        if isinstance(request, RemoveRows):
            _remove(staged, request)
        elif isinstance(request, CorrectLabels):
            _correct_labels(staged, request)
        elif isinstance(request, CorrectValues):
            _correct_values(staged, request)
        elif isinstance(request, RevokeFeatures):
            _revoke(staged, request)
        elif isinstance(request, ForgetValues):
            _forget(staged, request)
        elif isinstance(request, Dropped):
            raise TypeError(
                "an architecture does not shrink: say what the columns hold instead, by "
                "expunge.torch.RevokeFeatures(columns, fill=0.0)"
            )
        else:
            raise TypeError(
                f"a network takes no {type(request).__name__}: train it on rows that join, and make its "
                "Unlearner with them"
            )
    forgetting = [isinstance(request, ForgetValues) for request in requests]
    staged.mixed = any(forgetting) and not all(forgetting)
    if not len(staged.after):
        raise ValueError("the request removes every row: nothing would be left to train on")
    return staged


def _rows(staged: Edited, request: Any) -> Index:
    names = [request.ids, request.labels] if isinstance(request, RemoveRows | CorrectValues) else []
    names += [request.ids, request.row_labels] if isinstance(request, CorrectLabels) else []
    if any(name is not None for name in names):
        raise TypeError("rows of a network have numbers, but no ids or labels: name them by number")
    if request.rows is None:
        raise TypeError(f"{type(request).__name__} names no rows")
    given = request.rows.numpy(force=True) if isinstance(request.rows, Tensor) else request.rows
    rows = as_indices(given, len(staged.after.source), "row")
    here = staged.after.present(rows)
    if here.size < rows.size and getattr(request, "missing", "raise") == "raise":
        raise AlreadyForgotten(sorted(set(rows.tolist()) & staged.after.removed), "row")
    if here.size < rows.size and not isinstance(request, RemoveRows):
        raise TypeError("missing='ignore' is for RemoveRows: leave out the rows that were removed")
    return here


def _remove(staged: Edited, request: RemoveRows) -> None:
    rows = _rows(staged, request)
    removed = staged.after.removed.union(rows.tolist())
    changed = {number: row for number, row in staged.after.changed.items() if number not in removed}
    staged.after = replace(staged.after, removed=removed, changed=changed)
    staged.touch(rows)


def _correct_labels(staged: Edited, request: CorrectLabels) -> None:
    rows = _rows(staged, request)
    if request.labels is None:
        raise ValueError("labels are missing: say what the targets of these rows become")
    labels = _each(request.labels, rows.size, "labels")
    changed = {}
    for number, label in zip(rows.tolist(), labels, strict=True):
        row = staged.after.row(number)
        changed[number] = row._replace(y=_as_target(label, row.y))
    staged.after.check_labels([row.y for row in changed.values()])
    staged.after = staged.after.with_rows(changed)
    staged.touch(rows)


def _correct_values(staged: Edited, request: CorrectValues) -> None:
    rows, columns = _rows(staged, request), _columns(request.columns)
    if request.values is None:
        raise ValueError("values are missing: say what these cells become")
    changed = {}
    values: Tensor | None = None
    for at, number in enumerate(rows.tolist()):
        row = staged.after.row(number)
        key = staged.after.input_key(row.inputs)
        X = torch.as_tensor(row.inputs[key]).clone()
        shape = cells(X, columns).shape
        if values is None:
            given = torch.as_tensor(
                np.asarray(request.values) if isinstance(request.values, list) else request.values
            )
            try:
                values = torch.broadcast_to(given, (rows.size, *shape))
            except RuntimeError:
                raise ValueError(
                    f"values have shape {tuple(given.shape)}, expected what broadcasts to "
                    f"{(rows.size, *shape)}"
                ) from None
        X[columns] = _cast(values[at], X.dtype, "values")
        changed[number] = row._replace(inputs={**row.inputs, key: as_kept(X, row.inputs[key])})
    staged.after = staged.after.with_rows(changed)
    staged.touch(rows)


def _revoke(staged: Edited, request: RevokeFeatures) -> None:
    data, columns = staged.after, _columns(request.columns)
    first = next(iter(data.numbers(1)))
    row = data.row(int(first[0]))
    X = torch.as_tensor(row.inputs[data.input_key(row.inputs)])
    shape, fill = cells(X, columns).shape, torch.as_tensor(request.fill)
    try:
        torch.broadcast_to(fill, shape)
    except RuntimeError:
        raise ValueError(
            f"fill has shape {tuple(fill.shape)}, expected what broadcasts to {tuple(shape)}"
        ) from None
    staged.after = replace(data, filled=(*data.filled, (columns, _cast(fill, X.dtype, "fill"))))
    staged.rows = None


def _forget(staged: Edited, request: ForgetValues) -> None:
    rows = _rows(staged, request)
    masks = request.mask if hasattr(request.mask, "__len__") else [request.mask]
    if len(masks) != rows.size:
        raise ValueError(f"mask has {len(masks)} entries for {rows.size} rows: give one for each row")
    given = None if request.alternatives is None else _alternatives(request.alternatives)
    for at, number in enumerate(rows.tolist()):
        row = staged.after.row(number)
        y, mask = torch.as_tensor(row.y), np.asarray(masks[at])
        if mask.dtype != bool or mask.shape != y.shape:
            raise ValueError(
                f"the mask of row {number} has shape {mask.shape} and dtype {mask.dtype}, expected "
                f"the shape of its target, {tuple(y.shape)}, and bool"
            )
        if y.is_floating_point():
            raise TypeError(f"targets are {y.dtype}: values can be forgotten that are classes, as tokens are")
        meant = torch.from_numpy(mask)
        if bool((y[meant] < 0).any()):
            raise ValueError(
                f"the mask of row {number} is True where its target is {int(y[meant].min())}, which is "
                "padding and no class: let it be False there"
            )
        if meant.any():
            each = None if given is None else _alternatives_of(given, at, rows.size, meant)
            each = None if each is None else _cast(each, y.dtype, "alternatives")
            if each is not None and bool((each == y[meant]).all(dim=0).any()):
                raise ValueError(
                    f"alternatives of row {number} are, for some value, no other than that one: say what "
                    "might stand there as well"
                )
            staged.secrets.append(Secret(number, row, meant, each))
    if not staged.secrets:
        raise ValueError("the mask is False everywhere: say which values are to be forgotten")
    staged.touch(rows)


def _alternatives(given: Any) -> Tensor:
    values = given.numpy(force=True) if isinstance(given, Tensor) else np.asarray(given)
    if values.dtype.kind not in "iuf" and values.size:
        raise TypeError(f"alternatives have dtype {values.dtype}: give classes, as the numbers of tokens")
    if values.ndim == 0 or values.shape[0] == 0:
        raise ValueError("alternatives are empty: give at least one value, or None to have them drawn")
    if (values < 0).any():
        raise ValueError(f"alternatives contain {values.min()}, which is no class: classes are 0 and above")
    return torch.tensor(values)


def _alternatives_of(given: Tensor, at: int, rows: int, mask: Tensor) -> Tensor:
    """Those of one of the rows, (k, entries)."""
    if given.ndim == 1:
        return given[:, None].expand(-1, int(mask.sum()))
    if given.shape[1:] != (rows, *mask.shape):
        raise ValueError(
            f"alternatives have shape {tuple(given.shape)}, expected (k,) or one for each entry of each row, "
            f"(k, {', '.join(map(str, (rows, *mask.shape)))})"
        )
    return given[:, at][:, mask]


def _columns(given: Any) -> tuple[Any, ...]:
    """What `row[columns]` takes, as a tuple."""
    if given is None:
        raise ValueError("columns are missing: say which cells are meant")
    return tuple(_axis(one) for one in given) if isinstance(given, tuple) else (_axis(given),)


def _axis(given: Any) -> Any:
    if isinstance(given, slice | Tensor):
        return given
    array = np.asarray(given)
    if array.dtype.kind not in "iub":
        raise TypeError(f"columns must be integers, a boolean mask or a slice, got dtype {array.dtype}")
    return torch.as_tensor(np.atleast_1d(array))


def _each(values: Any, count: int, what: str) -> list[Any]:
    """One value for each row; a single one is for all."""
    if np.ndim(values) == 0:
        return [values] * count
    if len(values) == 1:
        return [values[0]] * count
    if len(values) != count:
        raise ValueError(
            f"{what} has {len(values)} entries for {count} rows: give one for each, or one for all"
        )
    return list(values)


def _as_target(label: Any, old: Any) -> Any:
    """A label in the dtype, the shape and the encoding of the target it replaces."""
    kept = torch.as_tensor(old)
    new = torch.as_tensor(label)
    if new.ndim == 0 and kept.ndim == 1 and len(kept) > 1 and _is_one_hot(kept):
        if not 0 <= int(new) < len(kept):
            raise ValueError(f"label {label!r} is none of the {len(kept)} classes")
        new = torch.eye(len(kept))[int(new)]
    if new.numel() == kept.numel() and new.shape != kept.shape:
        new = new.reshape(kept.shape)
    try:
        new = torch.broadcast_to(_cast(new, kept.dtype, "labels"), kept.shape).clone()
    except RuntimeError:
        raise ValueError(f"a label has shape {tuple(new.shape)}, expected {tuple(kept.shape)}") from None
    return as_kept(new, old)


def _is_one_hot(y: Tensor) -> bool:
    return bool(((y == 0) | (y == 1)).all()) and int(y.sum()) == 1


def _cast(values: Tensor, dtype: torch.dtype, what: str) -> Tensor:
    """In a dtype that can hold them; ValueError for what it cannot."""
    cast = values.to(dtype)
    if not torch.isfinite(cast).all():
        raise ValueError(f"{what} contain NaN, infinity or what overflows {dtype}")
    if not dtype.is_floating_point and not bool((cast == values).all()):
        raise ValueError(f"{what} are no whole numbers of {dtype}, which is how they are stored")
    return cast
