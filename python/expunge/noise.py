"""Noise: where it comes from, the grid that it is drawn on, and who keeps it (E42).

A certificate is worth as much as the secrecy of its noise. Noise comes from the operating system. No repr
shows the noise of an objective (E15), and no pickle carries it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from numbers import Integral
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from . import _core
from ._arrays import Float
from .errors import CertificateError

__all__ = [
    "Grid",
    "Noise",
    "add_normal",
    "check_random_state",
    "grid_of",
    "normal",
    "random_bytes",
    "released_numbers",
    "round_with_offset",
]

LEAST_STEPS = 2**20  # of the grid, in one width of the noise
DIGITS = 53  # binary, of a float64
LEAST_EXPONENT = -1074  # all float64 are multiples of this power of 2
FINER = 32  # further binary digits of the noise of an objective

RandomState = int | Sequence[int] | None


def check_random_state(random_state: Any) -> int | None:
    """None (the operating system's randomness) or an integer >= 0 (for tests); anything else is an error."""
    if random_state is None:
        return None
    if isinstance(random_state, Integral) and not isinstance(random_state, bool) and int(random_state) >= 0:
        return int(random_state)
    raise ValueError(
        f"random_state must be None, for noise from the operating system, or an integer >= 0, for tests; got "
        f"{random_state!r}"
    )


def random_bytes(random_state: RandomState = None) -> Callable[[int], bytes]:
    """A source of random bytes: the operating system, or for tests the stream of a seed."""
    return os.urandom if random_state is None else np.random.default_rng(random_state).bytes


class Grid(NamedTuple):
    """A grid of step 2**exponent, for noise or cells that are `steps` steps wide."""

    steps: int
    exponent: int

    @property
    def width(self) -> float:
        """The width of the noise or of the cells; no digit is lost."""
        return float(self.exact)

    @property
    def step(self) -> float:
        """The distance of the grid's points."""
        return float(Fraction(2) ** self.exponent)

    @property
    def exact(self) -> Fraction:
        """The width, as a fraction."""
        return self.steps * Fraction(2) ** self.exponent


def grid_of(scale: Fraction, bound: float | None = None, *, even: bool = False) -> Grid:
    """The grid for noise or cells that are at least `scale` wide (E42).

    It is the coarsest grid on which the noise is still 2**20 steps wide. With a `bound` it may be coarser
    yet: numbers up to the bound have to fit 53 binary digits. Both arguments have to be public.

    Parameters
    ----------
    scale : Fraction, above 0
    bound : float above 0, optional
    even : bool
        Whether the steps must be even.

    Returns
    -------
    Grid
        2**20 to 2**21 - 1 steps. Its width is at least `scale`, and exceeds it by less than a part of 2**-19
        unless the bound asks for a coarser grid. The grid of its own width is the same grid.

    Raises
    ------
    CertificateError
        The width is above the largest float64.

    Examples
    --------
    >>> from fractions import Fraction
    >>> from expunge.noise import grid_of
    >>> grid_of(Fraction(1, 3)).width
    0.33333349227905273
    """
    exponent = _floor_log2(scale / LEAST_STEPS)
    if bound is not None:
        exponent = max(exponent, -_floor_log2(1 / Fraction(bound)) - DIGITS, LEAST_EXPONENT)
    steps = max(LEAST_STEPS, -int(-scale // Fraction(2) ** exponent))
    if even:
        steps += steps % 2
    if steps == 2 * LEAST_STEPS:
        steps, exponent = LEAST_STEPS, exponent + 1
    grid = Grid(steps, exponent)
    if grid.exact > Fraction(sys.float_info.max):
        raise CertificateError(
            f"noise or cells of width 2**{_floor_log2(grid.exact)} or more are asked for, above the largest "
            "float64: use a smaller tolerance or theta_bound, or a larger penalty, epsilon or delta"
        )
    return grid


def _floor_log2(value: Fraction) -> int:
    """The largest e with 2**e <= value; value is above 0."""
    e = value.numerator.bit_length() - value.denominator.bit_length()
    return e if Fraction(2) ** e <= value else e - 1


def released_numbers(K: NDArray[np.int64], exponent: int) -> Float:
    """The numbers K 2**exponent, without rounding.

    Raises
    ------
    CertificateError
        Some have more digits than a float64. This refusal depends on K alone, as the numbers do.
    """
    worst = int(np.abs(K).max(initial=0))
    if worst <= 2**DIGITS:
        with np.errstate(over="ignore"):
            numbers: Float = np.ldexp(K.astype(np.float64), exponent)
        if np.isfinite(numbers).all():
            return numbers
    raise CertificateError(
        f"a released number does not fit {DIGITS} bits: it is about {float(worst):.3g} steps of its "
        f"grid, 2**{exponent}. Make the Unlearner with a larger theta_bound, or use a smaller tolerance"
    )


def add_normal(theta: Float, grid: Grid, random_state: RandomState = None) -> Float:
    """Theta (d,) + N(0, width^2), in real numbers, rounded to the grid (E42)."""
    return released_numbers(
        _core.add_normal(theta, grid.steps, grid.exponent, random_bytes(random_state)), grid.exponent
    )


def round_with_offset(theta: Float, grid: Grid, random_state: RandomState = None) -> Float:
    """Theta (d,) -> the middles of its cells, as wide as the grid says, at a random offset (E17, E42)."""
    return released_numbers(
        _core.round_with_offset(theta, grid.steps, grid.exponent, random_bytes(random_state)), grid.exponent
    )


def normal(size: int, sigma: float, random_state: RandomState = None) -> Float:
    """N(0, width^2), independent (size,), to 2**-52 of the width, which is sigma or just above."""
    grid = grid_of(Fraction(sigma))
    K = _core.normal(size, grid.steps, random_bytes(random_state))
    values: Float = np.ldexp(K.astype(np.float64), grid.exponent - FINER)
    return values


@dataclass(frozen=True, repr=False, eq=False)
class Noise:
    """The b of E1: N(0, sigma^2) for each feature, none for the intercept.

    The standard deviation is sigma or more, by at most a part of 2**-20.

    Attributes
    ----------
    sigma : float
    random_state : int or None
        The seed of b, for tests: whoever knows it can draw b again.
    draws : int
        How many b this seed gave before.
    b : (d,) array or None
        None once it has been through a pickle.
    """

    sigma: float
    random_state: int | None
    draws: int
    b: Float | None

    @classmethod
    def drawn(cls, sigma: float, d: int, random_state: int | None, draws: int = 0) -> Self:
        """Fresh noise for d features."""
        seed = None if random_state is None else (random_state, 1 + draws)
        return cls(sigma, random_state, draws, normal(d, sigma, seed))

    def again(self) -> Self:
        """Fresh noise of the same kind, to replace this one."""
        return self.drawn(self.sigma, self.values.size, self.random_state, self.draws + 1)

    @property
    def values(self) -> Float:
        """The values of b (d,).

        Raises
        ------
        CertificateError
            A pickle or a file lost them.
        """
        if self.b is None:
            raise CertificateError(
                "the noise that this model was trained with is lost (pickles and files do not carry it), and "
                "with it the objective: fit the model again, or save its Unlearner with include_noise=True"
            )
        return self.b

    def of(self, kept: NDArray[np.bool_]) -> Self:
        """The noise of the features that are `kept`."""
        return replace(self, b=None if self.b is None else self.b[kept])

    def without(self, gone: NDArray[np.bool_]) -> Self:
        """The same, but zeros for the features that are `gone`."""
        return replace(self, b=None if self.b is None else np.where(gone, 0.0, self.b))

    def spread(self, kept: NDArray[np.bool_]) -> Self:
        """The same over more features: its own are `kept`, the others get zeros."""
        if self.b is None:
            return self
        b = np.zeros(kept.size)
        b[kept] = self.b
        return replace(self, b=b)

    def lost(self) -> Self:
        """The same without values, as a pickle keeps it."""
        return replace(self, b=None)

    def __repr__(self) -> str:
        return f"Noise(sigma={self.sigma}, {'lost' if self.b is None else 'held'})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.sigma, self.random_state, self.draws, None)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self
