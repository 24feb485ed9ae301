"""Ours beside its rivals: answers checked first, then timed in turn, round by round, in one process."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
import scipy
import sklearn
from threadpoolctl import threadpool_info, threadpool_limits

import expunge

LINES = []
REMARKS = []


@dataclass
class Line:
    case: str
    milliseconds: float
    rival: str
    ratio: float
    note: str


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    with threadpool_limits(1):
        yield


@pytest.fixture
def compare(benchmark, request):
    """compare(ours, rivals, ...): times both sides alternately and keeps the median of the ratios.

    ours and every rival take what `fresh()` returns (nothing, without it) and may change it: it is made anew
    for each call, outside of the clock. `check(ours, rival)` compares the first answers.
    """

    def run(ours, rivals, *, check, fresh=None, notes=None, rounds=15):
        fresh = fresh or (lambda: ())
        expected = ours(*fresh())
        for name, rival in rivals.items():
            check(expected, rival(*fresh()), name)
        spent = {name: [] for name in rivals}

        def setup():
            for name, rival in rivals.items():
                arguments = fresh()
                started = perf_counter()
                rival(*arguments)
                spent[name].append(perf_counter() - started)
            return fresh(), {}

        benchmark.pedantic(ours, setup=setup, rounds=rounds, iterations=1, warmup_rounds=1)
        own = np.array(benchmark.stats.stats.data)
        case = request.node.name.removeprefix("test_")
        for name, seconds in spent.items():
            ratio = float(np.median(np.array(seconds)[-own.size :] / own))
            benchmark.extra_info[name] = ratio
            LINES.append(Line(case, 1e3 * float(np.median(own)), name, ratio, (notes or {}).get(name, "")))

    return run


@pytest.fixture
def record_line():
    """record_line(text): a line of its own above the table."""
    return REMARKS.append


def machine():
    """What the figures depend on."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    build = expunge.build_info()
    version = expunge.__version__
    blas = {
        f"{pool['internal_api']} {pool.get('version')} ({pool.get('architecture', '?')} kernels)"
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    }
    return [
        f"machine: {model}, {os.cpu_count()} cores; Python {platform.python_version()}",
        f"expunge {version}, {build['isa']}, Eigen {build['eigen']}, {build['compiler']}, 1 thread",
        f"NumPy {np.__version__}, SciPy {scipy.__version__}, scikit-learn {sklearn.__version__}; "
        f"BLAS {', '.join(sorted(blas))}, 1 thread",
    ]


def pytest_terminal_summary(terminalreporter):
    write = terminalreporter.write_line
    if not (LINES or REMARKS):
        return
    write("")
    for line in machine():
        write(line)
    for remark in REMARKS:
        write(remark)
    if not LINES:
        return
    write("Ratio: the rival's time over ours, median over rounds; above 1 ours is faster.")
    write("")
    write("| case | ours, ms | rival | ratio | note |")
    write("|---|---|---|---|---|")
    for line in LINES:
        write(f"| {line.case} | {line.milliseconds:.3g} | {line.rival} | {line.ratio:.2f} | {line.note} |")
