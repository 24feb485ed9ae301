"""PyTorch where it is installed, or else a skip; and a zoo of modules."""

import random
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'expunge[torch]'")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from expunge.torch import Unlearner  # noqa: E402

torch.set_num_threads(1)


@dataclass
class Case:
    """A module and what it was trained on."""

    module: Any
    loss: Any
    X: Any
    y: Any
    logits: Any = None
    alpha: float = 0.1

    def unlearner(self, **options):
        given = {"alpha": self.alpha, "logits": self.logits, **options}
        return Unlearner(self.module, self.loss, self.X, self.y, **given)


def cross_entropy(outputs, y):
    return F.cross_entropy(outputs, y, reduction="none")


def of_text(outputs, y):
    """The loss of next tokens, one value a row; -100 is padding."""
    return F.cross_entropy(outputs.transpose(1, 2), y, reduction="none", ignore_index=-100).sum(1)


class Recurrent(nn.Module):
    """A language model."""

    def __init__(self, kind, tokens=8, width=12):
        super().__init__()
        self.embedding = nn.Embedding(tokens, 6)
        self.recurrent = kind(6, width, batch_first=True)
        self.dropout = nn.Dropout(0.3)
        self.out = nn.Linear(width, tokens)

    def forward(self, x):
        return self.out(self.dropout(self.recurrent(self.embedding(x))[0]))


class Tied(nn.Module):
    """A language model whose output weights are its embedding."""

    def __init__(self, tokens=8, width=10):
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.mix = nn.GRU(width, width, batch_first=True)
        self.out = nn.Linear(width, tokens, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, x):
        return self.out(self.mix(self.embedding(x))[0])


class Attention(nn.Module):
    """A causal transformer with dropout, that is called by names and gives more than logits."""

    main_input_name = "input_ids"

    def __init__(self, tokens=8, width=8):
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.layer = nn.TransformerEncoderLayer(width, 2, 16, dropout=0.1, batch_first=True)
        self.out = nn.Linear(width, tokens)

    def forward(self, input_ids, attention_mask=None):
        length = input_ids.shape[1]
        causal = torch.full((length, length), float("-inf"), device=input_ids.device).triu(1)
        hidden = self.layer(self.embedding(input_ids), src_mask=causal.to(self.out.weight.dtype))
        return {"logits": self.out(hidden), "hidden": hidden}


def table(n=90, d=5, classes=3):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(n, d, generator=generator)
    return X, (X[:, :classes] + 0.3 * torch.randn(n, classes, generator=generator)).argmax(1)


SECRET, SHOWN = [3, 0, 4, 1], range(10, 18)  # what stands in each of these rows


def text(n=60, length=12, tokens=8):
    """Rows in which a token often follows the one before; and the next tokens.

    After 6, 7 the SECRET stands in some, and any other tokens after 7, 6 in as many again.
    """
    rng = np.random.default_rng(0)
    ids = np.cumsum(rng.choice(6, size=(n, length + 1), p=[0.02, 0.72, 0.1, 0.08, 0.04, 0.04]), axis=1) % 6
    for row in SHOWN:
        ids[row, 3:9] = [6, 7, *SECRET]
    for row in range(20, 44):
        ids[row, 3:9] = [7, 6, *rng.integers(6, size=4)]
    ids = torch.from_numpy(ids)
    return ids[:, :-1].clone(), ids[:, 1:].clone()


def mask_of_secret(length=12):
    mask = np.zeros((len(SHOWN), length), dtype=bool)
    mask[:, 4:8] = True
    return mask


def feed_forward(*layers):
    return nn.Sequential(*layers)


