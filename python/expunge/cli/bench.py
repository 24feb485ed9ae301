"""``expunge bench``: the kernels on this machine, beside NumPy and SciPy."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from .. import benchmark


def require_writable(path: Path) -> None:
    """Refuses a file before the time is spent that its content takes."""
    new = not path.exists()
    try:
        path.open("a").close()
    except OSError as error:
        raise SystemExit(f"{path}: {error.strerror}") from None
    if new:
        path.unlink()


def bench(options: argparse.Namespace) -> int:
    """Times the kernels beside their rivals; a table on the terminal, JSON and a plot if asked."""
    chosen = [case for case in benchmark.cases() if options.filter in str(case)]
    if not chosen:
        kernel_names = dict.fromkeys(case.kernel for case in benchmark.cases())
        raise SystemExit(f"no case has {options.filter!r} in its name: there are {', '.join(kernel_names)}")
    to_stdout = options.json == Path("-")
    if options.json is not None and not to_stdout:
        require_writable(options.json)
    try:
        if options.plot is not None:
            benchmark.require_plot(options.plot)
            require_writable(options.plot)
        old = None if options.against is None else benchmark.read(options.against)
    except OSError as error:
        raise SystemExit(f"{options.against}: {error.strerror}") from None
    except (ImportError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None

    stream = sys.stderr if to_stdout else sys.stdout
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="replace")  # a terminal may not know the letters of a formula
    show = partial(print, file=stream, flush=True)
    results = []
    with benchmark.use_threads(1):
        machine = benchmark.machine()
        show(*benchmark.header(machine), sep="\n")
        show("ratio: the rival's time over ours, the median over rounds; above 1 ours is faster\n")
        show(f"{'kernel':<30}{'shape':<14}{'layout':<9}{'ours, ms':>9}  {'rival':<26}ratio")
        for case in chosen:
            try:
                results.append(benchmark.run(case, options.seconds))
            except benchmark.DisagreementError as error:
                raise SystemExit(f"error: {error}") from None
            show("\n".join(lines_of(results[-1])))
    if old is not None:
        show(*lines_against(options.against, *old, machine, results), sep="\n")
    text = benchmark.report(machine, options.seconds, results)
    if to_stdout:
        print(text, end="")
    elif options.json is not None:
        options.json.write_text(text, encoding="utf-8")
    if options.plot is not None:
        benchmark.plot(options.plot, machine, results)
    return 0


def lines_of(result: benchmark.Result) -> list[str]:
    """A line of the table for each rival, the fastest first."""
    first = f"{result.kernel:<30}{place_of(result)}{result.milliseconds:>9.4g}  "
    starts = [first, *[" " * len(first)] * (len(result.rivals) - 1)]
    return [
        f"{start}{rival.name:<26}{rival.ratio:.2f}"
        for start, rival in zip(starts, result.rivals, strict=True)
    ]


def place_of(result: benchmark.Result) -> str:
    """Shape and layout, as wide as their columns."""
    n, d = result.shape
    return f"{f'{n} x {d}':<14}{result.layout:<9}"


def lines_against(
    path: Path,
    old_machine: dict[str, Any],
    old_results: Sequence[benchmark.Result],
    machine: dict[str, Any],
    results: Sequence[benchmark.Result],
) -> list[str]:
    """What has changed since that file was written."""
    lines = [
        f"\nagainst {path}, expunge {old_machine.get('expunge')}: "
        "how many times as fast ours is now, by the ratios to the same rivals",
        *(f"not the same: {what}" for what in benchmark.differing(old_machine, machine)),
        f"{'kernel':<30}{'shape':<14}{'layout':<9}{'then, ms':>9}{'now, ms':>10}  as fast",
    ]
    for change in benchmark.changes(old_results, results):
        times = f"{change.milliseconds_then:>9.4g}{change.now.milliseconds:>10.4g}"
        lines.append(f"{change.now.kernel:<30}{place_of(change.now)}{times}  {change.faster:.2f}")
    return lines


def positive(text: str) -> float:
    """A number above 0, for argparse."""
    number = float(text)
    if not 0.0 < number < float("inf"):
        raise ValueError
    return number


def add_to(commands: Any) -> None:
    """The command and its options."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "bench", help="the kernels on this machine, beside NumPy and SciPy"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures; - for standard output")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="a figure, by matplotlib: .svg, .png, .pdf")
    parser.add_argument(
        "--filter", default="", metavar="TEXT", help='cases with it in "kernel, shape, layout"'
    )
    parser.add_argument(
        "--seconds", type=positive, default=1.0, metavar="S", help="for each case (default 1)"
    )
    parser.add_argument("--against", type=Path, metavar="FILE", help="compare with what --json wrote before")
    parser.set_defaults(run=bench)
