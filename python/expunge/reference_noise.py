"""Noise in integers and fractions (E42): the twin of cpp/src/gaussian.cpp, digit for digit."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

BASE = 2**32


class Digits:
    """A stream of digits to the base 2**32, from fill(n), which gives n random bytes."""

    def __init__(self, fill: Callable[[int], bytes]) -> None:
        self._fill = fill
        self._left: list[int] = []

    def draw(self) -> int:
        """The next one."""
        if not self._left:
            self._left = np.frombuffer(self._fill(1 << 14), dtype=np.uint32)[::-1].tolist()
        return self._left.pop()

    def below(self, m: int) -> int:
        """One of 0 to m - 1, all as likely."""
        while (drawn := self.draw()) >= BASE - BASE % m:
            pass
        return drawn % m


class Uniform:
    """A uniform real number in (0, 1), whose digits are drawn when they are asked for."""

    def __init__(self, source: Digits) -> None:
        self._source = source
        self._digits: list[int] = []

    def digit(self, j: int) -> int:
        """Digit j = 0, 1, ..., of weight 2**-32(j + 1)."""
        while len(self._digits) <= j:
            self._digits.append(self._source.draw())
        return self._digits[j]

    def first(self, n: int, skipped: int = 0, complement: bool = False) -> int:
        """As many digits as one integer: of this number, or of 1 minus it."""
        number = 0
        for j in range(skipped, skipped + n):
            number = number * BASE + (BASE - 1 - self.digit(j) if complement else self.digit(j))
        return number

    def __lt__(self, other: Uniform) -> bool:
        j = 0
        while (mine := self.digit(j)) == (its := other.digit(j)):
            j += 1
        return mine < its


def _run(source: Digits, last: Uniform, goes_on: Callable[[], bool]) -> bool:
    """Whether a descending run of uniform numbers below `last` has an even length."""
    length = 0
    while (drawn := Uniform(source)) < last and goes_on():
        last, length = drawn, length + 1
    return length % 2 == 0


def _half_an_exponent(source: Digits) -> bool:
    """True with probability exp(-1/2)."""
    first = Uniform(source)
    return first.digit(0) >= BASE // 2 or not _run(source, first, lambda: True)


def _accepts_whole(source: Digits, k: int) -> bool:
    """True with probability exp(-k(k - 1)/2)."""
    return all(_half_an_exponent(source) for _ in range(k * (k - 1)))


def _accepts(source: Digits, k: int, x: Uniform) -> bool:
    """True with probability exp(-x(2k + x)/(2k + 2))."""

    def goes_on() -> bool:  # with probability (2k + x)/(2k + 2)
        part = source.below(2 * k + 2)
        return part < 2 * k or (part == 2 * k and Uniform(source) < x)

    return _run(source, x, goes_on)


def draw_normal(source: Digits) -> tuple[bool, int, Uniform]:
    """A normal deviate by Karney's Algorithm N: whether it is negative, k and x of its size k + x."""
    while True:
        k = 0
        while _half_an_exponent(source):
            k += 1
        if not _accepts_whole(source, k):
            continue
        x = Uniform(source)
        if all(_accepts(source, k, x) for _ in range(k + 1)):
            negative = source.draw() >= BASE // 2
            x.digit(2)
            return negative, k, x


def floor_of_sum(at: Fraction, R: int, x: Uniform, skipped: int = 0, complement: bool = False) -> int:
    """floor(at + R w), at >= 0, w the digits of x behind some, or of 1 - x. It draws as few as will do."""
    n, unit = 1, BASE
    while True:
        low = int(at * unit) + R * x.first(n, skipped, complement)  # later digits add less than R + 1
        if low // unit == (low + R) // unit:
            return low // unit
        n, unit = n + 1, unit * BASE


def _magnitude(theta: float, exponent: int) -> Fraction:
    return abs(Fraction(theta)) / Fraction(2) ** exponent


def add_normal(theta: ArrayLike, R: int, exponent: int, fill: Callable[[int], bytes]) -> NDArray[np.int64]:
    """theta/2**exponent + R N (d,), rounded to integers; +-2**62 where theta is too large."""
    source, K = Digits(fill), []
    for value in np.asarray(theta, dtype=np.float64).tolist():
        negative, k, x = draw_normal(source)
        at, sign = _magnitude(value, exponent), -1 if value < 0 else 1
        down = negative != (value < 0)  # beside |theta|
        if at >= 2**62:
            K.append(sign * 2**62)
            continue
        beside = floor_of_sum(at + Fraction(1, 2), R, x, 0, down)
        K.append(sign * (beside + R * (-(k + 1) if down else k)))
    return np.array(K, dtype=np.int64)


def normal(size: int, R: int, fill: Callable[[int], bytes]) -> NDArray[np.int64]:
    """2**32 R N (size,), rounded to integers."""
    source, K = Digits(fill), []
    for _ in range(size):
        down, k, x = draw_normal(source)
        low = floor_of_sum(Fraction(1, 2), R, x, 1, down)
        K.append(R * ((-(k + 1) if down else k) * BASE + x.first(1, 0, down)) + low)
    return np.array(K, dtype=np.int64)


def round_with_offset(
    theta: ArrayLike, R: int, exponent: int, fill: Callable[[int], bytes]
) -> NDArray[np.int64]:
    """R (c + 1/2) - R u (d,), rounded, with c = floor(theta/(2**exponent R) + u) and u uniform (E17)."""
    source, K = Digits(fill), []
    for value in np.asarray(theta, dtype=np.float64).tolist():
        u = Uniform(source)
        u.digit(2)
        at, sign = _magnitude(value, exponent), -1 if value < 0 else 1
        offset = floor_of_sum(Fraction(1, 2), R, u)
        if at >= 2**62:
            K.append(sign * 2**62)
            continue
        # below 0, floor(-a + u) is -floor(a + (1 - u)), but with probability 0
        cell = floor_of_sum(at, R, u, 0, value < 0) // R
        K.append(R * sign * cell + R // 2 - offset)
    return np.array(K, dtype=np.int64)
