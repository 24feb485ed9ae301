"""A spam filter on hashed words forgets one person's messages, a word in a message, and everybody's name."""

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer

import expunge as ex

rng = np.random.default_rng(0)
words = [a + b + c for a in "bdfgklmnprstvz" for b in ("a", "e", "o", "ui") for c in ("st", "n", "ld", "rk")]
people = np.array(["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi"])

n = 2000
senders = rng.choice(people, n)
y = np.where(rng.random(n) < 0.3, "spam", "ham")
texts = []
for sender, label in zip(senders, y, strict=True):
    common = words[:200] if label == "ham" else words[24:]
    texts.append(" ".join([*rng.choice(common, 20), *([sender] if label == "ham" else [])]))

# Hashing, unlike a fitted vocabulary, keeps nothing of the messages. X is CSR and is never densified.
hashing = HashingVectorizer(n_features=2**18, alternate_sign=False)
X = hashing.transform(texts)  # rows of norm 1


def columns_of(chosen):
    """Where words are hashed to."""
    return np.unique(hashing.transform(chosen).indices)


model = ex.LogisticRegression(alpha=0.1).fit(X, y)
un = ex.Unlearner(model, X, y, column_index=True)  # an index of which rows each column is in
print(f"fitted: {n} messages x {X.shape[1]} columns, {X.nnz} entries, residual {model.residual_:.1e}")

from_bob = np.flatnonzero(senders == "bob")
leak = int(np.flatnonzero(senders == "carol")[0])
requests = {
    "bob withdraws his messages": ex.RemoveRows(from_bob),
    "a word must go from one message": ex.CorrectValues([leak], columns_of([texts[leak].split()[0]]), 0.0),
    "names may no longer be used": ex.RevokeFeatures(columns_of(people)),
}
for title, request in requests.items():
    update = un.apply(request)
    print(f"\n{title}\n{update}")

    # The corrected data, fitted from nothing: both models stop within the tolerance, which bounds how far
    # apart they can be. With the 1 of the intercept no row is longer than the square root of 2.
    retrained = un.retrain()
    allowed = 2 * np.sqrt(2.0) * un.tolerance / model.alpha
    distance = np.linalg.norm(model.coef_ - retrained.coef_)
    print(f"  distance to retraining {distance:.1e}, allowed {allowed:.1e}")
    assert distance <= allowed

X_left, y_left, _ = un.corrected_data()
assert X_left.format == "csr"
assert X_left.shape == (n - from_bob.size, X.shape[1] - people.size)
assert X_left.nnz < X.nnz
right = np.mean(model.predict(X_left) == y_left)
print(f"\nwithout names the filter is right on {right:.1%} of the {y_left.size} messages that are left")
