"""What all displays share: where they draw."""

from __future__ import annotations

from typing import Any

from .._extras import extra


class Display:
    """Something that draws on the axes of matplotlib, and keeps them as ax_ and figure_."""

    ax_: Any
    figure_: Any

    def _axes(self, ax: Any) -> Any:
        """These axes, or those of a new figure."""
        if ax is None:
            _, ax = extra("matplotlib.pyplot").subplots()
        self.ax_, self.figure_ = ax, ax.figure
        return ax
