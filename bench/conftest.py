"""Ours beside its rivals: answers checked first, then timed in turn, round by round, in one process."""

from dataclasses import dataclass
from time import perf_counter, sleep

import numpy as np
import pytest
import sklearn

from expunge import benchmark as tasks
from expunge import get_num_threads

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
    with tasks.use_threads(1):
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
            if get_num_threads() > 1:
                sleep(0.15)  # OpenBLAS's threads look for work for up to 0.1 s, on the cores of ours
                ours(*fresh())  # and this rest cools caches
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
def compare_task(compare):
    """compare_task(task, rounds=15): the same for a task of `expunge.benchmark`."""

    def run(task, rounds=15):
        def check(ours, theirs, name):
            assert task.distance(ours, theirs) <= tasks.AGREEMENT, name

        rivals = {name: lambda *_, rival=rival: rival() for name, rival in task.rivals.items()}
        compare(task.ours, rivals, check=check, fresh=task.fresh, rounds=rounds)

    return run


@pytest.fixture
def record_line():
    """record_line(text): a line of its own above the table."""
    return REMARKS.append


def pytest_terminal_summary(terminalreporter):
    write = terminalreporter.write_line
    if not (LINES or REMARKS):
        return
    write("")
    with tasks.use_threads(1):
        machine = tasks.machine()
    for line in tasks.header(machine):
        write(line)
    write(f"scikit-learn {sklearn.__version__}")
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
