"""Figures of what unlearning did, by matplotlib, as scikit-learn's Display objects.

``from_...`` computes what is shown and draws it, ``plot`` draws it again. Lines and markers differ in shape,
not in colour alone.
"""

from .distance import DistanceDisplay
from .fidelity import FidelityDisplay
from .throughput import ThroughputDisplay

__all__ = ["DistanceDisplay", "FidelityDisplay", "ThroughputDisplay"]
