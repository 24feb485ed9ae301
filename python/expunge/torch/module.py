"""A module as a function of one vector of parameters, which is left alone until a method has succeeded."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from itertools import chain, starmap
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..atomic import Change
from .data import Batch, mapped, rows_of

__all__ = ["Function", "called", "same_buffers", "undisturbed"]

_NORMS = (  # what others do in a forward pass is their own affair
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
)
_HALF = (torch.float16, torch.bfloat16)


class Function:
    """``outputs(theta, batch)`` of a module; theta are its trained parameters, one after the other.

    Half precision is computed with in float32. The module itself changes by :meth:`write` alone.

    Attributes
    ----------
    names : list of str
        Of the parameters that theta holds.
    aliases : dict
        Every name of these, as tied ones have several, and which of `names` it stands for.
    theta : (p,) tensor
        As they are in the module.
    buffers : dict
        Those that are computed with: the module's own, or others until :meth:`reset`.
    """

    names: list[str]
    aliases: dict[str, str]
    buffers: Mapping[str, Tensor]

    def __init__(self, module: Any, parameters: Any, logits: Callable[[Any], Tensor] | None) -> None:
        if not isinstance(module, nn.Module):
            raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
        if isinstance(module, nn.DataParallel):
            raise TypeError("DataParallel takes no other parameters: pass the module that it holds, .module")
        if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
            raise TypeError(
                "TorchScript modules take no other parameters: pass the module that was scripted, "
                "and script it again afterwards"
            )
        self.module, self._logits = module, logits
        self._asked = None if parameters is None else _names(module, parameters)
        self.read()

    def read(self) -> None:
        """Takes parameters, buffers and flags as they are now: others may have taken their place."""
        self._trained, self.aliases = _chosen(self.module, self._asked)
        self.names = list(self._trained)
        tensors = list(self._trained.values())
        self.device = tensors[0].device
        self.dtype = torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
        # parts that are not frozen, and names of their running mean and variance
        self._normalising: dict[Any, tuple[str, str]] = dict(self._not_frozen())
        self.reset()

    @property
    def size(self) -> int:
        """How many parameters theta has."""
        return sum(self._sizes)

    def reset(self) -> None:
        """Computes with the module's own buffers."""
        self.buffers = dict(self.module.named_buffers())

    @property
    def theta(self) -> Tensor:
        """The trained parameters as they are."""
        flat = [value.detach().to(self.dtype).flatten() for value in self._trained.values()]
        return torch.cat(flat)

    def per_parameter(self, values: Iterable[float]) -> Tensor:
        """One number for each parameter, as a vector."""
        pairs = zip(self._trained.values(), values, strict=True)
        parts = [torch.full((t.numel(),), value, dtype=self.dtype, device=self.device) for t, value in pairs]
        return torch.cat(parts)

    def outputs(self, theta: Tensor, batch: Batch, buffers: Mapping[str, Tensor] | None = None) -> Tensor:
        """What the module gives for a batch, through `logits`.

        Buffers that it changes in place are copies, unless others are handed over.
        """
        state = {**self._frozen(), **(_copies(self.buffers) if buffers is None else buffers)}
        for name, part in zip(self.names, theta.split(self._sizes), strict=True):
            kept = self._trained[name]
            state[name] = part.view(kept.shape).to(_computed_in(kept.dtype))
        return called(partial(functional_call, self.module, state), self._logits, batch)

    def placed(self, batch: Batch) -> Batch:
        """The batch on the module's device; half precision as float32."""

        def change(value: Tensor) -> Tensor:
            value = value.to(self.device)
            return value.to(torch.float32) if value.dtype in _HALF else value

        return batch.moved(change)

    def rounded(self, theta: Tensor) -> Tensor:
        """What is left of theta in the dtypes that the module stores."""
        parts = zip(theta.split(self._sizes), self._trained.values(), strict=True)
        return torch.cat([part.to(kept.dtype).to(self.dtype) for part, kept in parts])

    @property
    def normalises(self) -> bool:
        """Whether there are running means and variances, as BatchNorm has them, that are not frozen."""
        return bool(self._normalising)

    def reestimated(self, theta: Tensor, batches: Iterable[Batch]) -> dict[str, Tensor]:
        """The buffers with running means and variances of these batches, dropout staying off.

        They are means over all uses of a part, weighted by elements: a batch is one of several, and a forward
        pass may use a part more than once.
        """
        parts, buffers = self._normalising, _copies(self.buffers)
        for running in parts.values():
            for name, start in zip(running, (0.0, 1.0), strict=True):
                buffers[name].fill_(start)
        seen: Counter[int] = Counter()

        def weigh(part: Any, args: tuple[Tensor, ...], named: Mapping[str, Tensor]) -> None:
            X = next(chain(args, named.values()))
            count = X.numel() // X.shape[1]
            seen[id(part.running_mean)] += count  # which several parts may share
            part.momentum = count / seen[id(part.running_mean)]

        kept = [(part, name, getattr(part, name)) for part in parts for name in ("training", "momentum")]
        with ExitStack() as stack:
            stack.callback(deque, starmap(object.__setattr__, kept), maxlen=0)
            stack.enter_context(torch.no_grad())
            for part in parts:
                stack.enter_context(part.register_forward_pre_hook(weigh, with_kwargs=True))
                part.training = True
            for batch in batches:
                if rows_of(batch) > 1:  # one has no variance
                    self.outputs(theta, batch, buffers)
        used = {name for names in parts.values() if id(buffers[names[0]]) in seen for name in names}
        return {**self.buffers, **{name: buffers[name] for name in used}}

    def write(self, theta: Tensor | None, buffers: Mapping[str, Tensor], changes: Sequence[Change]) -> None:
        """Parameters and buffers of the module, and attributes of others, become these: all of them, or none.

        theta is None where the module stays as it is.
        """
        pairs = []
        if theta is not None:
            parts = zip(theta.split(self._sizes), self._trained.values(), strict=True)
            pairs = [(kept.detach(), part.view(kept.shape)) for part, kept in parts]
            own = dict(self.module.named_buffers())
            found = {name for names in self._normalising.values() for name in names}
            pairs += [(own[name], buffers[name]) for name in found if buffers[name] is not own[name]]
        before = [(kept, kept.clone()) for kept, _ in pairs]
        old = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
        forth = chain(starmap(Tensor.copy_, pairs), starmap(setattr, changes))
        back = chain(starmap(Tensor.copy_, before), starmap(setattr, old))
        try:
            deque(forth, maxlen=0)  # one call, which no Ctrl-C can split
        except BaseException:
            deque(back, maxlen=0)
            raise

    def undisturbed(self, seed: int) -> AbstractContextManager[None]:
        """See :func:`undisturbed`; of the module as it is now."""
        self.read()
        return undisturbed(self.module, self.device, seed)

    @property
    def _sizes(self) -> list[int]:
        return [value.numel() for value in self._trained.values()]

    def _frozen(self) -> dict[str, Tensor]:
        """Parameters that are not trained, where they are computed with in another dtype."""
        return {
            name: value.detach().to(torch.float32)
            for name, value in self.module.named_parameters()
            if name not in self._trained and value.dtype in _HALF
        }

    def _not_frozen(self) -> Iterator[tuple[Any, tuple[str, str]]]:
        """Parts with running means and variances, and names of these, but for parts that are frozen.

        These are in eval mode while the module is not, or their own parameters are not trained; where they
        have none, not all parameters of the module are.
        """
        trained = set(map(id, self._trained.values()))
        name_of = {id(value): name for name, value in self.module.named_buffers()}  # one where it is shared
        for part in self.module.modules():
            if isinstance(part, _NORMS) and isinstance(part.running_mean, Tensor):
                own = set(map(id, part.parameters()))
                learns = bool(own & trained) if own else trained.issuperset(map(id, self.module.parameters()))
                if learns and (part.training or not self.module.training):
                    yield part, (name_of[id(part.running_mean)], name_of[id(part.running_var)])


