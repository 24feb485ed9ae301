"""How notebooks show what this package returns."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any


def table(title: str, rows: Mapping[str, Any]) -> str:
    """A title and names beside values, as HTML.

    Examples
    --------
    >>> table("Update", {"rows touched": 2})
    '<table><caption>Update</caption><tr><th>rows touched</th><td>2</td></tr></table>'
    """
    cells = (f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in rows.items())
    return f"<table><caption>{escape(title)}</caption>{''.join(cells)}</table>"
