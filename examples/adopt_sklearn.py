"""A fitted scikit-learn model, in use elsewhere, forgets rows and a feature in place."""

import numpy as np
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

import expunge as ex

try:
    import pandas as pd
except ImportError:
    pd = None


class Clinic:
    """Somebody's code: it holds a scikit-learn model and knows nothing of expunge."""

    def __init__(self, model):
        self.model = model

    def malignant(self, patients):
        return self.model.predict(patients) == "malignant"


data = load_breast_cancer()
X, y = np.log1p(data.data), data.target_names[data.target]
names = [str(name) for name in data.feature_names]
if pd is not None:
    X = pd.DataFrame(X, columns=names)

clinic = Clinic(LogisticRegression(C=0.5, max_iter=10_000).fit(X, y))
print(f"{int(clinic.malignant(X).sum())} of {len(y)} called malignant by scikit-learn's own fit")

un = ex.Unlearner(clinic.model, X, y)  # alpha = 1 / C; the same object, now polished to the tolerance
print(f"residual as scikit-learn left it {un.residual_on_entry:.1e}, after adoption {un.residual():.1e}")

column = "worst area"
request = [ex.RemoveRows(range(20)), ex.RevokeFeatures(column if pd else names.index(column))]
print(un.apply(request, method="exact"))

# The clinic's object changed in place and predicts with scikit-learn's code, on the features that are left.
narrow = X[clinic.model.feature_names_in_] if pd else X[:, un.get_support()]
assert clinic.model is un.model
assert clinic.model.n_features_in_ == len(names) - 1
print(f"{int(clinic.malignant(narrow).sum())} of {len(y)} called malignant after unlearning")

# scikit-learn, retrained with care on what is left, comes to the same coefficients.
X_left, y_left, _ = un.corrected_data()
retrained = clone(clinic.model).set_params(solver="newton-cholesky", tol=1e-10).fit(X_left, y_left)
distance = np.linalg.norm(clinic.model.coef_ - retrained.coef_)
residual = ex.residual(retrained, X_left, y_left)
print(f"distance to scikit-learn's retraining {distance:.1e} (whose residual is {residual:.1e})")
longest_row = np.sqrt((X_left**2).sum(axis=1).max() + 1.0)
assert distance <= longest_row * (un.tolerance + residual) * clinic.model.C  # C = 1 / alpha
