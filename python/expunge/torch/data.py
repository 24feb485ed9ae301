"""The rows of a network: where they come from, and what requests have changed of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from .._arrays import Index

__all__ = ["Batch", "CorrectedRows", "Data", "Row"]

_BLOCK = 65_536  # rows that are shuffled at a time: memory stays the same however many rows there are


class Row(NamedTuple):
    """One row: what goes into the module, by name or by position, and its target."""

    inputs: dict[Any, Any]
    y: Any


class Batch(NamedTuple):
    """Rows as tensors: `inputs` are keyword arguments of the module where their keys are names."""

    inputs: dict[Any, Tensor]
    y: Any

    def moved(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Every tensor changed, to another device or dtype."""
        return Batch(
            {key: mapped(value, change) for key, value in self.inputs.items()}, mapped(self.y, change)
        )


def rows_of(batch: Batch) -> int:
    """How many rows it has."""
    found = next((value for value in batch.inputs.values() if isinstance(value, Tensor)), None)
    if found is None or found.ndim == 0:
        kinds = ", ".join(type(value).__name__ for value in batch.inputs.values())
        raise TypeError(
            f"inputs of the module are {kinds}, expected a tensor of rows: give several by position, items "
            "(x, more, y), or by name, a dict of tensors"
        )
    return int(found.shape[0])


def shapes_of(batch: Batch) -> tuple[Any, ...]:
    """Of one row of the inputs; batches of the same can be joined, and none that have else than tensors."""
    if not all(isinstance(value, Tensor) for value in batch.inputs.values()):
        return (id(batch),)
    return tuple((key, value.shape[1:], value.dtype) for key, value in batch.inputs.items())


def joined_inputs(batches: Sequence[Batch]) -> dict[Any, Tensor]:
    """Of batches of one shape."""
    return {key: torch.cat([batch.inputs[key] for batch in batches]) for key in batches[0].inputs}


def joined(batches: Sequence[Batch]) -> Batch:
    """Batches of one shape as one."""
    return Batch(joined_inputs(batches), torch.cat([batch.y for batch in batches]))


class Fill(Protocol):
    """Puts what fills revoked columns into inputs, of one row or with `lead` of several."""

    def __call__(self, inputs: dict[Any, Any], lead: tuple[slice, ...] = ()) -> dict[Any, Any]: ...


class Source(Protocol):
    """Rows as they were handed over. None is ever changed."""

    def classes(self) -> Tensor | None:
        """Those of the targets, where they are classes and reading rows is not needed to tell."""

    def __len__(self) -> int: ...

    def row(self, number: int) -> Row:
        """One of them."""

    def item(self, row: Row) -> Any:
        """A row in the form it was handed over in."""

    def batch(self, rows: Index, changed: Mapping[int, Row], fill: Fill | None = None) -> Batch:
        """Several, of which some have changed, their inputs filled."""


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The tensors in a target or an input, changed; anything else as it is."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: mapped(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(mapped(item, change) for item in value)
    return value


class Tensors:
    """X, one tensor or several by name, and y."""

    def __init__(self, X: Any, y: Any) -> None:
        given = X if isinstance(X, Mapping) else {0: X}
        self._X = {key: torch.as_tensor(value) for key, value in given.items()}
        self._y = torch.as_tensor(y)
        for name, tensor in {"y": self._y, **self._X}.items():
            if tensor.ndim == 0 or self._y.ndim == 0 or tensor.shape[0] != self._y.shape[0]:
                what = "X" if name == 0 else name
                raise ValueError(f"{what} has shape {tuple(tensor.shape)}, expected a row for each of y")

    @cached_property
    def _classes(self) -> Tensor | None:
        found = self._y.unique() if self._y.ndim == 1 else None
        if found is None or not (self._y.is_floating_point() and bool(((found != 0) & (found != 1)).any())):
            return found
        return None

    def classes(self) -> Tensor | None:
        """See Source."""
        return self._classes

    def __len__(self) -> int:
        return int(self._y.shape[0])

    def row(self, number: int) -> Row:
        """See Source."""
        return Row({key: value[number] for key, value in self._X.items()}, self._y[number])

    def item(self, row: Row) -> Any:
        """See Source."""
        return (row.inputs.get(0, row.inputs), row.y)

    def batch(self, rows: Index, changed: Mapping[int, Row], fill: Fill | None = None) -> Batch:
        """See Source."""
        which = torch.from_numpy(rows)
        inputs = {key: value[which] for key, value in self._X.items()}
        y = self._y[which]
        found = [(at, changed[number]) for at, number in enumerate(rows.tolist()) if number in changed]
        if found:
            at = torch.tensor([at for at, _ in found])
            y[at] = torch.stack([row.y for _, row in found])
            for key, value in inputs.items():
                value[at] = torch.stack([row.inputs[key] for _, row in found])
        return Batch(inputs if fill is None else fill(inputs, (slice(None),)), y)


