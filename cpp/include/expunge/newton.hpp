#pragma once
#include <functional>
#include <limits>
#include <memory>
#include <optional>

#include "expunge/anchor.hpp"

namespace expunge {

// What a new anchor costs, in Hessian-vector products.
double anchor_cost(const Objective& J, Index block);

struct Minimum {
    Vector theta;
    Evaluation at;                         // at theta
    double floor = 0.0;                    // E19 at theta
    int iterations = 0;                    // accepted or refused Newton steps
    int passes = 0;                        // over all rows: gradients, products, Hessians, the floor
    std::shared_ptr<const Anchor> anchor;  // the last factor used; null if none was needed

    // Of a row. Where J does not know it, the first pass finds it.
    double largest_norm = std::numeric_limits<double>::infinity();
};

bool is_quadratic(const Objective& J);

// E11: minimises J from theta until the residual |grad J| <= tolerance, or until rounding stops it.
// anchor: an earlier factor of about this Hessian, or null.
// start: J and its gradient at theta, where they are known. Where iterations from theta fail, they start
// again from 0. checkpoint: called before each iteration; it may throw. block: how many coordinates the
// anchors made on the way factor. dual: whether a quadratic may be minimised from 0 in the dual (E23), where
// that costs less. No anchor is left.
Minimum minimize(
    const Objective& J, Vector theta, double tolerance, int max_iter,
    std::shared_ptr<const Anchor> anchor = nullptr, std::optional<Evaluation> start = std::nullopt,
    const std::function<void()>& checkpoint = [] {}, Index block = all_coordinates, bool dual = false);

struct Solution {
    Vector x;
    int products;
    bool converged;
};

// Solves H x = b by conjugate gradients until |H x - b| <= tolerance. H is the Hessian of J for this
// curvature of its rows, and `anchor`, of about that Hessian, preconditions. With b = grad J every iterate is
// a direction of ascent.
Solution solve(const Objective& J, const VectorRef& curvature, const VectorRef& b, const Anchor& anchor,
               double tolerance, int max_products);

}  // namespace expunge
