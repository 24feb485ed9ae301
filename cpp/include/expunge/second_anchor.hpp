#pragma once
// A second anchor beside that of the Hessian (E26).
#include <limits>
#include <optional>

#include "expunge/objective.hpp"

namespace expunge {

// E19 at theta_a, of all rows at some time, some of which may have left, and what grows it elsewhere: without
// a pass it is known near by.
struct KnownFloor {
    double value = std::numeric_limits<double>::infinity();
    double additions = 0.0;  // that a term takes part in, the same for each coordinate, and three
    double joined = 0.0;     // weight of rows that came since

    KnownFloor() = default;
    KnownFloor(const Objective& J, double floor);
    // At theta, of J, the current data. No row is longer than R.
    double at(const Objective& J, const VectorRef& anchor, const VectorRef& theta, double R) const;
};

// The gradient of the current data at theta_b, found in one pass, and how far curvatures moved from theta_a,
// where the Hessian was assembled.
struct SecondAnchor {
    Vector theta, gradient;          // theta_b, g_b (p,)
    CurvatureChange moved;           // from theta_a to theta_b
    double gradient_rounding = 0.0;  // the rounding error of g_b is at most this and u gradient_norm
    double gradient_norm = 0.0;      // sum of |g_b| after each edit

    double gradient_error() const { return gradient_rounding + roundoff * gradient_norm; }

    // After a request (E3); `change` is that at theta_b. Its rows `after`, if any, enter kappa and Q, also
    // where they were there before. Nothing where a curvature is too small to tell how far it moved.
    std::optional<SecondAnchor> edit(const Change& change, const Objective* after,
                                     const VectorRef& anchor) const;

    // kappa and the root of Q, raised by what rounding may hide in curvatures. No row is longer than R.
    struct Bounds {
        double kappa, root;
    };
    Bounds bounds(const Loss& loss, const VectorRef& anchor, double R, double weight, Index outputs) const;
};

}  // namespace expunge
