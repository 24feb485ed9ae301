"""The paper's first- and second-order updates on plain arrays, beside retraining.

Warnecke, Pirch, Wressnegger, Rieck: Machine Unlearning of Features and Labels, NDSS 2023. E-numbers refer
to docs/derivation.md.
"""

import numpy as np
from sklearn.datasets import load_breast_cancer

from expunge import LogisticRegression, kernels
from expunge.losses import get_loss
from expunge.updates import first_order_update, safe_tau, second_order_update

data = load_breast_cancer()
X, y = np.log1p(data.data), data.target.astype(float)
X = X / np.linalg.norm(X, axis=1, keepdims=True)  # rows of norm 1, as in the paper
alpha = 1.0


def train(X, y):
    return LogisticRegression(alpha=alpha, fit_intercept=False, tol=1e-10).fit(X, y).coef_.ravel()


theta = train(X, y)

# The request: fifteen labels were wrong, and in the same rows two measurements must be blanked (E2).
rows = np.random.default_rng(0).choice(len(X), 15, replace=False)
X_new, y_new = X.copy(), y.copy()
y_new[rows] = 1.0 - y[rows]
X_new[np.ix_(rows, [0, 20])] = 0.0

# g, the gradient at the old theta on the corrected data, from the touched rows alone (E3).
g_Z = kernels.gradient_difference((X[rows], y[rows]), (X_new[rows], y_new[rows]), theta)
g = kernels.gradient(X, y, theta, alpha=alpha) + g_Z  # the first term is 0 up to the residual of the fit

# First order, with the step size that cannot overshoot (E4).
gram_norm = np.linalg.norm(kernels.gram(X_new, np.ones(len(X))))  # Frobenius: an upper bound of the 2-norm
tau = safe_tau(gram_norm, alpha, get_loss("logistic"))

# Second order, with the Hessian of the data as they were (influence function) or as they are (E5).
factor_old = kernels.CholeskyFactor(kernels.hessian(X, theta, alpha=alpha))
factor_new = kernels.CholeskyFactor(kernels.hessian(X_new, theta, alpha=alpha))

retrained = train(X_new, y_new)
results = {
    "nothing": theta,
    "first order": first_order_update(theta, g, tau),
    "second order, original H": second_order_update(theta, g, factor_old),
    "second order, corrected H": second_order_update(theta, g, factor_new),
    "retrained": retrained,
}
print(f"{'':28}{'residual':>12}{'distance to retraining':>26}")
residual, distance = {}, {}
for name, updated in results.items():
    residual[name] = np.linalg.norm(kernels.gradient(X_new, y_new, updated, alpha=alpha))
    distance[name] = np.linalg.norm(updated - retrained)
    print(f"{name:28}{residual[name]:12.1e}{distance[name]:26.1e}")

assert residual["first order"] < residual["nothing"]
assert distance["second order, corrected H"] < 0.1 * distance["nothing"]
assert residual["retrained"] < 1e-9
