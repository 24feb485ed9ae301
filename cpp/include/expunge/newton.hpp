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

    // Of a row: found in the first pass where J knows none.
    double largest_norm = std::numeric_limits<double>::infinity();
};

bool is_quadratic(const Objective& J);

// E11: minimise J from theta until the residual |grad J| <= tolerance, or until rounding stops it.
// `anchor` is any earlier factor of about this Hessian; `start` is J and its gradient at theta where
// they are known. Where theta leads nowhere it starts again from 0. `checkpoint` is called before each
// iteration and may throw. `block` is that of the anchors made on the way. `dual` allows to minimise a
// quadratic from zero in the dual (E23), where that costs less; it leaves no anchor.
Minimum minimize(
    const Objective& J, Vector theta, double tolerance, int max_iter,
    std::shared_ptr<const Anchor> anchor = nullptr, std::optional<Evaluation> start = std::nullopt,
    const std::function<void()>& checkpoint = [] {}, Index block = all_coordinates, bool dual = false);

struct Solution {
    Vector x;
    int products;
    bool converged;
};

// H x = b by conjugate gradients to |H x - b| <= tolerance, H the Hessian of J where its rows have this
// curvature, preconditioned by an anchor of about this Hessian. Where b = grad J,
// every iterate is a direction of ascent.
Solution solve(const Objective& J, const VectorRef& curvature, const VectorRef& b, const Anchor& anchor,
               double tolerance, int max_products);

}  // namespace expunge
