"""Every binding with arguments that do not fit, on arrays that change while they are held.

Any exception will do: what fails is a crash, a report of a sanitizer, or a call that does not return.
``python tests/fuzz_bindings.py --seconds 60 --seed 0`` says how often each was called; CI runs it on a
core that was compiled with sanitizers. ``--verbose`` names each call before it is made.
"""

import argparse
import faulthandler
import os
import random
import threading
import time
import warnings
from collections import Counter
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
from scipy import sparse

from expunge import _core, kernels

CORE = _core._module
NO_BINDINGS = {"NotCanonical"}  # an exception
LARGEST = 3000  # parameters of which a matrix is made, 400 where it is factored
INTEGERS = [-(2**63), -(2**31), -5, -1, 0, 1, 2, 3, 7, 2**31 - 1, 2**31, 2**62, 2**63, 2**64]
NUMBERS = [-np.inf, -1.0, -0.0, 0.0, 1e-300, 1e-9, 1.0, 1e9, 1e308, np.inf, np.nan]


def bindings():
    """Name -> whether it is a property, of all that the compiled module offers."""
    found = {}
    for name, value in vars(CORE).items():
        if name.startswith("_") or name in NO_BINDINGS:
            continue
        if not isinstance(value, type):
            found[name] = False
            continue
        for member, of in vars(value).items():
            if member == "__init__" or not member.startswith("_"):
                found[f"{name}.{member}"] = isinstance(of, property)
    return found


def misaligned(a):
    """The same numbers one byte further."""
    memory = np.zeros(a.nbytes + 1, dtype=np.uint8)
    moved = memory[1:].view(a.dtype).reshape(a.shape)
    moved[...] = a
    return moved


def with_number(a, rng):
    """One entry is another number."""
    a = a.copy()
    if a.size:
        a.flat[rng.randrange(a.size)] = rng.choice(NUMBERS)
    return a


SPOILED = [
    lambda a, rng: a[:-1] if a.ndim else a,
    lambda a, rng: np.append(a, 1.0),
    lambda a, rng: np.append(a, np.zeros(500)),
    lambda a, rng: a[None],
    lambda a, rng: a[..., None],
    lambda a, rng: a.astype(np.float32),
    lambda a, rng: a.astype(">f8"),
    lambda a, rng: np.repeat(a, 2, axis=0)[::2] if a.ndim else a,
    lambda a, rng: a[::-1] if a.ndim else a,
    lambda a, rng: misaligned(a),
    lambda a, rng: np.broadcast_to(1.0, a.shape),
    lambda a, rng: np.asfortranarray(a),
    lambda a, rng: a.astype(object),
    lambda a, rng: a.tolist(),
    lambda a, rng: np.empty(0),
    lambda a, rng: np.empty((0, 3)),
    lambda a, rng: 1.0,
    lambda a, rng: None,
    lambda a, rng: "text",
    with_number,
    with_number,
    with_number,
]


