"""What the suites found, in Markdown: on the terminal, and a file for each machine and suite."""

import inspect
import os
import re
import shlex
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import sklearn

from expunge import benchmark

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Suite:
    """A suite's docstring, the machine, and what its cases found: lines of text and rows of one table."""

    about: str
    machine: dict[str, Any]
    remarks: list[str] = field(default_factory=list)
    rows: list[dict[str, str]] = field(default_factory=list)

    def origin(self):
        """What the figures depend on, the command and the load left out."""
        head = commit()
        versions = [*benchmark.header(self.machine), f"scikit-learn {sklearn.__version__}"]
        return [*versions, f"commit {head}"] if head else versions

    def markdown(self, runs, old=""):
        """The file. Cases of an old one that were not run again are kept, if it depends on the same."""
        origin, remarks, rows = self.origin(), self.remarks, self.rows
        lines = old.splitlines()
        before = [line.removeprefix("    ") for line in lines if line.startswith("    ")]
        if before[: len(origin)] == origin and re.match(r"commit \w+$", origin[-1]):
            runs = list(dict.fromkeys([*before[len(origin) :], *runs]))
            remarks = replaced([line[2:] for line in lines if line.startswith("- ")], remarks, case_of_remark)
            rows = replaced(list(rows_of(lines)), rows, case_of_row)
        title, _, rest = inspect.cleandoc(self.about).partition("\n")
        parts = [
            f"# {title.removesuffix('.')}",
            rest.strip(),
            "\n".join(f"    {line}" for line in [*origin, *runs]),
            "\n".join(f"- {remark}" for remark in remarks),
            summary(rows),
            "\n".join(table(rows)),
        ]
        return "\n\n".join(filter(None, parts)) + "\n"


def case_of_remark(remark):
    return remark.partition(": ")[0]


def case_of_row(row):
    return next(iter(row.values()))


def replaced(old, new, case_of):
    """Old entries with those of the new cases in their place, and new cases after them."""
    entries = {}
    for found in (old, new):
        cases = {}
        for entry in found:
            cases.setdefault(case_of(entry), []).append(entry)
        entries |= cases
    return [entry for case in entries.values() for entry in case]


def table(rows):
    """Markdown, in lines."""
    if rows:
        yield f"| {' | '.join(rows[0])} |"
        yield "|" + "---|" * len(rows[0])
    for row in rows:
        yield f"| {' | '.join(row.values())} |"


def rows_of(lines):
    """The rows of the table among lines of Markdown, as dictionaries by its heading."""
    cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if line.startswith("|")]
    for row in cells[2:]:
        yield dict(zip(cells[0], row, strict=True))


def summary(rows):
    """What a ratio is, and the cases in which it is below 1."""
    if not rows or "ratio" not in rows[0]:
        return ""
    lost = [f"{r['case']} beside {r['rival']} ({r['ratio']})" for r in rows if float(r["ratio"]) < 1.0]
    return (
        "Ratio: the rival's time over ours, the median over rounds; above 1 ours is faster.\n"
        f"Below 1: {'; '.join(lost) or 'none'}."
    )


def run_of(arguments):
    """The command of a run that begins, and what else the machine does."""
    data = "EXPUNGE_DATA=... " if os.environ.get("EXPUNGE_DATA") else ""
    load = f", begun at load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{data}python -m pytest {shlex.join(arguments)}{load}"


@cache
def commit():
    """The commit that is checked out, and whether files differ from it; "" outside of a clone."""

    def git(*arguments):
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    try:
        head = git("rev-parse", "--short=10", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results")
    except FileNotFoundError:  # no git
        return ""
    return f"{head}, with changes" if changed else head


def folder_of(machine):
    """A name for the machine: its processor, cores, instruction set, and OpenBLAS's kernels if chosen."""
    cpu = re.sub(r"\((r|tm)\)|\bcpu\b|\bprocessor\b|@.*", " ", machine["cpu"].lower())
    parts = [cpu, f"{machine['cores']} cores", machine["isa"], machine["openblas_coretype"] or ""]
    return re.sub(r"\W+", "-", " ".join(parts).lower()).strip("-")


def write(folder, suites, run):
    """FOLDER/machine/suite.md for each suite; files of other suites stay. Returns their paths."""
    paths = []
    for name, suite in suites.items():
        path = Path(folder) / folder_of(suite.machine) / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        path.write_text(suite.markdown([run], old), encoding="utf-8")
        paths.append(path)
    return paths
