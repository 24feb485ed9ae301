"""Figures of the comparison, from the records that its tables are made of."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from .tables import grouped

matplotlib.rcParams["svg.hashsalt"] = "expunge"  # the same figures make the same file
SCATTERED = ("nothing", "first order", "second order", "fine-tuning", "exact", "auto")


def save(figure, path):
    figure.savefig(path, metadata={"Date": None})


def scatter(records, path):
    """Losses of test rows beside those of the retrained model, for each strategy."""
    last = max((r["amount"] for r in records if r["kind"] == "revoke columns"), default=0)
    chosen = [r for r in records if r["amount"] == last and r["seed"] == 0 and "losses" in r]
    chosen = [r for r in chosen if r["strategy"] in SCATTERED]
    if not chosen:
        return False
    figure = Figure(figsize=(9.0, 6.0), layout="constrained")
    for axis, record in zip(np.ravel(figure.subplots(2, 3, sharex=True, sharey=True)), chosen, strict=False):
        theirs, own = record["retrained_losses"], record["losses"]
        axis.plot(theirs, own, ".", markersize=3, color="C0")
        most = max(*theirs, *own)
        axis.plot([0, most], [0, most], color="0.5", linewidth=0.8)
        axis.set_title(record["strategy"], fontsize=9)
    figure.supxlabel(f"loss of the retrained model, {chosen[0]['data']}, {last} columns revoked")
    figure.supylabel("loss after unlearning")
    save(figure, path)
    return True


def lines(records, path):
    """What is proven and what is true over a sequence of requests."""
    figure = Figure(figsize=(6.5, 4.0), layout="constrained")
    axis = figure.subplots()
    for i, record in enumerate(records):
        axis.plot(record["at"], record["proven"], "-o", color=f"C{i}", label=f"{record['data']}, proven")
        true = np.maximum(record["true"], 1e-9)
        axis.plot(record["at"], true, "--", color=f"C{i}", label=f"{record['data']}, true")
    axis.axhline(0.01, color="0.6", linewidth=0.8)
    axis.set(
        yscale="log", xlabel="rows removed one after the other", ylabel="standard errors from retraining"
    )
    axis.legend(fontsize=8)
    axis.grid(True, alpha=0.3)
    save(figure, path)
    return bool(records)


def noise(records, path):
    """Accuracy of released models over epsilon."""
    kinds = grouped(records, "kind")
    figure = Figure(figsize=(5.5 * len(kinds), 4.0), layout="constrained")
    for axis, ((kind,), of_kind) in zip(
        np.ravel(figure.subplots(1, len(kinds), sharey=True)), kinds.items(), strict=True
    ):
        for (data, way), runs in grouped(of_kind, "data", "way").items():
            by = grouped(runs, "epsilon")
            at = sorted(e for (e,) in by)
            means = [np.mean([r["macro_f1"] for r in by[(e,)]]) for e in at]
            axis.plot(at, means, "-o", markersize=4, label=f"{data}, {way}")
        axis.set(xscale="log", xlabel="epsilon, delta = 0.01", ylabel="macro-F1", title=kind)
        axis.legend(fontsize=6)
        axis.grid(True, alpha=0.3)
    save(figure, path)
    return True


def which_when(rows, path):
    """The map: which strategy is the fastest within 0.01 standard errors."""
    names = sorted({row["fastest"] for row in rows})
    kinds = list(dict.fromkeys((row["sparsity"], row["d"]) for row in rows))
    figure = Figure(figsize=(2.6 * len(kinds) + 1.5, 3.6), layout="constrained")
    axes = np.ravel(figure.subplots(1, len(kinds), sharey=True))
    for axis, (sparsity, d) in zip(axes, kinds, strict=True):
        for row in rows:
            if (row["sparsity"], row["d"]) != (sparsity, d):
                continue
            place = names.index(row["fastest"])
            n, touched = (float(row[name].replace(",", "")) for name in ("n", "rows touched"))
            axis.plot(touched / n, n, "osD^v<>*"[place % 8], color=f"C{place}", markersize=9)
        axis.set(xscale="log", yscale="log", title=f"d = {d}, {sparsity}", xlabel="share of rows touched")
    axes[0].set_ylabel("rows")
    for place, name in enumerate(names):
        axes[-1].plot([], [], "osD^v<>*"[place % 8], color=f"C{place}", label=name)
    axes[-1].legend(fontsize=7)
    save(figure, path)
    return bool(rows)