@contextmanager
def undisturbed(module: nn.Module, device: torch.device, seed: int) -> Iterator[None]:
    """Dropout is off, second derivatives exist; attributes and the state of random generators come back.

    Neither inference mode nor autocast of the caller is on.

    Flags are such, and what a part keeps of a forward pass, as the old ``weight_norm`` its weight.
    """
    parts = list(module.modules())
    own = [vars(part) for part in parts]
    before = list(zip(own, map(dict, own), strict=True))
    scripted = [(p, "training", p.training) for p in parts if isinstance(p, torch.jit.ScriptModule)]  # in C++
    with ExitStack() as stack:  # whose callbacks are all called, even if Ctrl-C comes between two
        stack.callback(deque, chain(map(dict.clear, own), starmap(dict.update, before)), maxlen=0)
        stack.callback(deque, starmap(setattr, scripted), maxlen=0)
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        stack.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002, the caller's
        stack.callback(random.setstate, random.getstate())
        stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(isinstance(part, nn.RNNBase) for part in module.modules()):
            # cuDNN has no second derivatives of these
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if device.type in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(device.type, enabled=False))
        for part in parts:
            part.training = False  # not eval(), which modules may override
        torch.backends.mha.set_fastpath_enabled(False)
        torch.default_generator.manual_seed(seed)  # not that of GPUs which the module is not on
        yield


