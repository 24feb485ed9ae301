"""What the suites found, in Markdown: on the terminal, and a file for each machine and suite."""

import inspect
import os
import re
import shlex
import subprocess
from dataclasses import dataclass, field
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

    def lines(self):
        """Remarks, the cases that ours loses, and the table."""
        if self.remarks:
            yield from (f"- {remark}" for remark in self.remarks)
            yield ""
        if not self.rows:
            return
        if "ratio" in self.rows[0]:
            yield "Ratio: the rival's time over ours, the median over rounds; above 1 ours is faster."
            yield f"Below 1: {'; '.join(self.lost()) or 'none'}."
            yield ""
        columns = list(self.rows[0])
        yield f"| {' | '.join(columns)} |"
        yield "|" + "---|" * len(columns)
        for row in self.rows:
            yield f"| {' | '.join(row[column] for column in columns)} |"

    def lost(self):
        """Cases whose ratio is below 1."""
        return [
            f"{row['case']} beside {row['rival']} ({row['ratio']})"
            for row in self.rows
            if float(row["ratio"]) < 1.0
        ]

    def markdown(self, session):
        """The file: what the figures depend on stands above them."""
        title, _, rest = inspect.cleandoc(self.about).partition("\n")
        origin = [*benchmark.header(self.machine), f"scikit-learn {sklearn.__version__}", *session]
        parts = [f"# {title.removesuffix('.')}", rest.strip(), "\n".join(f"    {line}" for line in origin)]
        return "\n\n".join([*filter(None, parts), "\n".join(self.lines()).strip()]) + "\n"


def session(arguments):
    """The commit, what else the machine does, and the command of a run that begins, in lines."""
    if head := commit():
        yield f"commit {head}"
    if hasattr(os, "getloadavg"):
        yield f"load average {os.getloadavg()[0]:.1f} at the start"
    data = "EXPUNGE_DATA=... " if os.environ.get("EXPUNGE_DATA") else ""
    yield f"{data}python -m pytest {shlex.join(arguments)}"


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
    return named(" ".join(parts))


def named(text):
    """Letters and digits of a text, as the name of a file."""
    return re.sub(r"\W+", "-", text.lower()).strip("-")


def write(folder, suites, session, part=""):
    """FOLDER/machine/suite.md for each suite; files of other suites stay. Returns their paths.

    The part of a suite that -k chose has a file of its own, named by that.
    """
    paths = []
    for name, suite in suites.items():
        path = Path(folder) / folder_of(suite.machine) / f"{named(f'{name} {part}')}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(suite.markdown(session), encoding="utf-8")
        paths.append(path)
    return paths
