"""Where each strategy leaves a secret: `python -m bench.paper.plot_ranks NETWORKS.csv FILE.svg`."""

import csv
import sys

import matplotlib
from matplotlib.figure import Figure

matplotlib.rcParams["svg.hashsalt"] = "expunge"  # the same figures make the same file

AS_RETRAINED = (0.05, 0.95)


def ranks(path):
    """(strategies in their order, rank of each run)."""
    found = {}
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["what"] == "rank":
                found.setdefault(row["strategy"], []).append(float(row["value"]))
    return found


def main(path, picture):
    found = ranks(path)
    figure = Figure(figsize=(8.0, 0.32 * len(found) + 1.2), layout="constrained")
    axis = figure.subplots()
    axis.axvspan(*AS_RETRAINED, color="0.92", zorder=0)
    for place, (strategy, values) in enumerate(found.items()):
        color = "C0" if strategy.startswith("expunge") else "0.35"
        axis.plot(values, [place] * len(values), "o", color=color, alpha=0.7, clip_on=False)
    axis.set(yticks=range(len(found)), yticklabels=list(found), xlim=(0.0, 1.0))
    axis.invert_yaxis()
    axis.set_xlabel("share of random numbers that the network finds likelier than the secret")
    axis.set_title(
        "remembers  |  as if it had never been told (grey: 90 % of such cases)  |  avoids", fontsize=9
    )
    axis.grid(True, axis="x", alpha=0.3)
    figure.savefig(picture, metadata={"Date": None} if picture.endswith(".svg") else None)


if __name__ == "__main__":
    main(*sys.argv[1:])
