#include "expunge/distance.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "expunge/newton.hpp"

namespace expunge {

namespace {

constexpr double none = std::numeric_limits<double>::infinity();

}  // namespace

InverseNorms InverseNorms::by_eigenvalue(double least, double R) {
    if (!(least > 0.0)) return {none, none};
    return {1.0 / std::sqrt(least), R / std::sqrt(least)};
}

// Eliminate the intercept: |v|^2 = v_0^2 / h + |v_c - v_0 m|^2 in the inverse of what is left, which is at
// least lambda. m, a mean of rows, is no longer than R.
InverseNorms InverseNorms::by_penalty(double lambda, double intercept, double R) {
    if (!(lambda > 0.0) || !(intercept > 0.0)) return {none, none};
    const bool eliminated = std::isfinite(intercept);
    const double m = eliminated ? R : 0.0, of_intercept = eliminated ? 1.0 / intercept : 0.0;
    return {std::sqrt((1.0 + m * m) / lambda + of_intercept),
            std::sqrt((R + m) * (R + m) / lambda + of_intercept)};
}

double standard_errors(double nu, double row) {
    const double x = row * nu;
    if (!(x < 1.0)) return none;
    return x > 0.0 ? -std::log1p(-x) / row : nu;
}

// The roots of the squares at theta and at the minimum differ by at most the distance.
double in_residual_spread(double distance, double squares, double weight) {
    const double sigma = (std::sqrt(std::max(0.0, squares)) - distance) / std::sqrt(weight);
    if (sigma > 0.0) return distance / sigma;
    return distance == 0.0 ? 0.0 : none;
}

double distance_by_penalty(const Objective& J, double longest, const VectorRef& theta, const Evaluation& at,
                           double floor) {
    require_size("theta", theta.size(), J.parameters());
    require_size("the gradient", at.gradient.size(), J.parameters());
    const Index d = J.parameters() - (J.fit_intercept() ? 1 : 0);
    const double lambda = d > 0 ? J.penalty().head(d).minCoeff() : none, curvature = at.curvature.sum(),
                 h = J.fit_intercept() ? curvature : none,
                 R = std::sqrt(longest * longest + (J.fit_intercept() ? 1.0 : 0.0));
    const InverseNorms norms = InverseNorms::by_penalty(lambda, h * (1.0 - 1e-9), R);
    const bool quadratic = is_quadratic(J);
    const double nu = (at.residual() + floor) * norms.any;
    const double distance = standard_errors(nu, quadratic ? 0.0 : norms.row);
    if (!quadratic) return distance;
    const double penalty = theta.dot(J.penalty().cwiseProduct(theta)),
                 hidden = 1e-9 * (2.0 * at.value + penalty);
    return in_residual_spread(distance, 2.0 * at.value - penalty - hidden, curvature);  // of weights, here
}

}  // namespace expunge