@contextmanager
def same_buffers(module: nn.Module) -> Iterator[None]:
    """Buffers that are changed come back, in place or as other tensors."""
    kept = [(part, *own) for part in module.modules() for own in part.named_buffers(recurse=False)]
    before = [(value, value.clone()) for _, _, value in kept]
    with ExitStack() as stack:
        stack.callback(deque, chain(starmap(setattr, kept), starmap(Tensor.copy_, before)), maxlen=0)
        yield


def called(module: Callable[..., Any], logits: Callable[[Any], Tensor] | None, batch: Batch) -> Tensor:
    """The tensor that a module gives for a batch, from copies of its inputs, by name or by position."""
    by_position = 0 in batch.inputs
    inputs = {key: mapped(value, torch.clone) for key, value in batch.inputs.items()}
    outputs = module(tuple(inputs.values()) if by_position else (), {} if by_position else inputs)
    outputs = outputs if logits is None else logits(outputs)
    if not isinstance(outputs, Tensor):
        raise TypeError(
            f"the module gives a {type(outputs).__name__}: pass logits=, a function that takes the tensor of "
            "logits from it, as `lambda out: out.logits`"
        )
    return outputs


def _computed_in(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in _HALF else dtype


def _copies(buffers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is computed with; the module may change it."""
    return {name: value.detach().to(_computed_in(value.dtype), copy=True) for name, value in buffers.items()}


def _names(module: nn.Module, parameters: Any) -> list[str]:
    """Of the parameters or submodules that were asked for."""
    asked = [parameters] if isinstance(parameters, str | Tensor) else list(parameters)
    name_of = {id(value): name for name, value in module.named_parameters()}
    return [one if isinstance(one, str) else name_of.get(id(one), "one that was given") for one in asked]


def _chosen(module: nn.Module, asked: list[str] | None) -> tuple[dict[str, nn.Parameter], dict[str, str]]:
    """The trained parameters, by name: of those with requires_grad, the ones that were asked for.

    And which of these names is meant by each that a parameter has.
    """
    trained = {name: value for name, value in module.named_parameters() if value.requires_grad}
    name_of = {id(value): name for name, value in trained.items()}
    named = module.named_parameters(remove_duplicate=False)
    aliases = {name: name_of[id(value)] for name, value in named if id(value) in name_of}
    if asked is not None:
        chosen: set[str] = set()
        for one in asked:
            found = {name for alias, name in aliases.items() if f"{alias}.".startswith(f"{one}.")}
            if not found:
                raise ValueError(
                    f"no trained parameter is {one!r}: parameters= takes names of parameters or of "
                    f"submodules, or the parameters, with requires_grad. There are {', '.join(aliases)}"
                )
            chosen |= found
        trained = {name: value for name, value in trained.items() if name in chosen}
        aliases = {alias: name for alias, name in aliases.items() if name in chosen}
    if not trained:
        raise ValueError("the module has no parameter with requires_grad: nothing can be updated")
    if not all(value.is_floating_point() for value in trained.values()):
        raise TypeError("complex and integer parameters cannot be trained here: freeze them")
    sparse = nn.Embedding | nn.EmbeddingBag
    for part in module.modules():
        if isinstance(part, sparse) and part.sparse and any(part.weight is one for one in trained.values()):
            raise ValueError(
                "an embedding of the module has sparse=True, and no step takes sparse gradients: set its "
                "attribute sparse to False, or freeze it"
            )
    devices = {value.device for value in trained.values()}
    if len(devices) > 1:
        raise ValueError(f"parameters lie on {len(devices)} devices: move the module to one")
    return trained, aliases
