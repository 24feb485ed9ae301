#include "expunge/distance.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <utility>

#include "expunge/errors.hpp"
#include "expunge/newton.hpp"
#include "expunge/packed.hpp"

namespace expunge {

namespace {

constexpr double none = std::numeric_limits<double>::infinity();

// |g| and the largest |x_i| in the inverse of a matrix that H exceeds: Lambda for x less the mean m of rows
// by curvature, h for the intercept. With m off by its rounding, H exceeds 1 - t of that.
std::pair<double, double> measured_by_penalty(const Objective& J, const Vector& g, const Vector& curvature,
                                              double h, double lambda, double R) {
    const Index d = J.parameters() - (J.fit_intercept() ? 1 : 0);
    const Vector inverse = J.penalty().head(d).cwiseInverse();
    Vector m = Vector::Zero(d), pulled = g.head(d);
    double g_0 = 0.0, of_intercept = 0.0, t = 0.0;
    if (J.fit_intercept()) {
        m = J.transposed(curvature).head(d) / curvature.sum();
        g_0 = g(d) * g(d) / h;
        pulled -= g(d) * m;
        of_intercept = 1.0 / h;
        t = 2.0 * roundoff * (J.additions() + 8.0) * R * std::sqrt(h / lambda);
    }
    if (!(t < 1.0)) return {none, none};
    const double row = is_quadratic(J) ? 0.0 : J.largest_norm2(inverse, m) + of_intercept;
    return {std::sqrt((pulled.dot(inverse.cwiseProduct(pulled)) + g_0) / (1.0 - t)),
            std::sqrt(row / (1.0 - t))};
}

// The same of g in the inverse of Lambda and h, where of m only the ball of rows is known.
double pulled_by_penalty(const Objective& J, const Vector& g, double h, double lambda, const Ball& ball) {
    if (!J.fit_intercept()) return g.norm() / std::sqrt(lambda);
    const Index d = g.size() - 1;
    const double pulled = (g.head(d) - g(d) * ball.centre).norm() + std::abs(g(d)) * ball.radius;
    return std::sqrt(pulled * pulled / lambda + g(d) * g(d) / h);
}

// E36. H is at least the least penalty, the intercept's among them. If no curvature jumps within the Newton
// step, that ends at the minimum.
double distance_between_kinks(const Objective& J, const VectorRef& theta, const Evaluation& at,
                              double floor) {
    const double least = J.penalty().size() > 0 ? J.penalty().minCoeff() : 1.0;
    if (!(least > 0.0)) return none;
    const double nu = (at.gradient.norm() * (1.0 + 0x1p-30) + floor) / std::sqrt(least);
    return nu / std::sqrt(least) < J.kink_gap(theta) ? nu : none;
}

// A lower bound of the least eigenvalue of C (p, p), its lower triangle, or 0. Iterations guess it from
// above, and a factor of C less so much of the identity proves that it is not less.
double least_eigenvalue(const Matrix& C) {
    const Index p = C.cols();
    if (p == 0) return 1.0;
    const double rounding = 8.0 * roundoff * static_cast<double>(p + 2) * C.diagonal().sum();
    double guess = 1.0;
    try {
        const CholeskyFactor factor(C);
        constexpr int iterations = 20;
        Vector x = Vector::LinSpaced(p, 1.0, 2.0);
        for (int k = 0; k < iterations; ++k) {
            x = factor.solve(x / x.norm());
            guess = 1.0 / x.norm();  // from above
        }
    } catch (const NotPositiveDefinite&) {
        return 0.0;
    }
    for (const double share : {0.98, 0.9, 0.5, 0.1}) {
        Matrix less = C;
        less.diagonal().array() -= share * guess;
        if (!factor_in_place(less)) return std::max(0.0, share * guess - rounding);
    }
    return 0.0;
}

}  // namespace

InverseNorms InverseNorms::by_eigenvalue(double least, double R) {
    if (!(least > 0.0)) return {none, none};
    return {1.0 / std::sqrt(least), R / std::sqrt(least)};
}

// Eliminate the intercept: |v|^2 = v_0^2 / h + |v_c - v_0 m|^2 in the inverse of what is left, which is at
// least lambda. m, a mean of rows, is no longer than R, and no further from a row than two radii.
InverseNorms InverseNorms::by_penalty(double lambda, double intercept, double R, double radius) {
    if (!(lambda > 0.0) || !(intercept > 0.0)) return {none, none};
    if (std::isinf(intercept)) return {1.0 / std::sqrt(lambda), R / std::sqrt(lambda)};
    return {std::sqrt((1.0 + R * R) / lambda + 1.0 / intercept),
            std::sqrt(4.0 * radius * radius / lambda + 1.0 / intercept)};
}

RowNorm::RowNorm(const Ball& ball) : m_(ball.centre), longest_(ball.radius) {}

RowNorm::RowNorm(const Objective& J, Vector m, Vector e)
    : m_(std::move(m)), e_(std::move(e)), longest_(longest_of(J)) {}

double RowNorm::longest_of(const Objective& rows) const {
    const Index d = m_.size();
    const Vector w = e_.size() > 0 ? Vector(e_.head(d).cwiseInverse()) : Vector::Ones(d);
    return std::sqrt(rows.largest_norm2(w, m_)) * (1.0 + 1e-12);
}

RowNorm RowNorm::join(const Objective& rows) const {
    RowNorm all(*this);
    const double longest = longest_of(rows);
    if (!(longest <= longest_)) all.longest_ = longest;
    return all;
}

// x^T change = (x - m)^T change_c + (change_0 + m^T change_c), by Cauchy and Schwarz.
double RowNorm::reach(const VectorRef& change) const {
    const Index d = m_.size();
    const auto of_columns = change.head(d);
    const double at_m = change.size() > d ? std::abs(change(d) + m_.dot(of_columns)) : 0.0,
                 length = e_.size() > 0 ? std::sqrt(of_columns.dot(e_.head(d).cwiseProduct(of_columns)))
                                        : of_columns.norm();
    return (longest_ * length + at_m) * (1.0 + 1e-12);
}

// |x - m_H| <= |x - m| + |m - m_H|, m_H the mean of rows by curvature, in the inverse of what is left of H
// without the intercept.
double RowNorm::by_trace(const Anchor& H, double lost) const {
    const Index d = m_.size();
    const Vector intercept = H.last_column();
    const double h = intercept(d) * (1.0 - lost), least = H.least_eigenvalue_of_columns() * (1.0 - lost),
                 row = longest_ + (m_ - intercept.head(d) / intercept(d)).norm();
    return least > 0.0 && h > 0.0 ? std::sqrt(row * row / least + 1.0 / h) * (1.0 + 1e-9) : none;
}

// |z|^2 in H^-1 is at most |e^-1/2 z|^2 / least(e^-1/2 H e^-1/2), both in x less m.
double RowNorm::in_inverse(const Anchor& H, double lost) const {
    if (e_.size() == 0) return by_trace(H, lost);
    const Index d = m_.size();
    Matrix C = H.hessian();
    if (C.cols() > d) {  // theta_0 is what it is at m
        const double h = C(d, d);
        const Vector h_0 = C.row(d).head(d).transpose() - 0.5 * h * m_;
        C.topLeftCorner(d, d) -= m_ * h_0.transpose() + h_0 * m_.transpose();
        C.row(d).head(d) -= h * m_.transpose();
    }
    const Vector inverse = e_.cwiseSqrt().cwiseInverse();
    C = inverse.asDiagonal() * C * inverse.asDiagonal();
    const double least = least_eigenvalue(C) * (1.0 - lost);
    const double longest2 = longest_ * longest_ + (e_.size() > d ? 1.0 / e_(d) : 0.0);
    return least > 0.0 ? std::sqrt(longest2 / least) : none;
}

RowNorms::RowNorms(const Objective& J, const Anchor& H) {
    H.require_complete();
    require_size("H", H.size(), J.parameters());
    const Index d = J.parameters() - (J.fit_intercept() ? 1 : 0);
    Vector m = Vector::Zero(d), e = H.diagonal(), penalty = J.penalty();
    if (J.fit_intercept()) {
        Vector one = Vector::Zero(d + 1);
        one(d) = 1.0;
        m = H.multiply(one).head(d) / e(d);
        e.head(d) -= e(d) * m.cwiseAbs2();
        e = e.cwiseMax(1e-12 * H.diagonal());
        penalty(d) = e(d);
    }
    norms_.emplace_back(J, m, e.cwiseMax(penalty));
    if (e.size() > 0 && penalty.minCoeff() > 0.0) norms_.emplace_back(J, m, penalty);
}

RowNorms RowNorms::join(const Objective& rows) const {
    RowNorms all;
    all.about_ball_ = about_ball_;
    for (const RowNorm& norm : norms_) all.norms_.push_back(norm.join(rows));
    return all;
}

std::optional<double> RowNorms::radius() const {
    return about_ball_ ? std::optional(norms_.front().longest()) : std::nullopt;
}

double RowNorms::reach(const VectorRef& change) const {
    double least = none;
    for (const RowNorm& norm : norms_) least = std::min(least, norm.reach(change));
    return least;
}

double RowNorms::in_inverse(const Anchor& H, double error) const {
    const double lost = error / H.least_eigenvalue();
    double least = none;
    if (lost < 1.0)
        for (const RowNorm& norm : norms_) least = std::min(least, norm.in_inverse(H, lost));
    return least;
}

double standard_errors(double nu, double row) {
    const double x = row * nu;
    if (!(x < 1.0)) return none;
    return x > 0.0 ? -std::log1p(-x) / row : nu;
}

double squares_in(double J, double penalty, double error) {
    const double squares = 2.0 * (J - error) - penalty * (1.0 + 1e-12);
    return squares > 0.0 ? squares : 0.0;
}

// A term's error is |y - eta| times that of eta, and the square of that; by Cauchy and Schwarz.
double value_error(double J, double n, double weight, double reach, Index p) {
    const auto d = static_cast<double>(p);
    const double off = roundoff * (d + 5.0) * reach, size = std::abs(J);
    return roundoff * (n + d + 16.0) * size + off * std::sqrt(2.0 * weight * size) + weight * off * off;
}

// The roots of the squares at theta and at the minimum differ by at most the distance.
double in_residual_spread(double distance, double squares, double weight) {
    const double sigma = (std::sqrt(std::max(0.0, squares)) - distance) / std::sqrt(weight);
    if (sigma > 0.0) return distance / sigma;
    return distance == 0.0 ? 0.0 : none;
}

double distance_by_penalty(const Objective& J, double longest, const VectorRef& theta, const Evaluation& at,
                           double floor, bool measured) {
    require_size("theta", theta.size(), J.parameters());
    require_size("the gradient", at.gradient.size(), J.parameters());
    if (std::holds_alternative<SquaredHinge>(J.loss())) return distance_between_kinks(J, theta, at, floor);
    const Index d = J.parameters() - (J.fit_intercept() ? 1 : 0);
    const double lambda = d > 0 ? J.penalty().head(d).minCoeff() : none, curvature = at.curvature.sum(),
                 h = J.fit_intercept() ? curvature * (1.0 - 1e-9) : none,
                 R = std::sqrt(longest * longest + (J.fit_intercept() ? 1.0 : 0.0));
    const Ball ball = J.ball() ? *J.ball() : Ball{Vector::Zero(d), longest};
    const InverseNorms norms = InverseNorms::by_penalty(lambda, h, R, ball.radius);
    double nu = none, row = norms.row;
    if (measured && std::isfinite(row))
        std::tie(nu, row) = measured_by_penalty(J, at.gradient, at.curvature, h, lambda, R);
    else if (std::isfinite(norms.any))
        nu = pulled_by_penalty(J, at.gradient, h, lambda, ball);
    nu += floor * norms.any;
    const bool quadratic = is_quadratic(J);
    const double distance = standard_errors(nu, quadratic ? 0.0 : remainder(J.loss()) * row);
    if (!quadratic) return distance;
    const double penalty = theta.dot(J.penalty().cwiseProduct(theta)), weight = curvature * (1.0 + 1e-9),
                 error = value_error(at.value, static_cast<double>(J.rows()), weight, R * theta.norm(),
                                     theta.size());
    return in_residual_spread(distance, squares_in(at.value, penalty, error), weight);
}

}  // namespace expunge
