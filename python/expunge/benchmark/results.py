"""What was timed: as JSON, beside an earlier run, as a figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from .timing import Result, Rival, header

SCHEMA = 1  # of the JSON


def report(machine: dict[str, Any], seconds: float, results: Sequence[Result]) -> str:
    """The JSON that docs/guide.md describes."""
    whole = {
        "schema": SCHEMA,
        "machine": machine,
        "seconds": seconds,
        "results": [asdict(result) for result in results],
    }
    return json.dumps(whole, indent=1) + "\n"


def read(path: Path) -> tuple[dict[str, Any], list[Result]]:
    """Machine and results of a file that :func:`report` wrote.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It holds something else.
    """
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
        if whole["schema"] != SCHEMA:
            raise ValueError
        return dict(whole["machine"]), [_result(**result) for result in whole["results"]]
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path} is not a file that `python -m expunge bench --json` wrote with schema {SCHEMA}"
        ) from None


def _result(rivals: list[dict[str, Any]], shape: list[int], **rest: Any) -> Result:
    return Result(
        **rest,
        shape=(shape[0], shape[1]),
        rivals=tuple(Rival(**{**rival, "quartiles": tuple(rival["quartiles"])}) for rival in rivals),
    )


@dataclass(frozen=True)
class Change:
    """A case then and now.

    `faster` says how many times as fast ours has become by its ratios to the same rivals, in which the
    machine's own speed cancels: the geometric mean over them.
    """

    now: Result
    milliseconds_then: float
    faster: float


def changes(then: Sequence[Result], now: Sequence[Result]) -> list[Change]:
    """Cases that are in both, with rivals that are in both."""

    def key(result: Result) -> tuple[Any, ...]:
        return result.kernel, result.shape, result.layout

    before = {key(result): result for result in then}
    found = []
    for result in now:
        if (old := before.get(key(result))) is None:
            continue
        ratios = {rival.name: rival.ratio for rival in old.rivals}
        common = [np.log(rival.ratio / ratios[rival.name]) for rival in result.rivals if rival.name in ratios]
        if common:
            found.append(Change(result, old.milliseconds, float(np.exp(np.mean(common)))))
    return found


def differing(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What of the machine, beside expunge itself, is not the same: ratios then tell of that, too."""
    return [
        f"{name}: {then.get(name)} then, {now[name]} now"
        for name in now
        if name not in ("expunge", "compiler", "eigen") and then.get(name) != now[name]
    ]


# --- a figure


def require_plot(path: Path) -> None:
    """Raises before anything is timed where :func:`plot` could not draw.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    ValueError
        The ending of the name is that of no format it knows.
    """
    try:
        backend = import_module("matplotlib.backends.backend_agg")
        figure = import_module("matplotlib.figure").Figure()
    except ImportError:
        raise ImportError("a plot needs matplotlib: pip install matplotlib") from None
    known = backend.FigureCanvasAgg(figure).get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in known:
        raise ValueError(f"{path}: matplotlib draws files that end in {', '.join(sorted(known))}")


def plot(path: Path, machine: dict[str, Any], results: Sequence[Result]) -> None:
    """Ratios of all rivals of each case, on a logarithmic axis; the name's ending chooses the format."""
    figure = import_module("matplotlib.figure").Figure(
        figsize=(9.0, 1.6 + 0.24 * len(results)), layout="constrained"
    )
    axes = figure.subplots()
    places = np.arange(len(results))
    fastest = [result.rivals[0] for result in results]
    axes.barh(places, [rival.ratio - 1.0 for rival in fastest], left=1.0, label="the fastest rival")
    low, high = np.array([rival.quartiles for rival in fastest]).T
    axes.hlines(places, low, high, color="black", label="half of its rounds")
    others = [
        (place, rival.ratio)
        for place, result in zip(places, results, strict=True)
        for rival in result.rivals[1:]
    ]
    if others:
        axes.plot([x for _, x in others], [at for at, _ in others], "o", label="other rivals")
    axes.axvline(1.0, color="black", linewidth=0.8)
    names = [f"{result.kernel}  {result.shape[0]} x {result.shape[1]}  {result.layout}" for result in results]
    axes.set(
        xscale="log", yticks=places, yticklabels=names, xlabel="time over ours: right of 1 ours is faster"
    )
    axes.set_ylim(len(results) - 0.4, -0.6)
    axes.xaxis.set_major_formatter("{x:g}")
    figure.suptitle("\n".join(header(machine)), fontsize=8)
    axes.legend(fontsize=8)
    figure.savefig(path)
