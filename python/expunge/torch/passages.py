"""Where values to be forgotten stand: in targets, in inputs, and in windows of a text cut elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from .data import Batch, Data, Row, as_kept
from .edits import Secret
from .module import Function

__all__ = ["Passages", "correct", "log_probabilities", "passages"]

_CUTS = 5  # windows of a text begin at each fifth of their length
_CHOICES = 64  # alternatives that are drawn for each value where none were given
_NUCLEUS = 0.8  # of what is likely there they are drawn from
_ALIKE = 512  # places that each is compared with, at most


@dataclass(frozen=True)
class Passages:
    """Windows that show secret values. Each value has a place, which several windows may show.

    Attributes
    ----------
    batch : Batch
        The windows as they were.
    in_y, in_x : (w, ...) tensors of int
        For each entry of the targets and of the inputs, which place it is, or -1. in_x is None where the
        inputs do not show the values.
    choices : (k, places) tensor
        Values that might as well stand there.
    key : object
        Of the input that in_x is about.
    secrets : (w,) tensor of int
        Which of the values to be forgotten a window shows, as one number may stand in many rows.
    """

    batch: Batch
    in_y: Tensor
    in_x: Tensor | None
    choices: Tensor
    key: Any
    secrets: Tensor

    def __len__(self) -> int:
        return int(self.in_y.shape[0])

    def drawn(self, generator: torch.Generator) -> Tensor:
        """One alternative for each place."""
        k, places = self.choices.shape
        which = torch.randint(k, (places,), generator=generator).to(self.choices.device)
        return self.choices.gather(0, which[None])[0]

    def drawn_anew(self, rows: int, generator: torch.Generator) -> Tensor:
        """One alternative for each place, in no row all of them what is to be forgotten, as chance has it."""
        values = self.drawn(generator)
        for y, in_y in zip(self.batch.y[:rows], self.in_y[:rows], strict=True):
            old, places = y[in_y >= 0], in_y[in_y >= 0]
            others = (self.choices[:, places] != old).nonzero()
            if torch.equal(values[places], old) and len(others):
                which, at = others[torch.randint(len(others), (), generator=generator)]
                values[places[at]] = self.choices[which, places[at]]
        return values

    def take(self, which: Tensor) -> Passages:
        """Some of the windows."""
        batch = self.batch.moved(lambda value: value[which])
        in_x = None if self.in_x is None else self.in_x[which]
        return Passages(batch, self.in_y[which], in_x, self.choices, self.key, self.secrets[which])

    def batch_parts(self, size: int) -> Iterator[Batch]:
        """All windows, so many at a time."""
        for first in range(0, len(self), size):
            yield self.batch.moved(itemgetter(slice(first, first + size)))

    def showing(self, values: Tensor) -> Batch:
        """The windows with other values in these places."""
        y = torch.where(self.in_y >= 0, values[self.in_y], self.batch.y)
        inputs = self.batch.inputs
        if self.in_x is not None:
            X = inputs[self.key]
            inputs = {**inputs, self.key: torch.where(self.in_x >= 0, values[self.in_x].to(X.dtype), X)}
        return Batch(inputs, y)


def log_probabilities(outputs: Tensor, y: Tensor) -> Tensor:
    """Of each class at each entry of y, (..., classes); in outputs these come last or second."""
    if outputs.shape[:-1] == y.shape:
        return outputs.log_softmax(-1)
    if outputs.ndim >= 2 and (outputs.shape[0], *outputs.shape[2:]) == tuple(y.shape):
        return outputs.movedim(1, -1).log_softmax(-1)
    if outputs.shape == y.shape:
        return torch.stack([-outputs, outputs], -1).div(2.0).log_softmax(-1)
    raise ValueError(
        f"outputs have shape {tuple(outputs.shape)}, which are no logits for targets of shape "
        f"{tuple(y.shape)}: pass logits=, whose classes come last"
    )


def passages(function: Function, theta: Tensor, data: Data, secrets: list[Secret], seed: int) -> Passages:
    """The windows that show the secrets, those cut elsewhere included, and what might stand there."""
    rows = [secret.row for secret in secrets]
    batch = data.batch(rows)
    key = data.input_key(batch.inputs)
    in_y = torch.full(batch.y.shape, -1, dtype=torch.int64)
    count = 0
    for at, secret in enumerate(secrets):
        places = torch.full(secret.mask.shape, -1, dtype=torch.int64)
        places[secret.mask] = torch.arange(count, count + int(secret.mask.sum()))
        count += int(secret.mask.sum())
        in_y[at] = _padded(places, torch.as_tensor(secret.before.y), batch.y[at].cpu())
    in_y = in_y.to(function.device)
    in_x = _in_inputs(batch.inputs[key], batch.y, in_y)
    found = Passages(batch, in_y, in_x, batch.y.new_zeros((1, count)), key, _same(batch.y, in_y))
    if in_x is not None and len(batch.inputs) == 1 and batch.y.ndim == 2:
        found = _cut_elsewhere(found, data, rows)
    given = [secret.alternatives for secret in secrets]
    if all(one is not None for one in given):
        choices = torch.cat([one for one in given if one is not None], 1).to(function.device)
    else:
        choices = _likely(function, theta, found, given, seed)
    found = replace(found, choices=choices)
    _check_classes(function, theta, found)
    return found


def _check_classes(function: Function, theta: Tensor, found: Passages) -> None:
    """ValueError for values that the module has no logits of."""
    first = found.take(torch.arange(1, device=function.device)).batch
    with torch.no_grad():
        classes = log_probabilities(function.outputs(theta, first), first.y).shape[-1]
    shown = {"a masked target is": found.batch.y[found.in_y >= 0], "alternatives contain": found.choices}
    for what, values in shown.items():
        if int(values.max()) >= classes:
            raise ValueError(
                f"{what} {int(values.max())}, but the module has {classes} classes: give those, 0 to "
                f"{classes - 1}"
            )


def _same(y: Tensor, in_y: Tensor) -> Tensor:
    """A number for each row, the same where the values to be forgotten are the same, or part of others."""
    shown = [tuple(values[places >= 0].tolist()) for values, places in zip(y, in_y, strict=True)]
    whole: list[tuple[int, ...]] = []
    number_of = {}
    for values in sorted(set(shown), key=lambda values: (-len(values), values)):
        holds = (
            number
            for number, longer in enumerate(whole)
            if any(longer[at : at + len(values)] == values for at in range(len(longer) - len(values) + 1))
        )
        number_of[values] = next(holds, len(whole))
        if number_of[values] == len(whole):
            whole.append(values)
    return torch.tensor([number_of[values] for values in shown], device=y.device)


def _padded(places: Tensor, y: Tensor, collated: Tensor) -> Tensor:
    """The places of one row in its collated target, which may be padded at either end."""
    if places.shape == collated.shape:
        return places
    room = collated.shape[0] - places.shape[0] if collated.ndim == places.ndim == 1 else -1
    for before in {0, room} if room >= 0 else ():
        wide = torch.full(collated.shape, -1, dtype=torch.int64)
        wide[before : before + places.shape[0]] = places
        if torch.equal(collated[wide >= 0], y[places >= 0]):
            return wide
    raise ValueError(
        "the collate function changes targets, so that a mask does not say which entries are meant"
    )


def _in_inputs(X: Tensor, y: Tensor, in_y: Tensor) -> Tensor | None:
    """Which inputs show the values: those one further, where y is the next token, or those beside them."""
    if X.shape != y.shape or X.is_floating_point() or X.ndim != 2:
        return None
    here = in_y >= 0
    if torch.equal(X[here], y[here]):
        return in_y
    after = here[:, :-1]
    if not after.any() or not torch.equal(X[:, 1:][after], y[:, :-1][after]):
        return None
    in_x = torch.full_like(in_y, -1)
    in_x[:, 1:] = in_y[:, :-1]
    return in_x


def _cut_elsewhere(found: Passages, data: Data, rows: list[int]) -> Passages:
    """The same windows, and where rows are windows of one text those that begin at other places of it.

    They are such where the last target of each row is the first token of the next.
    """
    assert found.in_x is not None
    X, y, T = found.batch.inputs[found.key], found.batch.y, found.batch.y.shape[1]
    if found.in_x is found.in_y or T < _CUTS or len(set(rows)) < len(rows):
        return found
    inside = set(rows)
    near = sorted(
        {n for row in rows for n in (row - 1, row + 1)} - inside - data.removed - {-1, len(data.source)}
    )
    around = data.batch(near) if near else None
    place_of = dict(zip(rows, found.in_y, strict=True))
    text = {row: (X[at], y[at]) for at, row in enumerate(rows)}
    if around is not None:
        text |= {row: (around.inputs[found.key][at], around.y[at]) for at, row in enumerate(near)}
    firsts = [row for row in text if row + 1 in text]
    if any(len(text[row][1]) != T or text[row + 1][0][0] != text[row][1][-1] for row in firsts):
        return found
    tokens, places, secrets = [], [], []
    which = dict(zip(rows, found.secrets, strict=True))
    none = torch.full((T,), -1, dtype=torch.int64, device=y.device)
    for row in firsts:
        both = torch.cat([text[row][0][:1], text[row][1], text[row + 1][1]])
        where = torch.cat([none[:1], place_of.get(row, none), place_of.get(row + 1, none)])
        for cut in range(1, _CUTS):
            start = cut * T // _CUTS
            if bool((where[start + 1 : start + T + 1] >= 0).any()):
                tokens.append(both[start : start + T + 1])
                places.append(where[start : start + T + 1])
                secrets.append(which[row] if row in which else which[row + 1])
    first_place = {row + 1: place_of[row][-1] for row in firsts if row in place_of}
    in_x = found.in_x.clone()
    for at, row in enumerate(rows):
        in_x[at, 0] = first_place.get(row, in_x[at, 0])
    if not tokens:
        return replace(found, in_x=in_x)
    cut_tokens, cut_places = torch.stack(tokens), torch.stack(places)
    batch = Batch({found.key: torch.cat([X, cut_tokens[:, :-1]])}, torch.cat([y, cut_tokens[:, 1:]]))
    in_y, in_x = torch.cat([found.in_y, cut_places[:, 1:]]), torch.cat([in_x, cut_places[:, :-1]])
    secrets = torch.cat([found.secrets, torch.stack(secrets)])
    return Passages(batch, in_y, in_x, found.choices, found.key, secrets)


def _likely(
    function: Function, theta: Tensor, found: Passages, given: list[Tensor | None], seed: int
) -> Tensor:
    """For each place, values that are likely at places like it.

    ``q`` is what the module holds likely at a place but for the secret, which it knows there. Places are
    alike as their q are: a digit stands in for a digit. So q is averaged over all places, by the square of
    ``Σ sqrt(q q')``, and values are drawn from the likeliest of that.
    """
    generator = torch.Generator().manual_seed(seed)
    places = found.choices.shape[1]
    q: Tensor | None = None
    with torch.no_grad():
        for which in torch.arange(len(given), device=function.device).split(64):
            some = found.take(which)
            log_p = log_probabilities(function.outputs(theta, some.batch), some.batch.y)
            here = some.in_y >= 0
            p = log_p[here].exp().scatter(1, some.batch.y[here].long()[:, None], 0.0)
            q = p.new_zeros((places, p.shape[1])) if q is None else q
            q[some.in_y[here]] = p / p.sum(1, keepdim=True).clamp_min(1e-30)
    assert q is not None
    few = torch.linspace(0, places - 1, min(places, _ALIKE), device=q.device).long()
    alike = (q.sqrt() @ q[few].sqrt().T) ** 2
    likely = alike @ q[few]
    ordered, order = (likely / likely.sum(1, keepdim=True).clamp_min(1e-30)).sort(1, descending=True)
    among = (ordered.cumsum(1) - ordered) < _NUCLEUS
    drawn = torch.multinomial(among.double().cpu(), _CHOICES, replacement=True, generator=generator)
    choices = order.cpu().gather(1, drawn).T.to(found.choices).contiguous()
    at = 0
    for one in given:  # those of other requests may have been given
        if one is not None:
            which = torch.randint(len(one), (_CHOICES,), generator=generator)
            choices[:, at : at + one.shape[1]] = one[which].to(choices)
            at += one.shape[1]
    return choices


def correct(data: Data, secrets: list[Secret], found: Passages, values: Tensor) -> Data:
    """The rows with these values in place of the secrets, in targets and inputs."""
    shown = found.take(torch.arange(len(secrets), device=found.in_y.device)).showing(values)
    changed = {}
    for at, secret in enumerate(secrets):
        y, mask = torch.as_tensor(secret.before.y).clone(), secret.mask
        y[mask] = shown.y[at][found.in_y[at] >= 0].cpu().to(y.dtype)
        inputs = dict(secret.before.inputs)
        if found.in_x is not None:
            kept = inputs[found.key]
            X, shows = torch.as_tensor(kept).clone(), found.in_x[at] >= 0
            shows_here = shows.cpu()
            length = X.shape[0]
            start = 0 if not shows_here[length:].any() else shows_here.shape[0] - length
            shows_here = shows_here[start : start + length]
            X[shows_here] = shown.inputs[found.key][at][shows].cpu().to(X.dtype)
            inputs[found.key] = as_kept(X, kept)
        changed[secret.row] = Row(inputs, as_kept(y, secret.before.y))
    return data.with_rows(changed)
