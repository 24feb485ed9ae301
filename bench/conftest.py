"""Ours beside its rivals: answers checked first, then timed in turn, round by round, in one process."""

import pkgutil
from time import sleep

import numpy as np
import pytest
import report

from expunge import benchmark as tasks
from expunge import get_num_threads

SUITES = {}  # name -> report.Suite, in the order in which they ran


def pytest_addoption(parser):
    parser.addoption(
        "--results", metavar="FOLDER", help="a file for each machine and suite, FOLDER/machine/suite.md"
    )


def pytest_configure(config):
    report.commit()  # now, before somebody commits something else
    config.run_line = report.run_of(config.invocation_params.args)


def suite_of(request):
    name = request.path.stem.removeprefix("bench_")
    if name not in SUITES:
        SUITES[name] = report.Suite(request.module.__doc__, tasks.machine())  # its threads are those in use
    return SUITES[name]


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    with tasks.use_threads(1):
        yield


@pytest.fixture
def clock(request):
    """The clock in seconds that `--benchmark-timer` names."""
    return pkgutil.resolve_name(request.config.getoption("benchmark_timer"))


@pytest.fixture
def compare(benchmark, clock, request):
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
                started = clock()
                rival(*arguments)
                spent[name].append(clock() - started)
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
            row = {
                "case": case,
                "ours, ms": f"{1e3 * float(np.median(own)):.3g}",
                "rival": name,
                "ratio": f"{ratio:.2f}",
                "note": (notes or {}).get(name, ""),
            }
            suite_of(request).rows.append(row)

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
def record_line(request):
    """record_line("case: text"): a line of its own above the table."""
    return suite_of(request).remarks.append


@pytest.fixture
def record_row(request):
    """record_row(row): a row of the suite's table, a text for each column."""
    return suite_of(request).rows.append


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    if not SUITES:
        return
    for suite in SUITES.values():
        terminalreporter.write_line("\n" + suite.markdown([config.run_line]))
    folder = config.getoption("--results")
    if folder is None:
        return
    if exitstatus != pytest.ExitCode.OK:
        terminalreporter.write_line(f"nothing is written to {folder}: not every case passed")
        return
    for path in report.write(folder, SUITES, config.run_line):
        terminalreporter.write_line(f"written: {path}")
