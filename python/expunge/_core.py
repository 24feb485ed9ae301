"""The compiled core, with the kernels of the best instruction set that was built and runs on this machine."""

import importlib
import importlib.util
import os
from typing import Any

_module: Any = importlib.import_module("expunge._native")


def _choose() -> tuple[Any, tuple[str, ...]]:
    """The kernels in use, and the instruction sets that there are kernels for."""
    supported: list[str] = _module.supported_isas()
    built = {
        isa: spec
        for isa in supported
        if (spec := importlib.util.find_spec(f"expunge._kernels_{isa.replace('-', '_')}")) is not None
    }
    asked = os.environ.get("EXPUNGE_ISA") or list(built)[-1]
    if asked not in built:
        raise ImportError(f"EXPUNGE_ISA={asked!r} is not available: choose one of {', '.join(built)}")
    return importlib.import_module(built[asked].name), tuple(built)


_kernels, _available = _choose()
_module.use_kernels(_kernels.table)

Anchor = _module.Anchor
AnchoredStatistics = _module.AnchoredStatistics
Ball = _module.Ball
CholeskyFactor = _module.CholeskyFactor
Evaluation = _module.Evaluation
RowRegister = _module.RowRegister
Tallies = _module.Tallies
Minimum = _module.Minimum
NotCanonical = _module.NotCanonical
Objective = _module.Objective
TouchedRows = _module.TouchedRows
add_normal = _module.add_normal
arithmetic_rate = _module.arithmetic_rate
difference = _module.difference
gathers = _module.gathers
gradient_difference = _module.gradient_difference
gram = _module.gram
is_canonical = _module.is_canonical
is_finite = _module.is_finite
largest_norm = _module.largest_norm
minimize = _module.minimize
normal = _module.normal
reading_rate = _module.reading_rate
round_with_offset = _module.round_with_offset
rows_with_values = _module.rows_with_values
set_gathers = _module.set_gathers
set_threads = _module.set_threads
solve = _module.solve
reset_after_fork = _module.reset_after_fork
threads = _module.threads


def build_info() -> dict[str, Any]:
    """What the compiled core is.

    Returns
    -------
    dict
        ``isa``: the instruction set in use; ``available``: those that were built and run on this machine
        (the environment variable ``EXPUNGE_ISA`` picks one before import); ``simd``, ``eigen`` and
        ``compiler``: what the kernels in use were compiled with.

    Examples
    --------
    >>> import expunge
    >>> expunge.build_info()["isa"] in expunge.build_info()["available"]
    True
    """
    return {**_module.compiled_with(), "available": _available}
