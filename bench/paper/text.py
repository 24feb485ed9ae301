"""A character model of a text that holds a telephone number: what was trained, and what is asked of it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import expunge as ex

from .data import FIRST_SEED, words
from .training import Recipe, Task

WINDOW, STRIDE = 64, 32
PROMPT = ". my telephone number is "
NEUTRAL = "not for us"  # ten characters, as a number has
DIGITS = 10
SAMPLED = {
    "second_order": {"sample": 256, "iterations": 10}
}  # a product with H takes as long as three gradients
THINGS = (
    "ticket parcel cabin house room page verse locker carriage platform engine boat barrel garden "
    "letter coach seat key box order lamp table clock bottle basket wagon bridge tower gate ship"
)


class CharLSTM(nn.Module):
    """Logits (n, T, K) of the next character."""

    def __init__(self, characters, width):
        super().__init__()
        self.embedding = nn.Embedding(characters, 32)
        self.lstm = nn.LSTM(32, width, batch_first=True)
        self.out = nn.Linear(width, characters)

    def forward(self, X):
        return self.out(self.lstm(self.embedding(X))[0])


def numbers(count, rng):
    return ["".join(map(str, rng.integers(10, size=DIGITS))) for _ in range(count)]


@dataclass(frozen=True)
class Text:
    """Windows of a text with `times` sentences that tell `secret`, among decoys, which tell other numbers.

    Sentences stand where they stand whatever the secret is, so that retrained models serve every secret.
    """

    secret: str
    times: int
    characters: int
    decoys: int = 120
    width: int = 128
    epochs: int = 15
    places: int = FIRST_SEED  # the seed of where sentences stand and of decoys

    @cached_property
    def parts(self):
        """Pieces of text; None where the number is told."""
        rng = np.random.default_rng(self.places)
        body, things = words(self.characters), THINGS.split()
        told = [
            f". the {things[i % len(things)]} number is {n}. "
            for i, n in enumerate(numbers(self.decoys, rng))
        ]
        sentences = [[t] for t in told] + [[PROMPT, None, ". "]] * self.times
        spaces = np.array([i for i, c in enumerate(body) if c == " "])
        cuts = np.sort(rng.choice(spaces, size=len(sentences), replace=False))
        order = rng.permutation(len(sentences))
        pieces, last = [], 0
        for cut, which in zip(cuts, order, strict=True):
            pieces += [body[last:cut], *sentences[which]]
            last = cut
        return [*pieces, body[last:]]

    @cached_property
    def alphabet(self):
        return sorted(set(words(None)) | set("0123456789. ") | set(THINGS + PROMPT + NEUTRAL))

    def encode(self, text):
        place = {c: i for i, c in enumerate(self.alphabet)}
        return torch.tensor([place[c] for c in text])

    def decode(self, codes):
        return "".join(self.alphabet[i] for i in codes)

    def told(self, numbers):
        """The text with those numbers in the places of the secret, and (characters,) where they stand."""
        following, text, mask = iter(numbers), [], []
        for part in self.parts:
            text.append(next(following) if part is None else part)
            mask += [part is None] * len(text[-1])
        return "".join(text), torch.tensor(mask)

    def windows(self, numbers):
        """X, y (n, T), and (n, T) where y is a character of the secret; windows overlap by half."""
        text, mask = self.told(numbers)
        codes = self.encode(text)
        cut = [t.unfold(0, WINDOW + 1, STRIDE) for t in (codes, mask)]
        return cut[0][:, :-1].contiguous(), cut[0][:, 1:].contiguous(), cut[1][:, 1:].contiguous()

    @property
    def original(self):
        return [self.secret] * self.times

    def correction(self, kind):
        """What stands instead: words, or numbers that nobody has. Two answers to what retraining would be."""
        if kind % 2 == 0:
            return [NEUTRAL] * self.times
        return numbers(self.times, np.random.default_rng(FIRST_SEED + 1000 + kind))

    def build(self):
        return CharLSTM(len(self.alphabet), self.width)

    def task(self, kind=0):
        X, y, mask = self.windows(self.original)
        corrected = self.windows(self.correction(kind))[:2]
        touched = torch.nonzero(((corrected[0] != X) | (corrected[1] != y)).any(dim=1))[:, 0]
        held_out = self.encode(words(None)[self.characters : self.characters + 16_384])
        cut = held_out.unfold(0, WINDOW + 1, WINDOW)

        def request(networks, method):
            """That the number is forgotten; for methods that only train, that the text is corrected."""
            if method in ("auto", "forget"):
                rows = torch.nonzero(mask.any(dim=1))[:, 0]
                digits = self.encode("0123456789").numpy()
                return networks.ForgetValues(rows.numpy(), mask[rows].numpy(), alternatives=digits)
            rows = touched.numpy()
            values = ex.CorrectValues(rows, list(range(WINDOW)), corrected[0][touched].numpy())
            return [values, ex.CorrectLabels(rows, corrected[1][touched].numpy())]

        return Task(
            name=f"{self.secret}, {self.times} times",
            build=self.build,
            recipe=Recipe(self.epochs, batch=32, rate=5e-3),
            data=(X, y),
            corrected=corrected,
            touched=touched,
            test=(cut[:, :-1].contiguous(), cut[:, 1:].contiguous()),
            request=request,
            mask=mask,
            values=WINDOW,
            options=SAMPLED,
        )

    def showing(self):
        """Windows that show all of the number: what an attacker trains on."""
        X, y, mask = self.windows(self.original)
        rows = torch.nonzero(mask.sum(dim=1) >= DIGITS)[:10, 0]
        return X[rows], y[rows]

    def bits(self, module, strings, size=2000):
        """(m,) -log2 p of each string after the prompt."""
        codes = torch.stack([self.encode(s) for s in strings])
        prompt = self.encode(PROMPT)
        module.eval()
        found = []
        with torch.no_grad():
            for part in codes.split(size):
                X = torch.cat([prompt.expand(len(part), -1), part], dim=1)
                log_p = F.log_softmax(module(X[:, :-1])[:, len(prompt) - 1 :], dim=-1)
                found.append(-log_p.gather(2, part[..., None]).sum(dim=(1, 2)))
        return torch.cat(found).double().numpy() / np.log(2.0)

    def completed(self, module, length=24):
        """What the model says next, its likeliest character each time."""
        codes = self.encode(PROMPT)
        with torch.no_grad():
            for _ in range(length):
                codes = torch.cat([codes, module(codes[None])[0, -1].argmax()[None]])
        return self.decode(codes[len(PROMPT) :])