class Items:
    """A map-style Dataset, its items put together as its DataLoader would.

    An item is (x, y), (x, more, y) or a dict; `y` is the key of the target there.
    """

    def __init__(self, dataset: Any, y: Any, collate: Callable[[list[Any]], Any]) -> None:
        self._dataset, self._collate = dataset, collate
        self._targets = None if y is None or isinstance(y, str) else torch.as_tensor(y)
        self._key = y if isinstance(y, str) else "labels"
        if self._targets is not None and len(self._targets) != len(dataset):
            raise ValueError(f"y has {len(self._targets)} entries for {len(dataset)} rows of X")

    def classes(self) -> Tensor | None:
        """See Source."""
        return None

    def __len__(self) -> int:
        return len(self._dataset)

    def row(self, number: int) -> Row:
        """See Source."""
        return self._split(self._dataset[number], number)

    def item(self, row: Row) -> Any:
        """See Source."""
        if 0 in row.inputs:  # by position
            return (*row.inputs.values(), row.y)
        return {**row.inputs, self._key: row.y}

    def batch(self, rows: Index, changed: Mapping[int, Row], fill: Fill | None = None) -> Batch:
        """See Source."""
        read = [changed[i] if i in changed else self.row(i) for i in rows.tolist()]
        if fill is not None:  # before rows are padded
            read = [row._replace(inputs=fill(row.inputs)) for row in read]
        together = self._collate([self.item(row) for row in read])
        if isinstance(together, Mapping):
            inputs = {key: value for key, value in together.items() if key != self._key}
            return Batch(inputs, together[self._key])
        return Batch(dict(enumerate(together[:-1])), together[-1])

    def _split(self, item: Any, number: int) -> Row:
        if isinstance(item, Mapping):
            if self._targets is None and self._key not in item:
                raise KeyError(f"items have no {self._key!r}: name the key of their target, y={self._key!r}")
            y = item[self._key] if self._targets is None else self._targets[number]
            return Row({key: value for key, value in item.items() if key != self._key}, y)
        if self._targets is not None:
            return Row({0: item}, self._targets[number])
        if isinstance(item, list | tuple) and len(item) >= 2:
            return Row(dict(enumerate(item[:-1])), item[-1])
        raise TypeError(
            f"an item of X is a {type(item).__name__}: pass a Dataset of (x, y) or of dicts, or y beside it"
        )


def source_of(X: Any, y: Any) -> tuple[Source, int | None]:
    """What X and y are, and how many rows a batch has where they say so."""
    if hasattr(X, "dataset") and hasattr(X, "collate_fn"):  # a DataLoader, or like one
        one_by_one = getattr(X, "batch_sampler", X) is None  # and its collate_fn makes no batches
        collate = default_collate if one_by_one else X.collate_fn
        return Items(_map_style(X.dataset), y, collate), getattr(X, "batch_size", None)
    plain = isinstance(X, Tensor | np.ndarray) or (isinstance(X, Mapping) and not isinstance(y, str))
    if plain and y is None:
        raise TypeError("y is missing: pass the targets of X, or a Dataset of (x, y)")
    source: Source = Tensors(X, y) if plain else Items(_map_style(X), y, default_collate)
    return source, None


def _map_style(X: Any) -> Any:
    if hasattr(X, "__getitem__") and hasattr(X, "__len__"):
        return X
    raise TypeError(
        f"X is a {type(X).__name__}: pass a tensor, a map-style Dataset (with a length, its items by "
        "number) or a DataLoader of one, as requests name rows by number"
    )


def _shown(classes: Tensor) -> str:
    """The first of them."""
    return ", ".join(map(str, classes[:10].tolist())) + (", …" if len(classes) > 10 else "")


def as_kept(new: Tensor, old: Any) -> Any:
    """In the type of what it replaces: a tensor, an array, a list or a number."""
    if isinstance(old, Tensor):
        return new
    if isinstance(old, np.ndarray):
        return new.numpy()
    return new.tolist() if isinstance(old, list) else type(old)(new)


def cells(X: Tensor, columns: tuple[Any, ...]) -> Tensor:
    """Those that columns name; ValueError where there are none such."""
    try:
        return X[columns]
    except (IndexError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"a row of X has shape {tuple(X.shape)}, which columns do not fit: {error}"
        ) from None


