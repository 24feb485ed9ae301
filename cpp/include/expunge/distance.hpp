#pragma once
// The distance to the minimum in standard errors (E41).
#include "expunge/objective.hpp"

namespace expunge {

// Bounds in the norm of H^-1: of any vector of length 1, and of every row.
struct InverseNorms {
    double any, row;

    // By the least eigenvalue of H. No row is longer than R.
    static InverseNorms by_eigenvalue(double least, double R);
    // By the least penalty of a coefficient. `intercept`: the diagonal entry of H there, infinite where there
    // is none. With one, R counts it, and the other entries of its column are, over that one, a mean of rows.
    static InverseNorms by_penalty(double lambda, double intercept, double R);
};

// E41: a bound of |theta - theta*|_H where the Newton decrement is at most nu; infinite where there is none.
double standard_errors(double nu, double row);

// The same in standard errors of a least-squares fit, of which `squares` (s (y - eta)^2) are left at theta.
double in_residual_spread(double distance, double squares, double weight);

// The bound by the penalty alone, without a factor. No row is longer than `longest`, intercept not counted.
// `at`: J at theta, with its curvature; `floor` bounds the rounding error of its gradient.
double distance_by_penalty(const Objective& J, double longest, const VectorRef& theta, const Evaluation& at,
                           double floor);

}  // namespace expunge
