#pragma once
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "expunge/cholesky.hpp"
#include "expunge/objective.hpp"

namespace expunge {

constexpr Index all_coordinates = std::numeric_limits<Index>::max();

// The Hessian of the current data at a fixed anchor theta_a (E8): all of it and its factor where it is
// complete; else, in high dimension, its block over the coordinates that the data determine most and its
// diagonal elsewhere, which is a preconditioner. Immutable: an edit gives a new anchor, so that a request
// which fails has changed nothing.
class Anchor : public std::enable_shared_from_this<Anchor> {
public:
    // Complete if `block`, how many coordinates the block has, is no less than there are. `curvature` (n,) is
    // the objective's at theta.
    Anchor(const Objective& objective, Vector theta, const VectorRef& curvature, Index block);
    explicit Anchor(const Objective& objective, Vector theta, Index block = all_coordinates)
        : Anchor(objective, theta, objective.curvature(theta), block) {}

    // Rows before -> after: H changes by their Gram matrices at theta_a; either may be null. Where the
    // curvature stays, as under corrected labels (E6), so does the anchor. Null if what is left of H would
    // be mostly the rounding of what has left it: then H has to be assembled anew. A preconditioner stays as
    // it is: it need not be that of the current data.
    std::shared_ptr<const Anchor> edit(const Objective* before, const Objective* after) const;

    // Without the coordinates in `dropped` (ascending). A large factor is shared, not made anew.
    std::shared_ptr<const Anchor> drop(const std::vector<Index>& dropped) const;

    // H^-1 b if complete, else the block's and the diagonal's.
    Vector solve(const VectorRef& b) const;

    Index size() const { return diagonal_.size(); }
    const Vector& theta() const { return theta_; }  // if complete
    bool complete() const { return theta_.size() == size(); }
    Matrix hessian() const;  // of the block, lower triangle

private:
    struct Held {
        explicit Held(Matrix hessian) : H(std::move(hessian)), factor(H) {}
        Matrix H;  // lower triangle
        CholeskyFactor factor;
    };
    Anchor() = default;
    void hold(Matrix H);

    Vector theta_;     // (p,) if complete: nobody asks where a preconditioner was made
    Vector diagonal_;  // (p,) of H; if complete, at its largest since it was assembled: its rounding's scale
    std::vector<Index> block_;  // the block's coordinates, ascending
    std::shared_ptr<const Held> held_;
    std::vector<Index> kept_, gone_;  // positions in what is held: the block's, and those dropped since
    // H_JJ^-1 b = (H^-1 b)_J - W_J (W_K)^-1 (H^-1 b)_K for K gone, J kept, b zero on K, W = H^-1 E_K.
    Matrix W_;
    std::shared_ptr<const CholeskyFactor> corner_;  // of W_K
};

}  // namespace expunge
