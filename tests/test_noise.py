"""Noise in real numbers (E42): the sampler is its twin, and exact; planted faults are seen."""

import math
import sys
from fractions import Fraction

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import stats
from scipy.special import log_ndtr, ndtr, ndtri

from expunge import _core, noise, reference_noise
from expunge.errors import CertificateError

LIMIT = 1e-6  # of p-values: seeds are fixed, and were not chosen
COUNT = 1_000_000


def stream(*seed):
    return np.random.default_rng(seed).bytes


def lazy(seed, common):
    """A stream of digits that are nearly all among these few: ties, and carries that come late."""
    rng = np.random.default_rng(seed)
    common = np.array(common, dtype=np.uint32)
    held = b""

    def fill(size):
        nonlocal held
        while len(held) < size:
            digits = rng.choice(common, 4096)
            rare = rng.random(4096) < 0.2
            digits[rare] = rng.integers(0, 2**32, np.count_nonzero(rare), dtype=np.uint32)
            held += digits.tobytes()
        given, held = held[:size], held[size:]
        return given

    return fill


SPECIAL = [
    0.0,
    -0.0,
    5e-324,
    -5e-324,
    1e-310,
    2.0**-1022,
    1.0,
    -1.0,
    0.1,
    -0.1,
    1e300,
    -1e300,
    1.7e308,
    0.5,
    -1.5,
]
STEPS = [1, 2, 3, 8, 2**20, 2**20 + 2, 2**21, 2**30 - 2, 2**30]


def values(seed, n=300):
    rng = np.random.default_rng(seed)
    return np.append(SPECIAL, rng.standard_normal(n) * 10.0 ** rng.integers(-25, 14, n))


# --- the twin


def twins(theta, R, exponent, fill):
    """Every mechanism in C++ and in Python, from the same digits: pairs of K."""
    yield _core.add_normal(theta, R, exponent, fill()), reference_noise.add_normal(theta, R, exponent, fill())
    if R <= 2**21:
        yield _core.normal(len(theta), R, fill()), reference_noise.normal(len(theta), R, fill())
    if R % 2 == 0:
        yield (
            _core.round_with_offset(theta, R, exponent, fill()),
            reference_noise.round_with_offset(theta, R, exponent, fill()),
        )


@pytest.mark.isa
@pytest.mark.parametrize("R", STEPS)
def test_the_sampler_is_its_twin(R):
    for exponent in (-1074, -60, -30, 0, 900):
        for compiled, twin in twins(values(0), R, exponent, lambda: stream(R, 5)):
            assert compiled.dtype == np.int64
            assert_array_equal(compiled, twin)


@pytest.mark.isa
@pytest.mark.parametrize("R", STEPS)
def test_the_sampler_is_its_twin_where_digits_tie(R):
    """Streams with few digits in them: comparisons and carries are decided late."""
    theta = np.append(SPECIAL, np.array([0.5, 1.5, -0.5, -2.5, 3.0, 7.25]) * R)
    first, middle, last = [0, 1], [2**31 - 1, 2**31], [2**32 - 2, 2**32 - 1]
    for common in ([0], last[1:], [0, last[1]], middle, [*first, *middle, *last]):
        for seed in range(10):
            for compiled, twin in twins(theta, R, 0, lambda seed=seed, d=common: lazy(seed, d)):
                assert_array_equal(compiled, twin)


def test_digits_that_are_asked_for_are_few(monkeypatch):
    """What the lazy streams are for: the twin says how far it had to go."""
    deepest = 0

    class Deep(reference_noise.Uniform):
        def digit(self, j):
            nonlocal deepest
            deepest = max(deepest, j + 1)
            return super().digit(j)

    monkeypatch.setattr(reference_noise, "Uniform", Deep)
    reference_noise.add_normal(values(1), 2**20, -60, stream(1))
    assert deepest == 3
    reference_noise.add_normal(values(1), 3, 0, lazy(1, [0]))
    assert deepest > 6


