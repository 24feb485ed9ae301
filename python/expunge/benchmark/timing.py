"""Ours and its rivals in turn, on one thread each, once their answers agree; and the machine they run on."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import scipy

from .. import __version__
from .._core import build_info
from ..threads import get_num_threads, set_num_threads
from .tasks import Answer, Case

AGREEMENT = 1e-11  # of the largest entry: how far apart answers may be
MIN_ROUNDS, MAX_ROUNDS = 3, 1000


class DisagreementError(ArithmeticError):
    """A kernel and a rival give different answers."""


@dataclass(frozen=True)
class Rival:
    """One rival's median time, and its time over ours: median and quartiles over the rounds."""

    name: str
    milliseconds: float
    ratio: float
    quartiles: tuple[float, float]


@dataclass(frozen=True)
class Result:
    """A case that was timed; the fastest rival first."""

    kernel: str
    shape: tuple[int, int]
    layout: str
    milliseconds: float
    rounds: int
    rivals: tuple[Rival, ...]


def run(case: Case, seconds: float) -> Result:
    """Compares the answers, then times all sides in turn for about so many seconds, three rounds at least.

    Raises
    ------
    DisagreementError
        Names the kernel, the rival and how far apart they are.
    """
    task = case.task(*case.data())
    expected = task.ours(*task.fresh())
    for name, rival in task.rivals.items():
        distance = task.distance(expected, rival())
        if not distance <= AGREEMENT:
            raise DisagreementError(
                f"{case}: the kernel and its rival {name!r} differ by {distance:.1e} of the largest entry, "
                f"more than {AGREEMENT:.0e}"
            )
    spent: dict[str, list[float]] = {name: [] for name in ("", *task.rivals)}
    sides: list[tuple[str, Answer]] = [("", task.ours), *task.rivals.items()]
    started, rounds = perf_counter(), 0
    while rounds < MIN_ROUNDS or (rounds < MAX_ROUNDS and perf_counter() - started < seconds):
        for name, side in sides:
            arguments = () if name else task.fresh()
            begun = perf_counter()
            side(*arguments)
            spent[name].append(perf_counter() - begun)
        sides = [*sides[1:], sides[0]]  # nobody always comes after the same other
        rounds += 1
    own = np.array(spent.pop(""))
    rivals = []
    for name, times in spent.items():
        low, ratio, high = map(float, np.quantile(np.array(times) / own, [0.25, 0.5, 0.75]))
        rivals.append(Rival(name, 1e3 * float(np.median(times)), ratio, (low, high)))
    return Result(
        case.kernel,
        case.shape,
        case.layout,
        1e3 * float(np.median(own)),
        rounds,
        tuple(sorted(rivals, key=lambda rival: rival.ratio)),
    )


# --- the machine


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    """So many for our kernels, and for BLAS where threadpoolctl is there; :func:`machine` says whether."""
    control, ours = _threadpoolctl(), get_num_threads()
    set_num_threads(count)
    try:
        with nullcontext() if control is None else control.threadpool_limits(count):
            yield
    finally:
        set_num_threads(ours)


def _threadpoolctl() -> Any:
    try:
        return import_module("threadpoolctl")
    except ImportError:
        return None


def machine() -> dict[str, Any]:
    """What the figures depend on, as JSON can hold it; what cannot be known is None."""
    build = build_info()
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "expunge": __version__,
        "isa": build["isa"],
        "eigen": build["eigen"],
        "compiler": build["compiler"],
        "threads": get_num_threads(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "blas": _blas(),
        "openblas_coretype": os.environ.get("OPENBLAS_CORETYPE"),
        "threadpoolctl": getattr(_threadpoolctl(), "__version__", None),
    }


def _cpu() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _blas() -> list[dict[str, Any]]:
    """Name, version, chosen kernels and threads of each BLAS in the process."""
    control, found = _threadpoolctl(), []
    if control is not None:
        found = [
            {
                "name": pool["internal_api"],
                "version": pool.get("version"),
                "architecture": pool.get("architecture"),
                "threads": pool["num_threads"],
            }
            for pool in control.threadpool_info()
            if pool["user_api"] == "blas"
        ]
    if not found:  # or it is one that threadpoolctl does not know
        configurations = [np.show_config(mode="dicts"), scipy.show_config(mode="dicts")]
        built = [(shown or {}).get("Build Dependencies", {}).get("blas", {}) for shown in configurations]
        found = [
            {"name": blas.get("name"), "version": blas.get("version"), "architecture": None, "threads": None}
            for blas in built
        ]
    return sorted(found, key=lambda blas: (str(blas["name"]), str(blas["version"])))


def header(machine: dict[str, Any]) -> list[str]:
    """The machine in lines of text."""
    blas = ", ".join(
        f"{one['name']} {one['version']} ({one['architecture'] or 'unknown'} kernels)"
        for one in machine["blas"]
    )
    threads = [one["threads"] for one in machine["blas"]]
    if None in threads:
        limit = "BLAS threads not limited"
        if machine["threadpoolctl"] is None:
            limit += ": pip install threadpoolctl, which does it"
    else:
        limit = _count(max(threads))
    coretype = machine["openblas_coretype"]  # kernels that the user chose, in place of OpenBLAS
    choice = f"with OPENBLAS_CORETYPE={coretype}" if coretype else "as shipped"
    return [
        f"machine: {machine['cpu']}, {machine['cores']} cores; Python {machine['python']}",
        f"expunge {machine['expunge']}, {machine['isa']}, Eigen {machine['eigen']}, {machine['compiler']}, "
        f"{_count(machine['threads'])}",
        f"NumPy {machine['numpy']}, SciPy {machine['scipy']}; BLAS {choice}: {blas or 'unknown'}, {limit}",
    ]


def _count(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"
