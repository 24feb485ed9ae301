"""Command line of expunge.

``expunge demo`` unlearns and checks the answer against retraining; ``expunge bench`` times the kernels on
this machine, beside NumPy and SciPy. ``python -m expunge`` is the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .. import __version__
from . import bench, demo


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``expunge`` and of ``python -m expunge``; returns the exit status."""
    parser = argparse.ArgumentParser(prog="expunge", description=__doc__)
    parser.add_argument("--version", action="version", version=f"expunge {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (demo, bench):
        command.add_to(commands)
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status
