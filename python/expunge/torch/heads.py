"""Frozen features and a linear model of them: the part of a network that has a certificate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..models import LogisticRegression, Ridge
from ..unlearner import Unlearner
from .data import source_of
from .module import called, same_buffers, undisturbed
from .task import whole

__all__ = ["Head", "head"]

_CONDITION = (
    "the frozen module never saw what is forgotten, nor was it chosen by it: the certificate is of the head "
    "on its features",
    "taken on trust",
)
_BATCH = 512


class Head(Unlearner):
    """An :class:`expunge.Unlearner` of a linear model on the features that a frozen module gives.

    :func:`head` makes it. Its rows are features: of rows that join or change pass ``un.features(X)``.
    """

    def __init__(self, features: Features, model: Any, Z: NDArray[Any], y: Any, **options: Any) -> None:
        super().__init__(model, Z, y, **options)
        self._features = features

    @classmethod
    def load(cls, *args: Any, **options: Any) -> NoReturn:
        """A file holds no module: :meth:`expunge.Unlearner.load` reads it."""
        raise TypeError("a file holds no module: read it by expunge.Unlearner.load, whose rows are features")

    def features(self, X: Any) -> NDArray[Any]:
        """(m, k) array: what the frozen module gives for X, as :func:`head` takes it, targets aside."""
        return self._features.of(X, np.zeros(len(X)) if isinstance(X, Tensor | np.ndarray) else None)[0]

    def predict(self, X: Any) -> NDArray[Any]:
        """Predictions of the head on the features of X."""
        predicted: NDArray[Any] = self.model.predict(self.features(X))
        return predicted

    def release(self, *args: Any, **options: Any) -> Ridge | LogisticRegression:
        """A copy of the head to give away, see :meth:`expunge.Unlearner.release`.

        Its certificate says that it is conditional on the module not having seen the data.
        """
        released = super().release(*args, **options)
        certificate = released.certificate_
        released.certificate_ = replace(certificate, assumptions=(_CONDITION, *certificate.assumptions))
        return released


class Features:
    """What a frozen module gives, batch by batch."""

    def __init__(self, module: Any, logits: Callable[[Any], Tensor] | None, batch_size: int | None) -> None:
        if not isinstance(module, nn.Module):
            raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
        self._module, self._logits, self._batch_size = module, logits, batch_size

    def of(self, X: Any, y: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Features (n, k), in float32 or float64, and targets (n,)."""
        source, size = source_of(X, y)
        found, targets = [], []
        device = next((value.device for value in self._module.parameters()), torch.device("cpu"))
        with undisturbed(self._module, device, 0), torch.no_grad():
            size = self._batch_size or size or _BATCH
            for first in range(0, len(source), size):
                batch = source.batch(np.arange(first, min(first + size, len(source))), {})
                batch = batch.moved(lambda value: value.to(device))
                with same_buffers(self._module):
                    outputs = called(lambda args, named: self._module(*args, **named), self._logits, batch)
                if outputs.ndim != 2:
                    raise ValueError(
                        f"the module gives {tuple(outputs.shape)} for {size} rows, expected (rows, features):"
                        " pass logits=, a function that takes the features of a row from it"
                    )
                double = outputs.dtype == torch.float64
                found.append(outputs.to(torch.float64 if double else torch.float32).cpu().numpy())
                targets.append(torch.as_tensor(batch.y).cpu().numpy())
        return np.concatenate(found), np.concatenate(targets)


def head(
    module: Any,
    X: Any,
    y: Any = None,
    *,
    model: Any = None,
    logits: Callable[[Any], Tensor] | None = None,
    batch_size: int | None = None,
    **options: Any,
) -> Head:
    """Fits a linear model to what a frozen module gives, and returns an Unlearner of it.

    Requests to it are exact (:class:`expunge.Unlearner`), and `release` gives certified copies of the head
    away. That is a certificate of the head on its features: it is worth something where the module was
    trained on other data, as public backbones are.

    Parameters
    ----------
    module : torch.nn.Module
        Gives (rows, features): a network without its last layer. It is frozen, in eval mode, and not changed.
    X, y : as of :class:`expunge.torch.Unlearner`
    model : Ridge or LogisticRegression of expunge, optional
        What is fitted, with its alpha; ``LogisticRegression(alpha=1.0)`` by default.
    logits : callable, optional
        Takes the tensor of features from what the module gives, as
        ``lambda out: out.last_hidden_state[:, 0]``.
    batch_size : int, optional
        Rows that the module is called with at a time, 512 by default.
    **options : as of :class:`expunge.Unlearner`
        ids, key, within, tolerance, theta_bound.

    Returns
    -------
    Head
        An :class:`expunge.Unlearner`, its rows features, with `features(X)` and `predict(X)`.

    Examples
    --------
    >>> import torch
    >>> import expunge as ex, expunge.torch
    >>> _ = torch.manual_seed(0)
    >>> backbone = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh())
    >>> X = torch.randn(300, 4)
    >>> un = ex.torch.head(backbone, X, (X[:, 0] > 0).long(), batch_size=100)
    >>> update = un.apply(ex.RemoveRows([3, 17]))
    >>> update.distance <= un.within
    True
    >>> released = un.release(epsilon=1.0, delta=1e-5)
    >>> released.certificate_.assumptions[0][1], released.predict(un.features(X[:2])).shape
    ('taken on trust', (2,))
    """
    features = Features(module, logits, whole(batch_size, "batch_size"))
    Z, targets = features.of(X, y)
    model = LogisticRegression(alpha=1.0) if model is None else model
    if not isinstance(model, Ridge | LogisticRegression):
        raise TypeError(
            f"model must be a Ridge or a LogisticRegression of expunge, got {type(model).__name__}"
        )
    model.fit(Z, targets)
    return Head(features, model, Z, targets, **options)
