#pragma once
#include <memory>
#include <vector>

#include "expunge/cholesky.hpp"
#include "expunge/objective.hpp"

namespace expunge {

// The Hessian of the current data at a fixed anchor theta_a, and its factor (E8). Immutable: an edit
// gives a new anchor, so that a request which fails has changed nothing.
class Anchor : public std::enable_shared_from_this<Anchor> {
public:
    Anchor(const Objective& objective, Vector theta);

    // Rows before -> after: H changes by their Gram matrices at theta_a; either may be null. Where the
    // curvature stays, as under corrected labels (E6), so does the anchor. Null if what is left of H would
    // be mostly the rounding of what has left it: then H has to be assembled anew.
    std::shared_ptr<const Anchor> edit(const Objective* before, const Objective* after) const;

    // Without the coordinates in `dropped` (ascending).
    std::shared_ptr<const Anchor> drop(const std::vector<Index>& dropped) const;

    const Vector& theta() const { return theta_; }
    const Matrix& hessian() const { return H_; }  // lower triangle
    const CholeskyFactor& factor() const { return factor_; }

private:
    Anchor(Vector theta, Matrix H, CholeskyFactor factor, Vector largest);

    Vector theta_;
    Matrix H_;
    CholeskyFactor factor_;
    Vector largest_;  // diagonal of H at its largest since it was assembled: the scale of its rounding
};

}  // namespace expunge
