"""The former name of :mod:`expunge.accounting`."""

from .accounting import *  # noqa: F403
from .accounting import __all__ as __all__
