"""Unlearning in PyTorch modules: ``pip install 'expunge[torch]'``.

Nothing else of expunge imports this package, and it needs nothing but PyTorch.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("expunge.torch needs PyTorch 2.3 or later: pip install 'expunge[torch]'") from error

from .requests import ForgetValues, RevokeFeatures
from .unlearner import Unlearner
from .update import Update

__all__ = ["ForgetValues", "RevokeFeatures", "Unlearner", "Update"]
