"""A Hessian that is known by its products with vectors, and not factored as a whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import _core
from .._arrays import Float
from ..errors import ConvergenceError

LINEAR_TOLERANCE = 1e-2  # relative, of a second-order step by conjugate gradients
MAX_PRODUCTS = 5000  # Hessian-vector products of such a step


@dataclass
class Products:
    """Solves by preconditioned conjugate gradients, and counts its passes over the data."""

    objective: _core.Objective
    curvature: Float
    preconditioner: _core.Anchor
    tolerance: float
    exact: bool  # whether H is constant: its step is then exact, and solved to the tolerance
    passes: int = 0

    def solve(self, b: Float, /) -> Float:
        """H^-1 b, to an absolute or a relative residual, whichever is the larger."""
        relative = 0.0 if self.exact else LINEAR_TOLERANCE
        target = max(self.tolerance, relative * float(np.linalg.norm(b)))
        x, products, converged = _core.solve(
            self.objective, self.curvature, b, self.preconditioner, target, MAX_PRODUCTS
        )
        self.passes += products
        if not converged:
            raise ConvergenceError(
                f"conjugate gradients did not reach a residual of {target:.3g} in {products} products: raise "
                "alpha, scale the columns of X, or use method='exact'"
            )
        return x
