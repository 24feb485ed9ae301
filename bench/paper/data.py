"""Data of the experiments with networks: from the folder EXPUNGE_DATA, bundled, or made."""

import os
from functools import cache
from pathlib import Path

import numpy as np

from expunge.datasets import load_adult

FIRST_SEED = 2000  # defaults of expunge.torch were chosen on others, and on other secrets

GRAMMAR = (
    "king queen cat hare garden table door river clock book hat dream mirror rose soldier cook",
    "saw found lost asked followed heard painted forgot remembered opened closed turned",
    "old curious small white sleepy grand silent merry broken golden little strange",
    "and but because while although until since before",
)


def folder():
    """Where the user's data lie, or None."""
    return Path(os.environ["EXPUNGE_DATA"]) if os.environ.get("EXPUNGE_DATA") else None


@cache
def words(count):
    """Running text in lower case: Alice in Wonderland if it is there, else made."""
    path = folder() / "alice_in_wonderland.txt" if folder() else None
    if path is not None and path.exists():
        text = path.read_text(encoding="utf-8", errors="replace")
    else:
        text = made_text()
    kept = "".join(c if c.isascii() and (c.isalpha() or c in " \n.,;:!?'()-") else " " for c in text.lower())
    return " ".join(kept.split())[:count]


def made_text(characters=150_000):
    """Sentences of a small grammar, for machines without a text."""
    rng = np.random.default_rng(0)
    nouns, verbs, traits, links = (line.split() for line in GRAMMAR)
    sentences, length = [], 0
    while length < characters:
        clauses = [
            f"the {rng.choice(traits)} {rng.choice(nouns)} {rng.choice(verbs)} the {rng.choice(nouns)}"
            for _ in range(rng.integers(1, 4))
        ]
        sentences.append(f" {rng.choice(links)} ".join(clauses) + ".")
        length += len(sentences[-1]) + 1
    return " ".join(sentences)


@cache
def adult(rows):
    """Rows of Adult, its test rows and names of columns; made ones where it is not there."""
    path = folder() / "adult.npz" if folder() else None
    if path is None or not path.exists():
        return made_people(rows)
    data = load_adult(path.parent)
    kept = np.random.default_rng(0).permutation(len(data.X))[:rows]
    return (
        (data.X[kept].astype(np.float32), data.y[kept].astype(np.int64)),
        (data.X_test.astype(np.float32), data.y_test.astype(np.int64)),
        list(data.feature_names),
    )


def made_people(rows, tests=4000, width=40):
    """Rows with groups of 0/1 columns, as categories have them, and labels with noise."""
    rng = np.random.default_rng(0)
    X = (rng.random((rows + tests, width)) < rng.uniform(0.05, 0.5, size=width)).astype(np.float32)
    X[:, :5] = rng.standard_normal((len(X), 5))
    hidden = np.tanh(X @ rng.standard_normal((width, 8)))
    logits = 2.0 * hidden @ rng.standard_normal(8) - 1.0
    y = (rng.random(len(X)) < 1.0 / (1.0 + np.exp(-logits))).astype(np.int64)
    names = [f"marital-status_{j}" if 5 <= j < 16 else f"column {j}" for j in range(width)]
    return (X[:rows], y[:rows]), (X[rows:], y[rows:]), names