# --- exact


def deviates(n, fill):
    """What these digits make: sign, k, the digits of x that are known, and how many those are."""
    source = reference_noise.Digits(fill)
    found = []
    for _ in range(n):
        negative, k, x = reference_noise.draw_normal(source)
        known = len(x._digits)
        assert known >= 3
        found.append((-1 if negative else 1, k, x.first(known), known))
    return found


@pytest.mark.parametrize("R", STEPS)
def test_what_is_released_is_the_rounding_of_the_exact_sum(R):
    """With whatever digits of x that come later, by fractions alone."""
    theta, exponent = values(2, 1000), -40
    theta = theta[np.abs(theta) < 1e6]
    K = _core.add_normal(theta, R, exponent, stream(3))
    finer = _core.normal(len(theta), R, stream(3)) if R <= 2**21 else None
    undecided = 0
    for j, (sign, k, digits, known) in enumerate(deviates(len(theta), stream(3))):
        low, high = (k + Fraction(digits + more, 2 ** (32 * known)) for more in (0, 1))
        at = Fraction(theta[j]) / Fraction(2) ** exponent + Fraction(1, 2)
        ends = sorted(math.floor(at + R * sign * end) for end in (low, high))
        assert ends[0] <= K[j] <= ends[1]
        undecided += ends[0] != ends[1]
        if finer is not None:
            ends = sorted(math.floor(2**32 * R * sign * end + Fraction(1, 2)) for end in (low, high))
            assert ends[0] <= finer[j] <= ends[1]
    assert undecided == 0


@pytest.mark.parametrize("R", [r for r in STEPS if r % 2 == 0])
def test_rounding_with_an_offset_is_that_of_the_exact_numbers(R):
    theta, exponent = values(4, 1000), -40
    theta = theta[np.abs(theta) < 1e6]
    K = _core.round_with_offset(theta, R, exponent, stream(5))
    digits = np.frombuffer(stream(5)(12 * len(theta)), dtype=np.uint32).reshape(-1, 3).astype(object)
    for j, (one, two, three) in enumerate(digits):
        for more in (0, 1):
            u = Fraction(((one << 64) + (two << 32) + three) + more, 2**96)
            cell = math.floor(Fraction(theta[j]) / Fraction(2) ** exponent / R + u)
            released = R * (cell + Fraction(1, 2)) - R * u
            assert K[j] == math.floor(released + Fraction(1, 2)) or K[j] == math.ceil(
                released - Fraction(1, 2)
            )


