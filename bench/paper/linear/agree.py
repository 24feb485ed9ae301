"""Whether two runs found the same, timings aside: `python -m bench.paper.linear.agree OLD.csv NEW.csv`.

Names and counts are to be equal, scores to 1e-3, residuals and distances within a factor of 10 or below the
floor of rounding. Rows of data that one of the runs did not have are passed over, and so is the map, which
time decides.
"""

import csv
import re
import sys

from .tables import FLOOR, RETRAINED

KEYS = (
    "table",
    "data",
    "request",
    "strategy",
    "requests",
    "way",
    "epsilon",
    "rows touched",
)
BY_TIME = ("ms", *(f"x {how}" for how in RETRAINED), "fastest within 0.01", "fastest", "next")
SCORES = ("accuracy", "macro-F1", "ROC-AUC", "PR-AUC", "membership")
CARRIED = ("seeds", "ISA", "threads", "versions")
PASSES = ("passes",)  # of iterations, which may be one more elsewhere
FACTOR, MORE_PASSES, SCORE = 10.0, 1.5, 1.01e-3


def rows_of(path):
    """By their key, the map left out."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["table"] != "map"]
    return {tuple(row.get(name) or "" for name in KEYS): row for row in rows}


def numbers(text):
    """Those in a cell; what is below the floor is the floor."""
    found = re.findall(r"(?:< )?[-+\d.]+(?:e[-+]?\d+)?", text)
    return [FLOOR if part.startswith("<") else float(part) for part in found]


def agree(name, old, new):
    if name in (*BY_TIME, *CARRIED) or old == new:
        return True
    if name in (*KEYS, "within 0.01", "note"):
        return name == "note" and not old.startswith("refused")
    a, b = numbers(old), numbers(new)
    if not a or not b:
        return False
    if name in SCORES:
        return len(a) == len(b) and all(abs(x - y) <= SCORE for x, y in zip(a, b, strict=True))
    most = MORE_PASSES if name in PASSES else FACTOR
    low, high = sorted((max(a[0], FLOOR), max(b[0], FLOOR)))  # the mean; the largest of few may be a tie
    return high <= most * low


def differences(old, new):
    """Lines, one for each cell that differs by more than it may."""
    old, new = rows_of(old), rows_of(new)
    data = {row["data"] for row in new.values()} & {row["data"] for row in old.values()}
    if not data:
        yield "the runs have no data in common"
    for key in sorted({k for k, row in [*old.items(), *new.items()] if row["data"] in data}):
        if key not in old or key not in new:
            yield f"{' | '.join(filter(None, key))}: only in {'the first' if key in old else 'the second'}"
            continue
        for name, text in old[key].items():
            if not agree(name, text or "", new[key].get(name) or ""):
                yield f"{' | '.join(filter(None, key))}: {name} was {text}, is {new[key].get(name)}"


if __name__ == "__main__":
    found = list(differences(*sys.argv[1:]))
    print("\n".join(found) or "equal, timings aside")
    sys.exit(bool(found))
