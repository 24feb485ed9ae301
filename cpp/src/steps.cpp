// Steps from statistics (E9, E26), and how good they are (E10, E24, E41).
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "expunge/statistics.hpp"

namespace expunge {

namespace {

// psi(rho) / rho^2, psi(rho) = e^rho - 1 - rho. It is 1/2 at 0 and grows.
double psi_ratio(double rho) {
    if (rho > 1.0) return (std::expm1(rho) - rho) / (rho * rho);
    double sum = 0.0, term = 0.5;  // sum of rho^k / (k + 2)!
    for (int k = 3; term > 0x1p-60; ++k) {
        sum += term;
        term *= rho / k;
    }
    return sum;
}

// The largest |step_k - step_l| of two classes.
double widest(const Vector& step, Index K) {
    const Index p = step.size() / K;
    double widest = 0.0;
    for (Index k = 0; k < K; ++k)
        for (Index l = 0; l < k; ++l)
            widest = std::max(widest, (step.segment(k * p, p) - step.segment(l * p, p)).norm());
    return widest * (1.0 + 1e-12);
}

// A lower bound of the least eigenvalue of the intercepts' part of H, but for the constant.
double intercepts_of(const Anchor& H, Index K) {
    const Index p = H.size() / K;
    Matrix h(K, K);
    Vector one = Vector::Zero(H.size());
    for (Index k = 0; k < K; ++k) {
        one((k + 1) * p - 1) = 1.0;
        const Vector column = H.multiply(one);
        one((k + 1) * p - 1) = 0.0;
        for (Index l = 0; l < K; ++l) h(l, k) = column((l + 1) * p - 1);
    }
    return least_eigenvalue(h);
}

}  // namespace

double AnchoredStatistics::step_error(double length, double theta_norm, double hessian) const {
    const double H = state_.anchor->frobenius();
    const auto p = static_cast<double>(gradient().size());
    return step_gradient_error() + hessian * length + roundoff * H * theta_norm +
           p * roundoff * gradient().norm();
}

AnchoredStatistics::Solution AnchoredStatistics::solve() const {
    const Anchor& H = *state_.anchor;
    const Vector &g = gradient(), &from = second_ ? second_->theta : H.theta();
    const auto measured = [&](Vector x) {
        Vector product = H.multiply(x);
        const double residual = (g - product).norm();
        return Solution{std::move(x), std::move(product), residual};
    };
    Solution solution = measured(start_ ? *start_ : H.solve(g));
    if (solution.residual > 0.5 * step_error(solution.x.norm(), (from - solution.x).norm(), sums_error())) {
        // one step of refinement
        Solution refined = measured(solution.x + H.solve(g - solution.product));
        if (refined.residual < solution.residual) return refined;
    }
    return solution;
}

double AnchoredStatistics::reach(const Vector& step) const {
    if (quadratic() || step.size() == 0) return 0.0;
    if (rows_) return rows_->reach(step);
    const double R = state_.tallies.largest_norm;
    if (state_.outputs > 1) return R * widest(step, state_.outputs);
    if (!state_.fit_intercept) return R * step.norm();
    const Index d = step.size() - 1;
    return std::sqrt(std::max(0.0, R * R - 1.0)) * step.head(d).norm() + std::abs(step(d));
}

std::pair<double, double> AnchoredStatistics::penalties() const {
    const Index p = state_.penalty.size() / state_.outputs, d = p - (state_.fit_intercept ? 1 : 0);
    double least = std::numeric_limits<double>::infinity(), largest = 0.0;
    for (Index k = 0; d > 0 && k < state_.outputs; ++k) {
        least = std::min(least, state_.penalty.segment(k * p, d).minCoeff());
        largest = std::max(largest, state_.penalty.segment(k * p, d).maxCoeff());
    }
    return {least, largest};
}

double AnchoredStatistics::row_norm() const {
    const double R = state_.tallies.largest_norm;
    return state_.outputs > 1 ? std::sqrt(2.0) * (1.0 + 0x1p-50) * R : R;
}

// On vectors that are the same for all classes H is their penalty, and a multiple for intercepts.
double AnchoredStatistics::inverses_of_constants() const {
    const Index K = state_.outputs, p = state_.penalty.size() / K, d = p - (state_.fit_intercept ? 1 : 0);
    if (p == 0) return 0.0;
    for (Index k = 1; k < K; ++k)
        if (state_.penalty.segment(k * p, p) != state_.penalty.head(p)) return 0.0;
    double inverses = state_.penalty.head(d).cwiseInverse().sum();
    if (state_.fit_intercept) {
        Vector one = Vector::Zero(K * p);
        for (Index k = 0; k < K; ++k) one((k + 1) * p - 1) = 1.0;
        inverses += static_cast<double>(K) / one.dot(state_.anchor->multiply(one));
    }
    return std::isfinite(inverses) ? inverses * (1.0 - 1e-9) : 0.0;
}

InverseNorms AnchoredStatistics::norms_by_inverse() const {
    InverseNorms norms =
        InverseNorms::by_eigenvalue(state_.anchor->least_eigenvalue() - sums_error(), row_norm());
    if (state_.outputs > 1 && !state_.anchor->eliminated()) {  // (e_k - e_l) x has no part in these
        const double least = state_.anchor->least_eigenvalue_beside(inverses_of_constants()) - sums_error();
        norms.row = InverseNorms::by_eigenvalue(least, row_norm()).row;
    }
    if (rows_) norms.row = rows_->in_inverse(*state_.anchor, sums_error());
    return norms;
}

InverseNorms AnchoredStatistics::norms_by_penalty() const {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    const double lambda = penalties().first, R = state_.tallies.largest_norm;
    const Index K = state_.outputs, p = state_.penalty.size() / K;
    if (!state_.fit_intercept || p == 0) return InverseNorms::by_penalty(lambda, infinity, row_norm(), 0.0);
    if (K == 1)
        return InverseNorms::by_penalty(lambda, state_.anchor->diagonal()(p - 1) - sums_error(), R,
                                        rows_ && rows_->about_ball() ? rows_->longest()[0] : R);
    return InverseNorms::by_penalty(lambda, intercepts_of(*state_.anchor, K) - sums_error(), R, K);
}

double AnchoredStatistics::standard_errors(const Gradient& here, double squares, double wanted) const {
    const auto bound = [&](const InverseNorms& norms) {
        const double distance =
            expunge::standard_errors(here.far * (here.w + here.v + here.e * norms.any),
                                     quadratic() ? 0.0 : here.far * norms.row * remainder(state_.loss));
        return quadratic() ? in_residual_spread(distance, squares, state_.tallies.weight) : distance;
    };
    const double by_penalty = bound(norms_by_penalty());
    if (by_penalty <= wanted) return by_penalty;
    const double by_inverse = bound(norms_by_inverse());  // sharper, and dearer
    const bool measured = rows_ && !rows_->about_ball();
    return measured && std::isfinite(by_inverse) ? by_inverse : std::min(by_penalty, by_inverse);
}

double AnchoredStatistics::coefficients(const Gradient& here) const {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    const auto [lambda, largest] = penalties();
    if (!(largest > 0.0) && std::isinf(lambda)) return 0.0;
    const double least = state_.anchor->least_eigenvalue() - sums_error();
    const InverseNorms one = norms_by_penalty(), other = norms_by_inverse();
    const double e = here.e * std::min(one.any, other.any), nu = here.far * (here.w + here.v + e);
    double far = here.far;  // on all of the way to the minimum
    if (!quadratic()) {
        const double row = here.far * std::min(one.row, other.row) * remainder(state_.loss);
        far *= std::exp(0.5 * row * expunge::standard_errors(nu, row));  // no predictor moves further
    }
    const double mu = std::max(1.0, least / largest / (far * far)),
                 of_rows = mu < 2.0 ? 0.5 : std::sqrt((1.0 - 1.0 / mu) / mu);
    const double bound = std::sqrt(lambda) * far * (of_rows * here.w + (here.v + e) / std::sqrt(mu));
    return std::isnan(bound) || !(lambda > 0.0) ? infinity : bound;
}

AnchoredStatistics::Gradient AnchoredStatistics::measured(const VectorRef& theta, const Evaluation& at,
                                                          double floor) const {
    const Anchor& H = *state_.anchor;
    require_size("theta", theta.size(), H.size());
    require_size("the gradient", at.gradient.size(), H.size());
    const Vector x = H.solve(at.gradient), product = H.multiply(x);
    const double share = curvature_.share, q = std::max(0.0, x.dot(product)), off = sums_error();
    return {.far = std::exp(0.5 * remainder(state_.loss) * reach(theta - H.theta())) /
                   std::sqrt(1.0 - share),  // H is at least H_a / far^2
            .w = share * (1.0 + share) * std::sqrt(q),
            .v = std::sqrt((1.0 + share) * q + off * x.squaredNorm()),
            .e = (at.gradient - product).norm() + floor + step_error(x.norm(), theta.norm(), off) -
                 gradient_error()};
}

double AnchoredStatistics::distance(const VectorRef& theta, const Evaluation& at, double floor) const {
    const Gradient here = measured(theta, at, floor);
    const double penalty = theta.dot(state_.penalty.cwiseProduct(theta));
    return standard_errors(here, squares_in(at.value, penalty, value_error(at.value, theta)), 0.0);
}

double AnchoredStatistics::coefficient_distance(const VectorRef& theta, const Evaluation& at,
                                                double floor) const {
    return coefficients(measured(theta, at, floor));
}

AnchoredStatistics::Arrival AnchoredStatistics::arrive() const {
    const Anchor& H = *state_.anchor;
    const auto& [x, product, residual] = solution_->get([&] { return solve(); });
    Arrival end{.theta = (second_ ? second_->theta : H.theta()) - x};  // E9, E26
    const double length = x.norm();
    auto& [far, w, v, e] = end.gradient;
    const double c = remainder(state_.loss), rho = c * reach(x);
    const double share = curvature_.share, off = sums_error();
    far = std::exp(0.5 * rho) / std::sqrt(1.0 - share);
    e = residual + step_error(length, end.theta.norm(), off);
    if (quadratic() || x.size() == 0) return end;
    const double R = row_norm();
    // Delta^T (H_a - Lambda) Delta, plus its rounding error
    const double held = x.dot(product) - x.dot(state_.penalty.cwiseProduct(x)),
                 rounded = static_cast<double>(x.size() + 4) * roundoff * state_.penalty.maxCoeff();
    const double q = std::max(0.0, (1.0 + share) * held + (off + rounded) * length * length);
    end.nonlinear = c * R * psi_ratio(c * R * length) * q;  // E10, E34
    w = rho * psi_ratio(rho) * std::sqrt(q);
    if (second_) {
        const auto [kappa, root] =
            second_->bounds(state_.loss, H.theta(), R, state_.tallies.weight, state_.outputs);
        end.nonlinear = R * root * std::sqrt(q) + (1.0 + kappa) * end.nonlinear;
        w = kappa * std::sqrt(q) + (1.0 + kappa) * w;
        far /= std::sqrt(std::max(0.0, 1.0 - kappa));
    }
    end.nonlinear += curvature_.norm * length;
    w += share * (1.0 + share) * std::sqrt(q);
    return end;
}

double AnchoredStatistics::coefficient_distance() const { return coefficients(arrive().gradient); }

AnchoredStatistics::Step AnchoredStatistics::step(double wanted) const {
    auto [theta, gradient, nonlinear] = arrive();
    double squares = 0.0;
    if (quadratic()) {  // J at theta is J_a - g^T x / 2
        const auto& [x, product, residual] = *solution_->peek();
        const double length = x.norm(), along = state_.gradient.dot(x), at_anchor = state_.tallies.value,
                     p = static_cast<double>(x.size()),
                     lost = state_.tallies.value_rounding +
                            length * (residual + step_error(length, theta.norm(), hessian_error())) +
                            (p + 4.0) * roundoff * (std::abs(at_anchor) + length * state_.gradient.norm());
        squares = squares_in(at_anchor - 0.5 * along, theta.dot(state_.penalty.cwiseProduct(theta)), lost);
    }
    const double bound = nonlinear + gradient.e;  // E10
    const double distance = standard_errors(gradient, squares, wanted);
    // NaN, from an overflow, bounds nothing
    return {std::move(theta), std::isnan(bound) ? std::numeric_limits<double>::infinity() : bound, distance};
}

}  // namespace expunge