def test_vectors_in_the_same_cells_get_the_same_numbers():
    """E17, beside 0 as well: the released numbers are a function of the cells and the offset."""
    R, exponent, n = 2**20, -30, 20_000
    rng = np.random.default_rng(6)
    one = rng.standard_normal(n) * 10.0 ** rng.integers(-6, 3, n)
    other = one + 2.0**-30 * rng.standard_normal(n) * 10.0 ** rng.integers(0, 6, n)
    other[:5000] = -one[:5000] * 1e-3
    offsets = R // 2 - _core.round_with_offset(np.zeros(n), R, exponent, stream(7))
    K, L = (_core.round_with_offset(theta, R, exponent, stream(7)) for theta in (one, other))
    cells = [K + offsets - R // 2, L + offsets - R // 2]
    assert all((cell % R == 0).all() for cell in cells)
    for theta, cell in zip((one, other), cells, strict=True):  # up to the rounding of R u
        inside = theta * 2.0**30 + offsets - cell
        assert ((inside > -1.0) & (inside < R + 1.0)).all()
    assert_array_equal(K == L, cells[0] == cells[1])
    signs_differ = (one * other < 0) & (K == L)
    assert np.count_nonzero(signs_differ) > 100
    assert 0 < np.count_nonzero(K != L) < n // 2


def test_cells_change_as_often_as_their_width_says():
    R, n = 2**20, COUNT
    shift = 0.01
    at = np.full(n, 0.3) * R
    K, L = (_core.round_with_offset(theta, R, 0, stream(8)) for theta in (at, at + shift * R))
    assert stats.binomtest(int(np.count_nonzero(K != L)), n, shift).pvalue > LIMIT


def test_a_seed_gives_the_same_noise_beside_any_theta():
    theta, R = np.random.default_rng(9).standard_normal(10_000), 2**20
    one = _core.add_normal(theta, R, -20, stream(9))
    other = _core.add_normal(np.zeros(10_000), R, -20, stream(9))
    assert np.abs((one - other) - theta * 2.0**20).max() <= 1.0
    finer = _core.normal(10_000, R, stream(9))
    assert np.abs(finer * 2.0**-32 - other).max() <= 0.5 + 1e-6


# --- the distribution


def expected(low, high, A, R):
    """P(low <= K <= high): Phi on the side where it is small."""
    a, b = (low - 0.5 - A) / R, (high + 0.5 - A) / R
    return np.where(a > 0, ndtr(-a) - ndtr(-b), ndtr(b) - ndtr(a))


def goodness(K, A, R):
    """P-value of chi-square of K, cell by cell, against N(A, R^2) rounded; cells of few are put together."""
    reach = int(4.5 * R)
    low = np.arange(math.floor(A) - reach, math.floor(A) + reach + 1)
    low, high = np.append(-math.inf, low), np.append(low - 1, math.inf)
    p = expected(low, high, A, R)
    keep = p * len(K) >= 10
    first, last = np.flatnonzero(keep)[[0, -1]]
    low, high = low[first : last + 1].copy(), high[first : last + 1].copy()
    low[0], high[-1] = -math.inf, math.inf
    p = expected(low, high, A, R)
    counts = np.bincount(
        np.clip(np.searchsorted(low[1:], K, side="right"), 0, len(low) - 1), minlength=len(low)
    )
    return stats.chisquare(counts, p * len(K)).pvalue


THETA = [0.0, 0.5, -0.25, 1 / 3, 1e6 + 0.1, -7.9, 2.0**-40]


@pytest.mark.slow
@pytest.mark.isa
@pytest.mark.parametrize("R", [1, 3, 8, 50])
def test_cells_are_as_likely_as_the_normal_distribution_says(R):
    for A in THETA:
        K = _core.add_normal(np.full(COUNT // 4, A), R, 0, stream(10, R))
        assert goodness(K, A, R) > LIMIT


@pytest.mark.slow
def test_tails_are_as_likely_as_the_normal_distribution_says():
    """Each against the binomial distribution, out to where one of 4e6 is left."""
    size = np.abs(_core.add_normal(np.zeros(4 * COUNT), 2**20, 0, stream(11)))
    assert size.max() > 4.5 * 2**20
    for t in (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0):
        beyond = np.count_nonzero(size > t * 2**20)
        assert stats.binomtest(beyond, len(size), 2 * math.exp(log_ndtr(-t))).pvalue > LIMIT


def test_whole_and_fraction_are_as_likely_as_algorithm_n_says():
    """P(k) of |N|, against 40 digits."""
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(40):
        p = np.array(
            [float(mpmath.erf((k + 1) / mpmath.sqrt(2)) - mpmath.erf(k / mpmath.sqrt(2))) for k in range(5)]
        )
    whole = np.abs(_core.normal(COUNT, 2**20, stream(12))) >> 52
    counts = np.bincount(np.minimum(whole, 4), minlength=5)
    p[4] = 1.0 - p[:4].sum()
    assert stats.chisquare(counts, p * COUNT).pvalue > LIMIT
    assert stats.kstest(_core.normal(COUNT, 2**20, stream(13)) * 2.0**-52, "norm").pvalue > LIMIT


def low_digits(K, m=8):
    """P-value of the last m binary digits being uniform."""
    return stats.chisquare(np.bincount(K & (2**m - 1), minlength=2**m)).pvalue


@pytest.mark.slow
def test_low_digits_are_uniform_whatever_theta():
    R = 2**20
    theta = np.array([0.0, 0.5, 1 / 3, 1e-3, 123.456, -(2.0**40), 0.75])
    seen = []
    for j, A in enumerate(theta):
        K = _core.add_normal(np.full(COUNT // 2, A), R, 0, stream(14, j))
        for m in (1, 4, 8, 12):
            assert low_digits(K, m) > LIMIT
        seen.append(np.bincount(K & 255, minlength=256))
        finer = _core.normal(COUNT // 2, R, stream(15, j))
        assert low_digits(finer) > LIMIT
        rounded = _core.round_with_offset(np.full(COUNT // 2, A), R, 0, stream(16, j))
        assert low_digits(rounded) > LIMIT
    assert stats.chi2_contingency(np.array(seen)).pvalue > LIMIT


def test_noise_is_the_same_beside_any_theta():
    R = 2**20
    base = _core.add_normal(np.zeros(COUNT // 4), R, 0, stream(17))
    for j, A in enumerate((1e-3, 0.5, -12345.678, 2.0**50)):
        K = _core.add_normal(np.full(COUNT // 4, A), R, 0, stream(18, j))
        assert stats.ks_2samp(base, K - round(A)).pvalue > LIMIT


# --- planted faults: the checks above see them


def test_noise_that_is_one_step_aside_is_seen():
    K = _core.add_normal(np.full(COUNT // 4, 0.5), 8, 0, stream(10, 8))
    assert goodness(K, 0.5, 8) > LIMIT
    assert goodness(K + 1, 0.5, 8) < LIMIT
    assert goodness(np.where(np.arange(len(K)) % 4 == 0, K + 1, K), 0.5, 8) < LIMIT
    assert goodness(K, 0.5 + 0.25, 8) < LIMIT  # half a step forgotten, nearly


def lattice(K):
    """P-value of Phi(-|N|) 2**52, N = K/2**52 in the tails, being anywhere between two integers."""
    N = np.abs(K) * 2.0**-52
    cells = ndtr(-N[N > 3.0]) * 2.0**52
    assert len(cells) > 1000
    return stats.chisquare(np.bincount((10.0 * np.mod(cells, 1.0)).astype(int), minlength=10)).pvalue


def test_the_lattice_of_the_sampler_that_was_is_seen():
    """The inverse of the distribution at the middles of 2**52 cells: a release told its theta."""
    assert lattice(_core.normal(COUNT, 2**20, stream(19))) > LIMIT
    u = (np.random.default_rng(19).integers(0, 2**52, COUNT).astype(np.float64) + 0.5) * 2.0**-52
    assert lattice(np.rint(ndtri(u) * 2.0**52).astype(np.int64)) < LIMIT


def test_a_sum_in_floats_is_seen():
    """Whose last digits are 0 where theta is large."""
    theta, R = 2.0**59, 2**20
    K = _core.add_normal(np.full(COUNT // 10, theta), R, 0, stream(20))
    assert low_digits(K, 6) > LIMIT
    added = (theta + _core.normal(COUNT // 10, R, stream(20)) * 2.0**-32).astype(np.int64)
    assert low_digits(added, 6) < LIMIT


FAULTS = {
    "k is not rejected": ("_accepts_whole", lambda right: lambda source, k: True),
    "exp(-1/2) without the half": (
        "_half_an_exponent",
        lambda right: (
            lambda source: not reference_noise._run(source, reference_noise.Uniform(source), lambda: True)
        ),
    ),
    "x is not rejected": ("_accepts", lambda right: lambda source, k, x: True),
    "x is rejected as beside k = 0": ("_accepts", lambda right: lambda source, k, x: right(source, 0, x)),
    "runs below x only": (
        "_accepts",
        lambda right: lambda source, k, x: reference_noise._run(source, x, lambda: True),
    ),
    "digits that are not drawn are 0": (
        "floor_of_sum",
        lambda right: lambda at, R, x, skipped=0, complement=False: math.floor(at),
    ),
}


def twin_goodness(n=20_000, R=8):
    return goodness(reference_noise.add_normal(np.full(n, 0.25), R, 0, stream(21)), 0.25, R)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_sampler_is_seen(fault, monkeypatch):
    name, spoilt = FAULTS[fault]
    monkeypatch.setattr(reference_noise, name, spoilt(getattr(reference_noise, name)))
    assert twin_goodness() < LIMIT


def test_without_a_fault_nothing_is_seen():
    assert twin_goodness() > LIMIT


# --- what is refused


ZEROS = np.zeros(3)
CALLS = {
    "add_normal": lambda fill, theta=ZEROS, R=8, exponent=0: _core.add_normal(theta, R, exponent, fill),
    "round_with_offset": lambda fill, theta=ZEROS, R=8, exponent=0: _core.round_with_offset(
        theta, R, exponent, fill
    ),
    "normal": lambda fill, theta=ZEROS, R=8, exponent=0: _core.normal(len(theta), R, fill),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@each_call
def test_what_the_source_raises_is_raised(call):
    class Gone(Exception):
        pass

    def fill(size):
        raise Gone("no more")

    given = stream(0)

    def later(size):
        later.calls += 1
        if later.calls > 3:
            raise Gone("no more")
        return given(size)

    for count in (3, 100_000):
        later.calls = 0
        with pytest.raises(Gone, match="no more"):
            call(fill if count == 3 else later, np.zeros(count))
    before = sys.getrefcount(fill)
    for _ in range(100):
        with pytest.raises(Gone):
            call(fill)
    assert sys.getrefcount(fill) == before


@each_call
@pytest.mark.parametrize(
    ("fill", "error", "message"),
    [
        (lambda size: b"", ValueError, "fill gave 0 bytes for the"),
        (lambda size: bytes(size + 1), ValueError, "bytes for the"),
        (lambda size: "a" * size, TypeError, "must give bytes"),
        (lambda size: None, TypeError, "must give bytes"),
        (lambda: b"", TypeError, "argument"),
        (7, TypeError, "not callable"),
    ],
)
def test_a_source_that_gives_something_else_is_refused(call, fill, error, message):
    with pytest.raises(error, match=message):
        call(fill)


@pytest.mark.parametrize("byte", [b"\x00", b"\xff", b"\x80", b"\x7f", b"\x01"])
def test_a_source_that_is_stuck_is_refused(byte):
    """It does not draw forever. (Rounding with an offset needs no more than three digits, nearly always.)"""
    for name in ("add_normal", "normal"):
        with pytest.raises(RuntimeError, match="are not random"):
            CALLS[name](lambda size: byte * size)
    with pytest.raises(RuntimeError, match="are not random"):  # R u + 1/2 is 4 and a half forever
        CALLS["round_with_offset"](lambda size: bytes(size), np.full(3, -8.0))


@pytest.mark.parametrize("R", [0, -1, 2**30 + 1, 2**40])
def test_other_widths_are_refused(R):
    for call in (CALLS["add_normal"], CALLS["round_with_offset"], CALLS["normal"]):
        with pytest.raises(ValueError, match="R must be at least 1"):
            call(stream(0), R=R)


def test_other_arguments_are_refused():
    with pytest.raises(ValueError, match="R must be even"):
        CALLS["round_with_offset"](stream(0), R=7)
    with pytest.raises(ValueError, match=r"at most 2\^21"):
        CALLS["normal"](stream(0), R=2**21 + 1)
    with pytest.raises(ValueError, match="size must be"):
        _core.normal(-1, 8, stream(0))
    for name in ("add_normal", "round_with_offset"):
        for bad in (np.nan, np.inf, -np.inf):
            with pytest.raises(ValueError, match="theta must be finite"):
                CALLS[name](stream(0), np.array([0.0, bad]))
        with pytest.raises(ValueError, match="exponent"):
            CALLS[name](stream(0), exponent=5000)
        with pytest.raises(ValueError, match="expected"):
            CALLS[name](stream(0), np.zeros((2, 2)))


@each_call
def test_nothing_is_drawn_for_nothing(call):
    def fill(size):
        raise AssertionError

    assert call(fill, np.zeros(0)).shape == (0,)


# --- grids


def test_a_grid_is_as_coarse_as_the_width_lets_it_be_and_never_too_narrow():
    rng = np.random.default_rng(22)
    for _ in range(500):
        scale = Fraction(float(rng.random() * 2.0 ** rng.integers(-60, 60)))
        bound = float(rng.random() * 2.0 ** rng.integers(-60, 60))
        even = bool(rng.integers(2))
        R, exponent = grid = noise.grid_of(scale, bound, even=even)
        step = Fraction(2) ** exponent
        assert 2**20 <= R < 2**21
        assert R * step == grid.exact == Fraction(grid.width) >= scale
        assert step == Fraction(grid.step) >= Fraction(bound) / 2**53
        if R > 2**20 or step / 2 >= Fraction(bound) / 2**53:  # the scale decides
            assert grid.exact <= scale * (1 + Fraction(1 + even, 2**20))
        if even:
            assert R % 2 == 0
        assert noise.grid_of(grid.exact, bound, even=even) == grid


@pytest.mark.parametrize(
    ("scale", "bound", "grid"),
    [
        (Fraction(1), 1.0, (2**20, -20)),
        (Fraction(1) + Fraction(1, 2**70), 1.0, (2**20 + 1, -20)),
        (2 - Fraction(1, 2**70), 1.0, (2**20, -19)),
        (Fraction(1, 2**200), 1.0, (2**20, -53)),
        (Fraction(1, 2**200), 1.0 + 2.0**-52, (2**20, -52)),
        (Fraction(1, 2**2000), 5e-324, (2**20, -1074)),
        (Fraction(1, 2**2000), None, (2**20, -2020)),
    ],
)
def test_grids_at_their_edges(scale, bound, grid):
    assert noise.grid_of(scale, bound) == grid


def test_a_width_beyond_float64_is_refused():
    assert noise.grid_of(Fraction(sys.float_info.max) / 2, 1.0).width < math.inf
    with pytest.raises(CertificateError, match="above the largest float64"):
        noise.grid_of(Fraction(sys.float_info.max) * 2, 1.0)


def test_released_numbers_are_exact_or_refused():
    K = np.array([0, 1, -1, 2**53, -(2**53), 2**52 + 1])
    for exponent in (-1074, -30, 0, 900):
        numbers = noise.released_numbers(K, exponent)
        assert [Fraction(x) for x in numbers] == [int(k) * Fraction(2) ** exponent for k in K]
    for k, exponent in ((2**53 + 1, 0), (-(2**62), -30), (2**53, 971), (-(2**53), 971)):
        with pytest.raises(CertificateError, match="a released number does not fit 53 bits"):
            noise.released_numbers(np.array([1, k]), exponent)
    assert noise.released_numbers(np.zeros(0, dtype=np.int64), 0).size == 0


@pytest.mark.parametrize("sigma", [5e-324, 1e-300, 1.0, 0.3, 1e300])
def test_noise_of_an_objective_is_as_wide_as_it_must_be(sigma):
    grid = noise.grid_of(Fraction(sigma))
    assert 1 <= grid.exact / Fraction(sigma) <= 1 + Fraction(1, 2**20)
    b = noise.Noise.drawn(sigma, 1000, 4).values
    assert_array_equal(b, noise.normal(1000, sigma, (4, 1)))
    if sigma > 1e-300:
        assert stats.kstest(b / sigma, "norm").pvalue > LIMIT
