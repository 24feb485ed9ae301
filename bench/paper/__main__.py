"""The source paper's comparison on linear models: every strategy, on the same requests, beside retraining.

Strategies start from the same trained model and see the same request; seconds are CPU time of the request
alone, on one thread, medians over seeds. Other numbers are means over seeds, with the largest in brackets.
The reference is scikit-learn's newton-cholesky on the corrected data, as near to the minimum as rounding lets
it. Strategies that end within 0.01 standard errors of it do equal work, and are marked; "x cold" and "x warm"
are the seconds of the fastest retraining among those over a strategy's own. Beside what ends at rounding, as
`exact` does, "x to 1e-8" is at equal distance: retraining by our solver that goes on to a residual of 1e-8.
Losses stand in the tables.
"""

import argparse
import csv
import os
import shlex
import sys
from pathlib import Path

import sklearn
from tqdm import tqdm

from expunge import benchmark

from .. import report
from .linear.cells import Cells
from .linear.experiments import EXPERIMENTS, Sizes
from .linear.studies import from_file, studies

NETWORKS = "networks.md"


def arguments(argv):
    parser = argparse.ArgumentParser(prog="python -m bench.paper", description=__doc__.split("\n")[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="small sizes: two minutes at most (the default)")
    size.add_argument("--full", action="store_true", help="whole data sets: an hour on two cores at most")
    parser.add_argument("--only", nargs="+", choices=[e.name for e in EXPERIMENTS], help="some of the tables")
    parser.add_argument("--seeds", type=int, help="how often each request is drawn; 2 with --quick, else 3")
    parser.add_argument("--data", metavar="FILE", help="CSV or NPZ with named columns, in place of all")
    parser.add_argument("--target", help="the column of labels in it; of a file of vectors none")
    parser.add_argument("--sensitive", nargs="+", help="columns of it that may have to go")
    folder = {"metavar": "FOLDER", "default": "bench/results"}
    parser.add_argument("--results", **folder, help="writes FOLDER/MACHINE/paper-*")
    parser.add_argument("--anew", action="store_true", help="forget the cells of a run that was interrupted")
    return parser.parse_args(argv)


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    asked = arguments(argv)
    name = "paper-full" if asked.full else "paper-quick"
    if asked.data:
        name += f"-{Path(asked.data).stem}"
    sizes = Sizes(asked.full, asked.seeds or (3 if asked.full else 2))
    with benchmark.use_threads(1):
        machine = benchmark.machine()
        folder = Path(asked.results) / report.folder_of(machine)
        suite = report.Suite(__doc__, machine)
        path = folder / f"{name}.jsonl"
        if asked.anew:
            path.unlink(missing_ok=True)
        cells = Cells(path, [*suite.origin(), " ".join(argv)])
        if asked.data:
            try:
                found = from_file(asked.data, asked.target, asked.sensitive)
            except (OSError, ValueError) as error:
                sys.exit(f"python -m bench.paper: {error}")
        else:
            found = studies(not asked.full)
        chosen = [e for e in EXPERIMENTS if not asked.only or e.name in asked.only]
        made = []
        with tqdm(total=len(chosen), file=sys.stderr, disable=None) as bar:
            for experiment in chosen:
                bar.set_description(experiment.name)
                made += experiment.run(found, sizes, cells, bar.set_postfix_str)
                bar.update()
    write(folder, name, suite, made, argv, networks_of(folder), sizes.seeds)
    path.unlink()


def networks_of(folder):
    """The last table of networks, of this machine or else of another one, or why there is none."""
    others = sorted(folder.parent.glob(f"*/{NETWORKS}"))
    path = next((p for p in [folder / NETWORKS, *others] if p.exists()), None)
    if path is None:
        return "## Networks\n\nNot run: `python -m bench.paper.networks --results ...` needs PyTorch."
    text = path.read_text(encoding="utf-8")
    last = text[text.rfind("\n## ") :].replace("\n## ", "\n### ")
    link = NETWORKS if path.parent == folder else f"../{path.parent.name}/{NETWORKS}"
    return f"## Networks\n\nThe last table of [{link}]({link}).\n{last}"


def made_with(machine, seeds):
    """What every row carries."""
    versions = {"expunge": machine["expunge"], "NumPy": machine["numpy"], "scikit-learn": sklearn.__version__}
    return {
        "seeds": " ".join(map(str, range(seeds))),
        "ISA": machine["isa"],
        "threads": machine["threads"],
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


def write(folder, name, suite, made, argv, networks, seeds):
    """Markdown, CSV and figures."""
    data = "EXPUNGE_DATA=... " if os.environ.get("EXPUNGE_DATA") else ""
    command = f"{data}python -m bench.paper {shlex.join(argv)}".rstrip()
    parts = [suite.markdown([command]).rstrip()]
    runs = []
    for table in made:
        carried = made_with(suite.machine, 1 if table.once else seeds)
        parts.append(table.markdown())
        runs += [{"table": table.name, **row, **carried} for row in table.rows]
        if table.draw is not None:
            picture = folder / f"{name}-{table.name}.svg"
            if table.draw(picture):
                parts.append(f"![{table.title}]({picture.name})")
    text = "\n\n".join([*parts, networks.rstrip()]) + "\n"
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    headings = list(dict.fromkeys(key for run in runs for key in run))
    with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, headings, lineterminator="\n")
        writer.writeheader()
        writer.writerows(runs)
    print(text)


if __name__ == "__main__":
    main()
