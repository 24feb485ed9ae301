"""Fit, unlearn, and check the answer against retraining, on the data that scikit-learn ships."""

import numpy as np
from sklearn.datasets import load_breast_cancer

import expunge as ex

data = load_breast_cancer()
X = np.log1p(data.data)  # a fixed formula: unlike a fitted scaler, it keeps nothing of the rows
y = data.target_names[data.target]
names = [str(name) for name in data.feature_names]

model = ex.LogisticRegression(alpha=1.0).fit(X, y)
un = ex.Unlearner(model, X, y)
print(f"fitted: {X.shape[0]} rows x {X.shape[1]} columns, residual {model.residual_:.1e}")

requests = {
    "three patients withdraw": ex.RemoveRows([3, 7, 11]),
    "two labels and a measurement were wrong": [
        ex.CorrectLabels([12, 40], ["benign", "malignant"]),
        ex.CorrectValues([5], [names.index("mean radius")], np.log1p(14.2)),
    ],
    "two features may no longer be used": ex.RevokeFeatures(
        [names.index("worst area"), names.index("worst radius")]
    ),
}
for title, request in requests.items():
    before = un.model.coef_.copy()
    update = un.apply(request)
    print(f"\n{title}\n{update}")

    # The corrected data, fitted from nothing: no coefficient may be further away than proven.
    retrained = un.retrain()
    apart = np.abs(un.model.coef_[0] - retrained.coef_[0]) / un.standard_errors()[:-1]
    print(f"  from retraining {apart.max():.1e} standard errors, proven {update.distance:.1e}")
    assert apart.max() <= update.distance + 1e-6 <= 0.011

kept = un.get_support()
assert (un.model.predict(X[:, kept]) == retrained.predict(X[:, kept])).all()
print(f"\nthe model now has {un.model.n_features_in_} features and predicts what retraining predicts")
