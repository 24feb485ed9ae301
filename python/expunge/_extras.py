"""Packages that expunge does without, but for what asks for them."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def extra(module: str) -> Any:
    """A module of such a package, or ImportError that names it."""
    try:
        return import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise ImportError(f"this needs {name}: pip install {name}", name=name) from error