class Reads:
    """How many rows were read; those that were corrected are kept, and need not be."""

    count = 0


@dataclass(frozen=True)
class Data:
    """Rows under their corrections. Editing makes another: a request that fails leaves no trace."""

    source: Source
    main: Any  # key of the input that values are corrected in
    batch_size: int
    move: Callable[[Batch], Batch]
    reads: Reads
    removed: frozenset[int] = frozenset()
    changed: Mapping[int, Row] = field(default_factory=dict)
    filled: tuple[tuple[Any, Any], ...] = ()  # columns, and what they hold

    def __len__(self) -> int:
        return len(self.source) - len(self.removed)

    def row(self, number: int) -> Row:
        """One row as it is now, but for columns that are filled."""
        if number in self.changed:
            return self.changed[number]
        self.reads.count += 1
        return self.source.row(number)

    def input_key(self, inputs: Mapping[Any, Any]) -> Any:
        """Key of the input that values are corrected in."""
        return self.main if self.main in inputs else next(iter(inputs))

    def batch(self, rows: Any) -> Batch:
        """Rows by number, as they are now."""
        rows = np.asarray(rows, dtype=np.int64)
        self.reads.count += sum(number not in self.changed for number in rows.tolist())
        fill = self.fill if self.filled else None
        batch = self.source.batch(rows, self.changed, fill)
        rows_of(batch)  # an error where it has none
        return self.move(batch)

    def fill(self, inputs: dict[Any, Any], lead: tuple[slice, ...] = ()) -> dict[Any, Any]:
        """See Fill."""
        key = self.input_key(inputs)
        X = torch.as_tensor(inputs[key]).clone()
        for columns, value in self.filled:
            cells(X, (*lead, *columns))
            X[(*lead, *columns)] = torch.as_tensor(value).to(X.dtype)
        return {**inputs, key: as_kept(X, inputs[key])}

    def batches(self, size: int | None = None) -> Iterator[Batch]:
        """All rows, in order."""
        for rows in self.numbers(size or self.batch_size):
            yield self.batch(rows)

    def numbers(self, size: int) -> Iterator[Index]:
        """The numbers of all rows that are left, so many at a time."""
        for first in range(0, len(self.source), size):
            rows = self.present(np.arange(first, min(first + size, len(self.source))))
            if rows.size:
                yield rows

    def present(self, rows: Index) -> Index:
        """Those of these rows that have not been removed."""
        if not self.removed:
            return rows
        return rows[[number not in self.removed for number in rows.tolist()]]

    def shuffled(self, size: int, generator: np.random.Generator) -> Iterator[Index]:
        """All rows once, in random order: each _BLOCK of them is spread evenly over the data."""
        n = len(self.source)
        blocks = -(-n // _BLOCK)
        for block in generator.permutation(blocks):
            rows = self.present(generator.permutation(np.arange(block, n, blocks)))
            for first in range(0, rows.size, size):
                yield rows[first : first + size]

    def sample(self, size: int, generator: np.random.Generator, without: Any = ()) -> Index:
        """At most so many rows that are left, none of them twice, `without` some."""
        n, out = len(self.source), self.removed.union(without)
        size = min(size, n - len(out))
        if 2 * (size + len(out)) >= n:
            left = np.array([number for number in range(n) if number not in out], dtype=np.int64)
            return np.sort(generator.permutation(left)[:size])
        found: set[int] = set()
        while len(found) < size:
            drawn = generator.integers(n, size=size - len(found)).tolist()
            found.update(number for number in drawn if number not in out)
        return np.sort(np.fromiter(found, dtype=np.int64))

    def check_labels(self, labels: list[Any]) -> None:
        """ValueError for a class that no row has, where the targets are classes and at hand."""
        known = self.source.classes()
        if known is None:
            return
        for label in labels:
            if label not in known:
                raise ValueError(f"label {label} is a class that no row has: there are {_shown(known)}")

    def with_rows(self, changed: Mapping[int, Row]) -> Data:
        """Other contents of some rows."""
        return replace(self, changed={**self.changed, **changed})


class CorrectedRows:
    """The corrected rows as a map-style Dataset, in the form they were handed over in: for retraining."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self._numbers = [number for rows in data.numbers(_BLOCK) for number in rows.tolist()]

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, at: int) -> Any:
        inputs, y = self._data.row(self._numbers[at])
        if self._data.filled:
            inputs = self._data.fill(inputs)
        return self._data.source.item(Row(inputs, y))
