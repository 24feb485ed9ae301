"""Networks: forgetting a number, wrong labels, rows and columns, beside all rivals.

Every number is one of networks that were retrained, or stands beside those: a strategy is good where it
cannot be told from them, and what lies on their other side has forgotten too much. Rivals with knobs
choose from several settings with the answer known, and so does fine-tuning its rate; expunge's methods
choose nothing here: their defaults were chosen on other numbers and seeds than these. The method that
`auto` takes has its row too, which is of the same runs. Seconds are CPU time on one thread; "times as fast"
is beside retraining. Of several runs the median stands, and the range. The
CSV file beside this one holds each run.
"""

import argparse
import csv
import os
import shlex
import sys
from pathlib import Path

import torch

from expunge import benchmark

from .. import report
from . import pictures
from .tables import people_tables, picture_table, text_tables

EXPERIMENTS = ("text", "digits", "glyphs", "adult")
SIZES = [  # name, with --quick, without, what it is
    ("seeds", 1, 2, "networks that are to forget, for each request"),
    ("retrainings", 4, 4, "networks that are retrained, for each request"),
    ("secrets", 1, 2, "telephone numbers, each in a text of its own"),
    ("times", 20, 20, "how often the text says it"),
    ("characters", 24_000, 40_000, "of text"),
    ("width", 96, 128, "units of the LSTM"),
    ("text-epochs", 15, 15, "of training on text"),
    ("candidates", 2_000, 2_000, "random numbers that the secret is ranked among"),
    ("rebound", 1, 3, "epochs of further training"),
    ("picture-epochs", 40, 40, "of training on images"),
    ("glyphs", 1_500, 1_500, "letters that are drawn"),
    ("rows", 16_000, 32_561, "of Adult"),
    ("people-epochs", 12, 10, "of training on Adult"),
]


def arguments(argv):
    parser = argparse.ArgumentParser(
        prog="python -m bench.paper.networks", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: five minutes at most")
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, help="some of the experiments")
    parser.add_argument("--images", metavar="FOLDER", help="images too, from a folder for each class")
    parser.add_argument("--results", metavar="FOLDER", help="writes FOLDER/MACHINE/networks.md and .csv")
    for name, quick, full, text in SIZES:
        parser.add_argument(f"--{name}", type=int, help=f"{text}; {quick:,} with --quick, else {full:,}")
    sizes = parser.parse_args(argv)
    for name, quick, full, _ in SIZES:
        key = name.replace("-", "_")
        if getattr(sizes, key) is None:
            setattr(sizes, key, quick if sizes.quick else full)
    return sizes


def experiments(sizes, networks, say):
    """The tables, one after the other."""
    chosen = sizes.only or EXPERIMENTS
    if "text" in chosen:
        yield from text_tables(sizes, networks, say)
    if "digits" in chosen:
        yield picture_table("digits", pictures.digits(), sizes, networks, say)
    if "glyphs" in chosen:
        yield picture_table("glyphs", pictures.glyphs(sizes.glyphs), sizes, networks, say)
    if sizes.images:
        name = Path(sizes.images).name
        yield picture_table(name, pictures.image_folder(sizes.images), sizes, networks, say)
    if "adult" in chosen:
        yield from people_tables(sizes, networks, say)


def say(line):
    """How far it is, where no table is disturbed."""
    print(line, file=sys.stderr, flush=True)


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    sizes = arguments(argv)
    try:
        import expunge.torch as networks
    except ImportError as error:
        raise SystemExit(str(error)) from None
    report.commit()  # now, before somebody commits something else
    torch.set_num_threads(1)
    with benchmark.use_threads(1):
        tables = list(experiments(sizes, networks, say))
        suite = report.Suite(__doc__, benchmark.machine(), [f"PyTorch {torch.__version__}, 1 thread"])
    data = "EXPUNGE_DATA=... " if os.environ.get("EXPUNGE_DATA") else ""
    command = f"{data}python -m bench.paper.networks {shlex.join(argv)}".rstrip()
    text = "\n\n".join([suite.markdown([command]).rstrip(), *(table.markdown() for table in tables)]) + "\n"
    print(text)
    if sizes.results:
        path = Path(sizes.results) / report.folder_of(suite.machine) / "networks.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        write_runs(path.with_suffix(".csv"), [run for table in tables for run in table.runs])


def write_runs(path, runs):
    """A line for each number of each run."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["request", "strategy", "seed", "seconds", "settings", "what", "value"])
        for run in runs:
            settings = " ".join(f"{key}={value}" for key, value in run.settings.items())
            for what, value in run.measured.items():
                shown = f"{value:.6g}" if isinstance(value, float) else value
                writer.writerow(
                    [run.task, run.strategy, run.seed, f"{run.seconds:.3f}", settings, what, shown]
                )


if __name__ == "__main__":
    main()