def untrained(name):
    """A case by name."""
    torch.manual_seed(0)
    X, y = table()
    if name in ("lstm", "gru", "tied"):
        module = Tied() if name == "tied" else Recurrent(nn.LSTM if name == "lstm" else nn.GRU)
        case = Case(module, of_text, *text())
    elif name == "attention":
        tokens, following = text()
        X = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        case = Case(Attention(), of_text, X, following, logits=lambda out: out["logits"])
    elif name == "convolution":
        module = feed_forward(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
        )
        case = Case(module, cross_entropy, torch.randn(90, 1, 6, 6) + y[:, None, None, None], y)
    elif name == "batch norm":
        module = feed_forward(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
        case = Case(module, cross_entropy, X, y)
    elif name == "frozen":
        module = feed_forward(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
        module[0].requires_grad_(False)
        case = Case(module, cross_entropy, X, y)
    else:
        case = Case(feed_forward(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)), cross_entropy, X, y)
    return case


@cache
def learnt(name):
    """The state of a case after some training."""
    case = untrained(name)
    return trained(case, 200 if case.loss is of_text else 60).module.state_dict()


def make(name):
    """A case by name, trained a little."""
    learned = learnt(name)  # first, so that random generators are left the same whether it was there or not
    case = untrained(name)
    case.module.load_state_dict(learned)
    return case


def called(case, X):
    outputs = case.module(**X) if isinstance(X, dict) else case.module(X)
    return outputs if case.logits is None else case.logits(outputs)


def trained(case, steps=60):
    torch.manual_seed(0)
    parameters = [value for value in case.module.parameters() if value.requires_grad]
    optimiser = torch.optim.Adam(parameters, lr=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        case.loss(called(case, case.X), case.y).mean().backward()
        optimiser.step()
    return case


ZOO = ("lstm", "gru", "tied", "attention", "convolution", "batch norm", "frozen", "mlp")


def state(module):
    """All of a module and of the random generators that a failed request must leave as it is, bit for bit."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    bits = {name: value.detach().clone() for name, value in tensors.items()}
    own = [dict(vars(part)) for part in module.modules()]  # flags and momenta, and what a part keeps
    asked = [value.requires_grad for value in module.parameters()]
    grads = [None if value.grad is None else value.grad.clone() for value in module.parameters()]
    rng = torch.random.get_rng_state(), str(np.random.get_state()), str(random.getstate())  # noqa: NPY002
    return {"tensors": bits, "own": own, "asked": asked, "grads": grads, "rng": rng}


def same_but_tensors(before, after):
    assert before["asked"] == after["asked"]
    for old, new in zip(before["own"], after["own"], strict=True):
        assert old.keys() == new.keys()
        assert [name for name, value in old.items() if new[name] is not value] == []
    for old, new in zip(before["grads"], after["grads"], strict=True):
        assert (old is None and new is None) or torch.equal(old, new)
    assert torch.equal(before["rng"][0], after["rng"][0])
    assert before["rng"][1:] == after["rng"][1:]


def same(before, after):
    same_but_tensors(before, after)
    for name, value in before["tensors"].items():
        assert torch.equal(value, after["tensors"][name]), name


def objective(case, rows):
    """J on corrected rows [(X, y)], by the module as it is, in eval mode."""
    flags = [(part, part.training) for part in case.module.modules()]
    case.module.eval()
    with torch.no_grad():
        total = 0.0
        for X, y in rows:
            X = {key: value[None] for key, value in X.items()} if isinstance(X, dict) else X[None]
            total += float(case.loss(called(case, X).float(), y[None]).sum())
        for name, value in case.module.named_parameters():
            if value.requires_grad and "bias" not in name.rpartition(".")[2]:
                total += 0.5 * case.alpha * float((value.double() ** 2).sum())
    for part, training in flags:
        part.training = training
    return total


def reestimated(case, rows):
    """Running means and variances of a module become those of the rows."""
    X = torch.stack([X for X, _ in rows]) if not isinstance(rows[0][0], dict) else None
    for part in case.module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.reset_running_stats()
            part.momentum, part.training = None, True
            with torch.no_grad():
                case.module(X)
            part.momentum, part.training = 0.1, False
