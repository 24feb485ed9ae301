"""Unlearning in PyTorch modules: ``pip install 'expunge[torch]'``.

Nothing else of expunge imports this package, and it needs nothing but PyTorch.
"""

try:
    from torch import nn as _nn  # noqa: F401, not torch alone: any folder of that name could be imported
except ImportError as error:
    raise ImportError("expunge.torch needs PyTorch 2.3 or later: pip install 'expunge[torch]'") from error

from .heads import Head, head
from .requests import ForgetValues, RevokeFeatures
from .unlearner import Unlearner
from .update import Update

__all__ = ["ForgetValues", "Head", "RevokeFeatures", "Unlearner", "Update", "head"]