class Fuzzer:
    """Makes arguments and calls; keeps some of what calls return, to use it again."""

    def __init__(self, seed, *, verbose=False):
        self.rng, self.numbers = random.Random(seed), np.random.default_rng(seed)
        self.verbose = verbose
        self.objects = {}  # name of a class -> the last few of it
        self.shapes = {}  # id of an Objective -> (n, p)
        self.held = []  # arrays that something looks into
        self.calls, self.passed = Counter(), Counter()

    # --- chance

    def odd(self, chance=0.08):
        return self.rng.random() < chance

    def pick(self, values):
        return self.rng.choice(values)

    def integer(self, *fitting):
        return self.pick([*INTEGERS, None, 1.5, "1"]) if self.odd() else self.pick(fitting)

    def number(self, *fitting):
        return self.pick([*NUMBERS, None, "1"]) if self.odd() else self.pick(fitting)

    def steps(self):
        return (self.integer(1, 2, 2**20, 2**21, 2**30),)

    def filling(self):
        """A source of random bytes, or what is none: too few, not random, not bytes, an error."""
        if self.odd(0.3):
            return self.pick(
                [bytes, lambda n: b"\xff" * n, lambda n: b"", lambda n: [0] * n, lambda n: 1 / 0, None]
            )
        return os.urandom

    def flag(self):
        return self.pick([None, 2, "yes"]) if self.odd(0.03) else self.pick([False, True])

    def loss(self):
        return (
            self.pick(["", "hinge", None, 3])
            if self.odd(0.03)
            else self.pick(["squared", "logistic", "fractional", "poisson", "tweedie(1.5)", "tweedie(2)"])
        )

    def outputs(self):
        """A loss, and perhaps a number of outputs that is its."""
        if not self.odd(0.25):
            return self.loss(), Named()
        loss = self.loss() if self.odd() else "softmax"
        return loss, Named(outputs=self.pick([2, 3, 3, 5, 12]) if not self.odd() else self.pick(INTEGERS))

    def classes(self):
        return self.pick([*INTEGERS, None, 1.5, True]) if self.odd() else self.pick([0, 2, 2, 3, 7])

    # --- arrays

    def keep(self, *arrays):
        self.held = [*self.held, *arrays][-24:]

    def array(self, *shape):
        a = self.numbers.normal(size=shape)
        a = self.pick(SPOILED)(a, self.rng) if self.odd() else a
        if isinstance(a, np.ndarray):
            self.keep(a)
        return a

    def targets(self, n):
        y = (self.numbers.random(n) < 0.5).astype(np.float64)
        y = self.pick(SPOILED)(y, self.rng) if self.odd() else y
        if isinstance(y, np.ndarray):
            self.keep(y)
        return y

    def weights(self, n):
        return None if self.odd(0.5) else np.abs(w) if isinstance(w := self.array(n), np.ndarray) else w

    def positions(self, size, *, ascending=True):
        """A list of positions below `size`."""
        some = self.rng.sample(range(size), self.rng.randint(0, min(size, self.pick([1, 3, 40, 2000]))))
        if ascending:
            some.sort()
        if self.odd():
            some += [self.pick([*some[:3], *INTEGERS[:11], size - 1, size, size + 1])]
        if self.odd(0.03):
            self.rng.shuffle(some)
        return self.pick([None, "rows", [None], 3, [1.5], some * 2]) if self.odd(0.03) else some

    def rows(self, size):
        some = self.positions(size, ascending=False)
        try:
            a = np.array(some, dtype=np.int64).ravel()
        except (TypeError, ValueError, OverflowError):
            return some
        spoiled = [a.astype(np.int32), a[None], a[::2], misaligned(a), a.astype(np.float64), some, a - 2**31]
        return self.pick(spoiled) if self.odd() else a

    def mask(self, width):
        if self.odd(0.6):
            return None
        seen = self.numbers.random(width) < self.pick([0.0, 0.1, 0.5, 0.95, 1.0])
        spoiled = [seen[:-1], np.append(seen, True), seen[None], seen.astype(float), seen.tolist(), "mask"]
        spoiled += [self.numbers.integers(0, 256, width).astype(np.uint8).view(bool)]
        return self.pick(spoiled) if self.odd() else seen

    def shape(self):
        n = self.pick([0, 1, 2, 7, 30, 257, 600])
        d = self.pick([0, 1, 2, 5, 8, 9, 33, 70])
        if self.odd(0.02):
            n, d = self.pick([(7000, 40), (9, 300), (20, 2600), (30, 70000)])
        return n, d

    def dense(self, n, d):
        X = self.numbers.normal(size=(n, d)).astype(self.pick([np.float64, np.float32]))
        layouts = [
            X,
            np.asfortranarray(X),
            np.repeat(X, 2, axis=0)[::2],
            np.repeat(X, 2, axis=1)[:, ::2],
            X[::-1],
            X[:, ::-1],
            np.broadcast_to(X[:1], X.shape) if n else X,
        ]
        X = self.pick(layouts[:2] if self.odd(0.7) else layouts)
        self.keep(X)
        return (
            self.pick(
                [X[0] if n else X, X[None], X.astype(int), X.astype(object), misaligned(X), X.astype(">f8")]
            )
            if self.odd(0.05)
            else X
        )

    def csr(self, n, d):
        index = self.pick([np.int32, np.int64])
        per_row = self.numbers.integers(0, min(d, self.pick([1, 5, 40])) + 1, n)
        indices = [
            np.sort(self.numbers.choice(d, k, replace=False)) if k else np.empty(0, int) for k in per_row
        ]
        indices = np.concatenate([*indices, np.empty(0, int)]).astype(index)
        indptr = np.append(0, np.cumsum(per_row)).astype(index)
        data = self.numbers.normal(size=indices.size).astype(self.pick([np.float64, np.float32]))
        X = sparse.csr_array((data, indices, indptr), shape=(n, d))
        X.data, X.indices, X.indptr = data, indices, indptr
        self.keep(X.data, X.indices, X.indptr)
        if not self.odd(0.1):
            return X
        parts = {"data": data, "indices": indices, "indptr": indptr, "shape": (n, d)}
        part = self.pick(list(parts))
        if part == "shape":
            parts[part] = self.pick(
                [(n + 1, d), (n - 1, d), (n, 0), (-1, d), (n, -1), (2**63 - 1, 2), (n,), None]
            )
        else:
            a = parts[part]
            spoiled = [a[:-1], np.append(a, a[-1:]), a[::2], a.astype(np.int16), misaligned(a), a[None], None]
            spoiled += [a.astype(np.int64), a.tolist(), a.astype(object), a[:0], self.scribbled(a.copy())]
            parts[part] = self.pick(spoiled)
        return SimpleNamespace(**parts)

    def matrix(self, n, d):
        if self.odd(0.02):
            return self.pick([None, "X", 3.0, [[1.0]], object()])
        return self.pick([self.dense, self.csr])(n, d)

    def block(self, n, d):
        block = (self.matrix(n, d), self.targets(n), self.weights(n))
        spoiled = [block[:2], block[:1], (), None, list(block), (block[0], None, None), (*block, 1)]
        return self.pick(spoiled) if self.odd(0.05) else block

    def blocks(self, d):
        n, other = self.shape()
        d = other if self.odd(0.03) else d
        blocks = [self.block(m, d) for m in self.pick([[n], [n], [n], [n, 5], []])]
        return self.pick([None, (), blocks[0] if blocks else 1]) if self.odd(0.03) else blocks

    # --- what changes meanwhile

    def scribbled(self, a):
        """Others write to an array, if they can."""
        if not (isinstance(a, np.ndarray) and a.flags.writeable and a.size):
            return a
        size = a.size
        if a.dtype.kind in "iu":
            odd = [0, 1, -1, size, size + 1, size // 2, 2**31 - 1, -(2**31), 10**9, 33, 69]
            values = np.array(odd).astype(a.dtype)
        elif a.dtype.kind == "f":
            with np.errstate(over="ignore"):
                values = np.array(NUMBERS).astype(a.dtype)
        else:
            return a
        first = self.rng.randrange(size)
        span = slice(first, first + self.pick([1, 1, 1, 3, size]))
        with suppress(ValueError, OverflowError):
            a.flat[span] = self.pick(
                [self.pick(values), np.arange(a.flat[span].size)[::-1], self.pick(values)]
            )
        return a

    def scribble_during(self, call):
        """The result of a call, while another thread writes to what may be held."""
        stop, arrays = threading.Event(), self.held[-9:]

        def write():
            while not stop.is_set():
                for a in arrays:
                    self.scribbled(a)
                time.sleep(0)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            return call()
        finally:
            stop.set()
            thread.join()

    # --- objects

    def any(self, name):
        """One of a class, or of another, or none."""
        if self.odd(0.03):
            name = self.pick(list(self.objects))
        elif self.odd(0.03):
            return self.pick([None, 1, "object", object()])
        return self.one(name)

    def one(self, name):
        return self.pick(self.objects[name]) if self.objects.get(name) else None

    def store(self, name, value):
        pool = self.objects.setdefault(name, [])
        pool.append(value)
        if len(pool) > 8:
            old = pool.pop(self.rng.randrange(6))
            if not any(old is other for other in pool):
                self.shapes.pop(id(old), None)

    def collect(self, value):
        """Keeps objects of the core for later."""
        if isinstance(value, tuple):
            for part in value:
                self.collect(part)
        elif type(value).__module__ in (CORE.__name__, kernels.__name__):
            name = type(value).__name__
            self.store(f"kernels.{name}" if isinstance(value, KERNELS) else name, value)

    def parameters(self, J):
        return self.shapes.get(id(J), (3, 3))[1]

    def objective(self, p=None):
        """Some Objective, and its (n, p)."""
        J = self.any("Objective") if p is None else self.like(p)
        return J, *self.shapes.get(id(J), (3, 3))

    def like(self, p):
        """An Objective of p parameters, if there is one."""
        fitting = [J for J in self.objects.get("Objective", []) if self.shapes.get(id(J), (0, -1))[1] == p]
        return self.pick(fitting) if fitting and not self.odd() else self.any("Objective")

    # --- calls

    def step(self):
        """One call."""
        name = self.rng.choices(NAMES, WEIGHTS)[0]
        owner, _, member = name.rpartition(".")
        if owner and owner != "kernels" and member not in ("__init__", "restore"):
            target = self.one(owner)
            if target is None:
                return
        else:
            target = None
        if self.held and self.odd(0.25):
            for _ in range(self.pick([1, 1, 4])):
                self.scribbled(self.pick(self.held))
        made = ENTRIES[name](self, target) if ENTRIES[name] else ()
        if made is None:  # nothing of a size that can be asked for
            return
        self.call(name, target, made)

    def call(self, name, target, made):
        """Makes a call, which may raise, and keeps what comes of it."""
        owner, _, member = name.rpartition(".")
        named = made[-1] if made and isinstance(made[-1], Named) else {}
        given = made[:-1] if isinstance(named, Named) else made
        if self.verbose:
            print(name, [getattr(a, "shape", type(a).__name__) for a in given], dict(named), flush=True)
        if owner == "kernels":
            function = getattr(kernels, member)
        elif not owner:
            function = getattr(CORE, member)
        elif member == "__init__":
            function = getattr(CORE, owner)
        elif target is None:
            function = getattr(getattr(CORE, owner), member)
        elif BINDINGS.get(name):

            def function():
                return getattr(target, member)

        else:
            function = getattr(target, member)
        self.calls[name] += 1
        try:
            if self.odd(0.05):
                result = self.scribble_during(lambda: function(*given, **named))
            else:
                result = function(*given, **named)
        except Exception:
            return
        self.passed[name] += 1
        self.collect(result)
        if name == "Objective.__init__":
            self.shapes[id(result)] = (result.rows, given[2].size)

    def run(self, seconds):
        """Calls until the time is over."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.step()


class Named(dict):
    """Arguments given by name."""


def own(f, J, *more, largest=None):
    """theta of an Objective's size, and what follows."""
    p = f.parameters(J)
    return None if largest and p > largest else (f.array(p), *more)


def new_objective(f, _):
    n, d = f.shape()
    fit = f.flag()
    p = d + (fit is True)
    noise = f.array(p) if f.odd(0.2) else None
    mask = f.mask(d)
    if isinstance(mask, np.ndarray) and mask.dtype == bool and mask.shape == (d,):
        p = int(np.count_nonzero(mask)) + (fit is True)
        noise = None
    blocks = f.blocks(d) if f.odd(0.1) else [f.block(n, d)]
    penalty = f.array(p)
    penalty = np.abs(penalty) if isinstance(penalty, np.ndarray) and penalty.dtype == np.float64 else penalty
    loss, named = f.outputs()
    if "outputs" in named and isinstance(penalty, np.ndarray):
        penalty = np.tile(penalty, max(0, min(f.pick([named["outputs"], 3]), 12)))
    return (
        blocks,
        loss,
        penalty,
        fit,
        mask,
        f.number(None, None, 10.0),
        noise,
        f.pick([True, True, False]),
        None,
        f.any("Ball") if f.odd(0.2) else None,
        named,
    )


def new_ball(f, _):
    return f.array(f.shape()[1]), f.number(0.0, 2.0)


def new_anchor(f, _):
    J, _, p = f.objective()
    block = f.integer(None, None, None, 0, p // 2, p + 1)
    return None if p > 400 else (J, f.array(p), block, f.any("Evaluation") if f.odd(0.3) else None)


def new_statistics(f, _):
    A = f.any("Anchor")
    p = getattr(A, "size", 3)
    at = f.any("Evaluation") if f.odd(0.2) else _core.Evaluation(1.0, np.ones(p))
    return None if p > 400 else (f.like(p), A, at, f.number(0.0, 1e-12), f.number(1.0, 10.0))


def restored(f, _):
    p = f.pick([0, 1, 2, 5, 9, 33])
    H = np.eye(p) * f.pick([1.0, 1.0, -1.0, np.nan])
    H = f.pick(SPOILED)(H, f.rng) if f.odd() else H
    loss, named = f.outputs()
    return (
        f.array(p),
        H,
        f.array(p),
        loss,
        f.array(p),
        f.flag(),
        f.any("Tallies") if f.odd(0.2) else _core.Tallies(*[5.0] * 9),
        f.pick([[], [], [1.0], [1.0, 2.0], [np.nan, -1.0]]),
        named,
    )


def new_register(f, _):
    n = f.pick([0, 1, 5, 30, 600])
    y, s = f.targets(n), f.weights(n)
    s = np.ones(n) if s is None else s
    if f.odd(0.6):
        return y, s, f.classes()
    count = f.pick([n, n + 1, 2 * n])
    rows = np.sort(f.rng.sample(range(count), n)).astype(np.int64) if not f.odd(0.2) else f.rows(count)
    return (
        y,
        s,
        f.classes(),
        rows,
        f.pick([None, -1, n - 1, -(2**63), 2**63, 2**62]) if f.odd() else count,
    )


def add_rows(f, L):
    n = f.pick([0, 1, 3, 50])
    s = f.weights(n)
    return f.targets(n), np.ones(n) if s is None else s


def change(f, L):
    n, d = L.base[0].size, f.pick([1, 2, 5, 9])
    m = L.overlay[0].size
    kind = f.pick([f.dense, f.csr])

    def made(size):
        if f.odd(0.05):
            return f.pick(
                [None, f.matrix(size + 1, d), f.matrix(max(0, size - 1), d), f.matrix(size, d + 1), 3]
            )
        if f.odd(0.03):
            raise RuntimeError("a callable may raise")
        if f.odd(0.03):
            f.pick(
                [L.begin, L.rollback, lambda: L.remove(np.arange(2)), lambda: L.add(np.ones(9), np.ones(9))]
            )()
        return kind(size, d)

    X = f.matrix(n + f.pick([-1, 1]) if n else 1, d) if f.odd(0.1) else kind(n, d)
    overlay = f.pick([None, 3]) if f.odd(0.02) else lambda: made(m)
    take = f.pick([None, 3]) if f.odd(0.02) else lambda places: made(len(places))
    return X, overlay, take, f.mask(d)


def stream(f, L):
    S = f.any("AnchoredStatistics")
    rows = f.positions(L.row_count, ascending=False)
    m = len(rows) if isinstance(rows, list) else 1
    targets = f.pick([[0.0] * m, [float("nan")] * m, [1.0], rows])
    ends = f.pick([list(range(1, m + 1)), [m], [], [1, 1], f.positions(m + 1)])
    theta = f.array(np.size(getattr(S, "penalty", 3)))
    limits = f.number(0.0, 1e-3, 1e9), f.number(0.0, 1e-3, 1e9)
    weights = None if f.odd() else f.array(m)
    return *change(f, L), None, S, theta, *limits, rows, targets, ends, f.flag(), weights


def minimize(f, _):
    anchor = f.any("Anchor") if f.odd(0.4) else None
    J, n, p = f.objective(getattr(anchor, "size", None))
    start = _core.Evaluation(1.0, np.ones(p)) if f.odd(0.2) else f.any("Evaluation") if f.odd(0.1) else None
    theta = np.zeros(p) if f.odd(0.5) else f.array(p)
    block = f.integer(None, None, None, 0, p // 2)
    steps = f.integer(0, 1, 5, 20)
    given = (J, theta, f.number(1e-9, 1e-3, 0.0), steps, anchor, start, block, f.flag())
    return None if p > 70 or n > 1000 else given


def solve(f, _):
    A = f.any("Anchor")
    J, n, p = f.objective(getattr(A, "size", None))
    curvature = f.array(n) if f.odd(0.2) else np.abs(f.numbers.normal(size=n))
    products = f.pick([-(2**31), -1, 0, None, 1.5]) if f.odd() else f.pick([1, 5, 50])
    return None if p > 400 else (J, curvature, f.array(p), A, f.number(0.0, 1e-9, 1.0), products)


def sides(f, p):
    """Objectives of p parameters before and after, or none."""
    return [None if f.odd(0.2) else f.like(p) for _ in range(2)]


def side(f, d):
    return None if f.odd(0.2) else f.block(f.pick([0, 1, 3, 40]), d)


def difference(f, _):
    p = f.objective()[2]
    return *sides(f, p), f.array(p)


def gram(f, _):
    n, d = f.shape()
    return None if d > LARGEST else (f.matrix(n, d), f.array(n))


def edit_statistics(f, S):
    p = S.penalty.size
    d = max(0, p - S.fit_intercept)
    before, after = (None if f.odd(0.3) else f.blocks(d) for _ in range(2))
    return before, after, f.mask(d), f.array(p), f.flag()


def factor_matrix(f, _):
    p = f.pick([0, 1, 2, 7, 8, 9, 33, 150, 300])
    H = np.eye(p) * f.pick([1.0, 3.0, 3.0, -1.0, 0.0]) + f.pick([0.0, 0.5])
    return ((f.pick(SPOILED)(H, f.rng) if f.odd() else H),)


def of_factor(*shapes, more=0):
    def make(f, L):
        p = L.shape[0] + more
        return (f.array(p, *f.pick(shapes)),)

    return make


def objective_data(f, *, targets=True):
    """X, y and theta of a kernel, and what is given by name."""
    n, d = f.pick([0, 1, 7, 30, 300]), f.pick([0, 1, 5, 9, 70])
    fit = f.flag()
    named = Named(alpha=f.number(1.0), loss=f.loss(), fit_intercept=fit, sample_weight=f.weights(n))
    X, theta = f.matrix(n, d), f.array(d + (fit is True))
    return (X, f.targets(n), theta, named) if targets else (X, theta, named)


def with_v(f, _):
    X, theta, named = objective_data(f, targets=False)
    return X, theta, f.array(np.size(theta)), named


TALLIES = [name for name, value in vars(_core.Tallies).items() if isinstance(value, property)]
ENTRIES = {
    "CholeskyFactor.__init__": factor_matrix,
    "CholeskyFactor.solve": of_factor((), (1,), (3,), (0,)),
    "CholeskyFactor.update": of_factor((), (1,), (3,), (0,), (90,)),
    "CholeskyFactor.downdate": of_factor((), (1,), (3,), (0,), (90,)),
    "CholeskyFactor.append": of_factor((), more=1),
    "CholeskyFactor.delete": lambda f, L: (f.integer(0, L.shape[0] - 1, L.shape[0]),),
    "CholeskyFactor.lower": None,
    "CholeskyFactor.shape": None,
    "Evaluation.__init__": lambda f, _: (f.number(1.0), f.array(f.pick([0, 1, 5, 9, 33]))),
    "Evaluation.floor": None,
    "Evaluation.gradient": None,
    "Evaluation.residual": None,
    "Evaluation.value": None,
    "TouchedRows.__init__": lambda f, _: (),
    "TouchedRows.any": None,
    "TouchedRows.any_before": None,
    "TouchedRows.edit": lambda f, _: (
        S := f.any("AnchoredStatistics"),
        f.array(np.size(getattr(S, "penalty", 3))),
    ),
    "TouchedRows.objectives": lambda f, _: ((made := f.outputs())[0], f.flag(), made[1]),
    "TouchedRows.gained_norm": lambda f, _: (f.flag(),),
    "RowRegister.__init__": new_register,
    "RowRegister.begin": lambda f, _: (),
    "RowRegister.rollback": lambda f, _: (),
    "RowRegister.require": lambda f, L: (f.rows(L.row_count),),
    "RowRegister.remove": lambda f, L: (f.rows(L.row_count),),
    "RowRegister.set_targets": lambda f, L: (
        r := f.rows(L.row_count),
        f.targets(m := f.pick([np.size(r), 1])),
        None if f.odd() else f.array(m),
    ),
    "RowRegister.relocate": lambda f, L: (f.rows(L.row_count),),
    "RowRegister.add": add_rows,
    "RowRegister.change": change,
    "RowRegister.stream": stream,
    "RowRegister.touched": lambda f, _: (),
    "RowRegister.compacted": lambda f, _: (),
    "RowRegister.without_class": lambda f, _: (f.pick([-1, 0, 1, 2, 5]),),
    "RowRegister.live": lambda f, _: (),
    "RowRegister.of": lambda f, L: (f.rows(L.row_count),),
    **{
        f"RowRegister.{name}": None
        for name in (
            "row_count",
            "edited_rows",
            "weighted_rows",
            "abandoned_places",
            "wants_compaction",
            "counts",
            "base",
            "overlay",
        )
    },
    "Ball.__init__": new_ball,
    "Ball.around": lambda f, ball: (
        f.matrix(f.pick([0, 1, 5]), ball.centre.size),
        None,
        f.mask(ball.centre.size) if f.odd(0.3) else None,
    ),
    **{f"Ball.{name}": None for name in ("centre", "radius")},
    "Objective.__init__": new_objective,
    "Objective.evaluate": own,
    "Objective.evaluate_with_hessian": lambda f, J: own(f, J, largest=LARGEST),
    "Objective.hessian": lambda f, J: own(f, J, largest=LARGEST),
    "Objective.hvp": lambda f, J: own(f, J, f.array(f.parameters(J))),
    "Objective.curvature": own,
    "Objective.predict": own,
    "Objective.gram_norm_bound": lambda f, _: (),
    "Objective.kink_gap": own,
    "Objective.lengths": lambda f, _: (),
    "Objective.rounding_floor": own,
    "Objective.distance": lambda f, J: (
        *own(f, J),
        f.any("Evaluation"),
        f.number(0.0, 1e-9),
        f.number(1.0, float("inf")),
        f.flag(),
    ),
    **{
        f"Objective.{name}": None
        for name in ("anchor_cost", "quadratic", "rows", "entries", "outputs", "parameters")
    },
    "Anchor.__init__": new_anchor,
    "Anchor.edit": lambda f, A: sides(f, A.size),
    "Anchor.drop": lambda f, A: (f.positions(A.size),),
    "Anchor.move_to": lambda f, A: (f.array(A.size),),
    "Anchor.solve": lambda f, A: (f.array(A.size),),
    **{f"Anchor.{name}": None for name in ("size", "complete", "factored", "cancelled", "theta", "hessian")},
    "Anchor.factored_from_rows": None,
    "Anchor.has_factor": None,
    "Tallies.__init__": lambda f, _: tuple(f.number(5.0) for _ in range(9)),
    **{f"Tallies.{name}": None for name in TALLIES},
    "AnchoredStatistics.__init__": new_statistics,
    "AnchoredStatistics.restore": restored,
    "AnchoredStatistics.edit": edit_statistics,
    "AnchoredStatistics.replace": lambda f, S: edit_statistics(f, S)[:2],
    "AnchoredStatistics.factor": lambda f, _: (),
    "AnchoredStatistics.fold": lambda f, _: (),
    "AnchoredStatistics.round_up": lambda f, _: (),
    "AnchoredStatistics.move_to": lambda f, S: (f.array(S.penalty.size),),
    "AnchoredStatistics.penalise": lambda f, S: (f.array(S.penalty.size),),
    "AnchoredStatistics.measure": lambda f, S: (f.array(S.penalty.size), f.any("Evaluation"), f.number(1.0)),
    "AnchoredStatistics.measure_beside": lambda f, S: (f.any("Objective"), f.array(S.penalty.size)),
    "AnchoredStatistics.measure_rows": lambda f, _: (f.any("Objective"),),
    "AnchoredStatistics.merge": lambda f, _: (f.any("AnchoredStatistics"),),
    "AnchoredStatistics.drop": lambda f, S: (f.positions(S.penalty.size),),
    "AnchoredStatistics.step": lambda f, _: (f.number(0.0, 1e-3, float("inf")),),
    "AnchoredStatistics.coefficient_distance": lambda f, _: (),
    **{
        f"AnchoredStatistics.{name}": lambda f, S: (
            f.array(np.size(S.penalty)),
            f.any("Evaluation"),
            f.number(0.0, 1e-9),
        )
        for name in ("distance", "coefficient_distance_at")
    },
    **{
        f"AnchoredStatistics.{name}": None
        for name in (
            "anchor",
            "second",
            "at",
            "gradient_error",
            "loss",
            "outputs",
            "penalty",
            "fit_intercept",
            "edits",
        )
    },
    "AnchoredStatistics.tallies": None,
    "AnchoredStatistics.row_lengths": None,
    "AnchoredStatistics.second_error": None,
    **{
        f"Minimum.{name}": None
        for name in ("theta", "at", "value", "gradient", "residual", "floor", "largest_norm", "iterations")
    },
    "Minimum.__init__": lambda f, _: (),
    "Minimum.passes": None,
    "Minimum.anchor": None,
    "difference": difference,
    "gradient_difference": lambda f, _: (
        side(f, d := f.pick([0, 1, 5, 9])),
        side(f, d),
        f.array(d + (fit := f.pick([False, True]))),
        f.loss(),
        fit,
    ),
    "gram": gram,
    "add_normal": lambda f, _: (
        f.array(f.pick([0, 1, 5, 600])),
        *f.steps(),
        f.integer(-40, -1074, 3),
        f.filling(),
    ),
    "normal": lambda f, _: (f.pick([-1, 0, 1, 7, 600, None, 1.5]), *f.steps(), f.filling()),
    "round_with_offset": lambda f, _: (
        f.array(f.pick([0, 1, 5, 600])),
        *f.steps(),
        f.integer(-40, -1074, 3),
        f.filling(),
    ),
    "is_canonical": lambda f, _: (f.csr(*f.shape()) if f.odd(0.9) else f.matrix(*f.shape()),),
    "is_finite": lambda f, _: (f.pick([f.array, f.dense])(*f.shape()),),
    "largest_norm": lambda f, _: (f.matrix(*f.shape()),),
    "rows_with_values": lambda f, _: (f.csr(*(shape := f.shape())), f.positions(shape[1])),
    "minimize": minimize,
    "solve": solve,
    "gathers": lambda f, _: (),
    "set_gathers": lambda f, _: (f.flag(),),
    "threads": lambda f, _: (),
    "set_threads": lambda f, _: (f.integer(1, 2, 3) if f.odd(0.1) else f.pick([1, 2, 3]),),
    "reset_after_fork": lambda f, _: (),
    "arithmetic_rate": lambda f, _: (),
    "reading_rate": lambda f, _: (f.array(f.pick([0, 1, 1000])),),
    "supported_isas": lambda f, _: (),
    "use_kernels": lambda f, _: (_core._kernels.table if f.odd() else f.pick([None, 1, object()]),),
    "compiled_with": lambda f, _: (),
    # What is public, on the same arguments.
    "kernels.loss_and_gradient": lambda f, _: objective_data(f),
    "kernels.gradient": lambda f, _: objective_data(f),
    "kernels.loss_gradient_and_hessian": lambda f, _: objective_data(f),
    "kernels.rounding_floor": lambda f, _: objective_data(f),
    "kernels.hessian": lambda f, _: objective_data(f, targets=False),
    "kernels.hvp": with_v,
    "kernels.gradient_difference": lambda f, _: (
        side(f, d := f.pick([0, 1, 5, 9])),
        side(f, d),
        f.array(d),
        Named(loss=f.loss()),
    ),
    "kernels.gram": gram,
    "kernels.CholeskyFactor": factor_matrix,
    "kernels.AnchoredStatistics": lambda f, _: objective_data(f),
    "kernels.CholeskyFactor.solve": of_factor((), (1,), (3,), (0,)),
    "kernels.CholeskyFactor.update": of_factor((), (1,), (3,), (0,), (90,)),
    "kernels.CholeskyFactor.downdate": of_factor((), (1,), (3,), (0,), (90,)),
    "kernels.CholeskyFactor.append": of_factor((), more=1),
    "kernels.CholeskyFactor.delete": lambda f, L: (f.integer(0, L.shape[0] - 1, L.shape[0]),),
    "kernels.AnchoredStatistics.add": lambda f, S: f.block(f.pick([0, 1, 5]), S.anchor.size),
    "kernels.AnchoredStatistics.subtract": lambda f, S: f.block(f.pick([0, 1, 5]), S.anchor.size),
    "kernels.AnchoredStatistics.merge": lambda f, _: (f.any("kernels.AnchoredStatistics"),),
    "kernels.AnchoredStatistics.theta": lambda f, _: (),
    "kernels.AnchoredStatistics.residual_bound": lambda f, _: (),
}
BINDINGS = bindings()
KERNELS = (kernels.CholeskyFactor, kernels.AnchoredStatistics)
NAMES = list(ENTRIES)
RARE = {
    "reset_after_fork": 0.02,
    "arithmetic_rate": 0.02,
    "compiled_with": 0.1,
    "use_kernels": 0.02,
    "supported_isas": 0.1,
}
WEIGHTS = [
    RARE.get(name) or (0.3 if BINDINGS.get(name) else 4.0 if name.endswith("__init__") else 2.0)
    for name in NAMES
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true")
    asked = parser.parse_args()
    missing = BINDINGS.keys() - ENTRIES.keys()
    if missing:
        raise SystemExit(f"no arguments are made for {', '.join(sorted(missing))}")
    faulthandler.enable()
    faulthandler.dump_traceback_later(asked.seconds + 120.0, exit=True)  # some call does not return
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    fuzzer = Fuzzer(asked.seed, verbose=asked.verbose)
    fuzzer.run(asked.seconds)
    faulthandler.cancel_dump_traceback_later()
    for name, calls in sorted(fuzzer.calls.items()):
        print(f"{name:40s} {calls:6d} calls, {fuzzer.passed[name]:6d} returned")
    print(f"seed {asked.seed}: {fuzzer.calls.total()} calls of {len(fuzzer.calls)} of {len(NAMES)} bindings")


if __name__ == "__main__":
    main()
