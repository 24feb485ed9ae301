#include "expunge/distance.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
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

// The least eigenvalue of the intercepts' part of H, but for the constant, from the weights of its pairs.
double intercepts_of(const Objective& J, const VectorRef& curvature) {
    const Index K = J.outputs(), n = J.rows();
    const Eigen::Map<const Matrix> c(curvature.data(), n, K);
    Matrix h = Matrix::Zero(K, K);
    for (Index k = 0; k < K; ++k)
        for (Index l = 0; l < k; ++l) {
            const double w = kernels().dot(n, c.col(k).data(), c.col(l).data());
            h(k, l) = -w;
            h(k, k) += w;
            h(l, l) += w;
        }
    h.array() += h.diagonal().sum() / static_cast<double>(K);  // the constant is no longer the least
    return least_eigenvalue(h) * (1.0 - 1e-9);
}

// E41 by the penalty: of K outputs, |g| and a row in the inverse of Lambda and the intercepts' part of H.
std::pair<double, InverseNorms> of_outputs(const Objective& J, const Vector& g, const VectorRef& curvature,
                                           double R) {
    const Index K = J.outputs(), p = g.size() / K, d = p - (J.fit_intercept() ? 1 : 0);
    const double lambda = d > 0 ? J.penalty().head(d).minCoeff() : none;
    if (!J.fit_intercept()) {
        const InverseNorms norms = InverseNorms::by_penalty(lambda, none, std::sqrt(2.0) * R, 0.0);
        return {g.norm() * norms.any, norms};
    }
    const double least = intercepts_of(J, curvature);
    Vector g_0(K);
    double squares = 0.0;
    for (Index k = 0; k < K; ++k) {
        squares += g.segment(k * p, d).squaredNorm();
        g_0(k) = g((k + 1) * p - 1);
    }
    g_0.array() -= g_0.mean();
    const double sizes = g_0.lpNorm<1>(),
                 pulled = std::sqrt(squares) +
                          R * std::sqrt(static_cast<double>(K - 2) * sizes * sizes + g_0.squaredNorm());
    return {std::sqrt(pulled * pulled / lambda + g_0.squaredNorm() / least),
            InverseNorms::by_penalty(lambda, least, R, K)};
}

}  // namespace

// Iterations guess it from above, and a factor of C less so much of the identity proves that it is not less.
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

// As E31 says: taking intercepts' parts v_0 of a vector along moves its other parts by at most R times the
// currents sqrt((K - 2) |v_0|_1^2 + |v_0|^2), at most (K - 1) |v_0|, and for e_k - e_l sqrt(4 K - 6).
InverseNorms InverseNorms::by_penalty(double lambda, double intercepts, double R, Index K) {
    if (!(lambda > 0.0) || !(intercepts > 0.0)) return {none, none};
    const auto k = static_cast<double>(K);
    const double along = (k - 1.0) * R, row = (std::sqrt(2.0) + std::sqrt(4.0 * k - 6.0)) * R;
    return {std::sqrt((1.0 + along * along) / lambda + 1.0 / intercepts),
            std::sqrt(row * row / lambda + 2.0 / intercepts)};
}

RowNorms::RowNorms(const Ball& ball)
    : norms_(std::make_shared<const Norms>(Norms{ball.centre, {}, {Vector::Ones(ball.centre.size())}})),
      longest_{ball.radius} {}

RowNorms::Norms RowNorms::norms_of(const Anchor& H, Vector penalty, bool fit_intercept) {
    H.require_complete();
    require_size("H", H.size(), penalty.size());
    if (fit_intercept && penalty.size() == 0) throw std::invalid_argument("H has no intercept");
    const Index d = penalty.size() - (fit_intercept ? 1 : 0);
    Norms norms{Vector::Zero(d), {}, {}};
    Vector e = H.diagonal();
    if (fit_intercept) {
        norms.m = H.last_column().head(d) / e(d);
        e.head(d) -= e(d) * norms.m.cwiseAbs2();
        e = e.cwiseMax(1e-12 * H.diagonal());
        penalty(d) = e(d);
    }
    norms.e.push_back(e.cwiseMax(penalty));
    if (e.size() > 0 && penalty.minCoeff() > 0.0) norms.e.push_back(std::move(penalty));
    for (const Vector& of : norms.e) norms.inverse.emplace_back(of.head(d).cwiseInverse());
    return norms;
}

RowNorms::RowNorms(const Objective& J, const Anchor& H)
    : norms_(std::make_shared<const Norms>(norms_of(H, J.penalty(), J.fit_intercept()))) {
    for (std::size_t k = 0; k < norms_->inverse.size(); ++k) longest_.push_back(longest_of(J, k));
}

RowNorms::RowNorms(const Anchor& H, const Vector& penalty, bool fit_intercept, std::vector<double> longest)
    : norms_(std::make_shared<const Norms>(norms_of(H, penalty, fit_intercept))),
      longest_(std::move(longest)) {
    if (longest_.size() != norms_->inverse.size())
        throw std::invalid_argument("rows have " + std::to_string(norms_->inverse.size()) + " lengths, not " +
                                    std::to_string(longest_.size()));
}

double RowNorms::longest_of(const Objective& rows, std::size_t norm) const {
    return std::sqrt(rows.largest_norm2(norms_->inverse[norm], norms_->m)) * (1.0 + 1e-12);
}

RowNorms RowNorms::join(const Objective& rows) const {
    RowNorms all(*this);
    for (std::size_t k = 0; k < longest_.size(); ++k) {
        const double longest = longest_of(rows, k);
        if (!(longest <= longest_[k])) all.longest_[k] = longest;
    }
    return all;
}

// |x - m'| <= |x - m| + |m - m'| in the new norm, in which what has the length 1 in the old one has at most
// the root of the largest e_j / e'_j.
RowNorms RowNorms::move_to(const Anchor& H, const Vector& penalty, bool fit_intercept,
                           const RowNorms& other) const {
    const Index d = norms_->m.size();
    Norms norms = norms_of(H, penalty, fit_intercept);
    RowNorms moved(*this);
    moved.longest_.assign(norms.inverse.size(), 0.0);
    for (std::size_t k = 0; k < norms.inverse.size(); ++k) {
        const Vector& inverse = norms.inverse[k];
        double& all = moved.longest_[k];
        for (const RowNorms* of : {this, &other}) {
            const Norms& old = *of->norms_;
            const Vector gap = old.m - norms.m;
            double least = none;
            for (std::size_t j = 0; j < old.e.size(); ++j) {
                const double stretched =
                    d > 0 ? std::sqrt(old.e[j].head(d).cwiseProduct(inverse).maxCoeff()) : 0.0;
                least = std::min(least, of->longest_[j] * stretched);
            }
            least += std::sqrt(gap.dot(inverse.cwiseProduct(gap)));
            all = std::max(all, least * (1.0 + 1e-12));
        }
    }
    moved.norms_ = std::make_shared<const Norms>(std::move(norms));
    return moved;
}

// x^T change = (x - m)^T change_c + (change_0 + m^T change_c), by Cauchy and Schwarz; the last sum may
// cancel.
double RowNorms::reach(const VectorRef& change) const {
    const Index d = norms_->m.size();
    const auto of_columns = change.head(d);
    double at_m = 0.0, least = none;
    if (change.size() > d) {
        const double sizes = std::abs(change(d)) + norms_->m.cwiseAbs().dot(of_columns.cwiseAbs());
        at_m = std::abs(change(d) + norms_->m.dot(of_columns)) +
               2.0 * roundoff * static_cast<double>(d + 2) * sizes;
    }
    for (std::size_t k = 0; k < longest_.size(); ++k) {
        const double length =
            about_ball() ? of_columns.norm() : std::sqrt(of_columns.cwiseAbs2().dot(norms_->e[k].head(d)));
        least = std::min(least, (longest_[k] * length + at_m) * (1.0 + 1e-12));
    }
    return least;
}

double RowNorms::in_inverse(const Anchor& H, double error) const {
    const double lost = error / H.least_eigenvalue();  // H is at least 1 - lost of what is given
    double least = none;
    if (!(lost < 1.0)) return least;
    if (about_ball()) return by_trace(H, lost);
    for (std::size_t k = 0; k < longest_.size(); ++k) least = std::min(least, by_diagonal(H, lost, k));
    return least;
}

// |x - m_H| <= |x - m| + |m - m_H|, m_H the mean of rows by curvature, in the inverse of what is left of H
// without the intercept.
double RowNorms::by_trace(const Anchor& H, double lost) const {
    const Index d = norms_->m.size();
    const Vector intercept = H.last_column();
    const double h = intercept(d) * (1.0 - lost), least = H.least_eigenvalue_of_columns() * (1.0 - lost),
                 row = longest_[0] + (norms_->m - intercept.head(d) / intercept(d)).norm();
    return least > 0.0 && h > 0.0 ? std::sqrt(row * row / least + 1.0 / h) * (1.0 + 1e-9) : none;
}

// |z|^2 in H^-1 is at most |e^-1/2 z|^2 / least(e^-1/2 H e^-1/2), both in x less m, which may cancel digits.
double RowNorms::by_diagonal(const Anchor& H, double lost, std::size_t norm) const {
    const Vector &m = norms_->m, &e = norms_->e[norm], inverse = e.cwiseSqrt().cwiseInverse();
    const Index d = m.size();
    Matrix C = H.hessian();
    double cancelled = 0.0;
    if (C.cols() > d) {  // theta_0 is what it is at m
        const double h = C(d, d);
        const Vector h_0 = C.row(d).head(d).transpose() - 0.5 * h * m,
                     sizes = C.diagonal().head(d) + 2.0 * h * m.cwiseAbs2();
        cancelled = 8.0 * roundoff * sizes.dot(inverse.head(d).cwiseAbs2());
        C.topLeftCorner(d, d) -= m * h_0.transpose() + h_0 * m.transpose();
        C.row(d).head(d) -= h * m.transpose();
    }
    C = inverse.asDiagonal() * C * inverse.asDiagonal();
    const double least = (least_eigenvalue(C) - cancelled) * (1.0 - lost);
    const double longest2 = longest_[norm] * longest_[norm] + (e.size() > d ? 1.0 / e(d) : 0.0);
    return least > 0.0 ? std::sqrt(longest2 / least) : none;
}

double power_of_two_above(double value) {
    if (!(value > 0.0) || !std::isfinite(value)) return value;
    int exponent = 0;
    return std::frexp(value, &exponent) == 0.5 ? value : std::ldexp(1.0, exponent);
}

double norm_above(double norm) {
    constexpr double more = 1.0 + 0x1p-30;
    return power_of_two_above(norm / more) * more;
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
    if (J.outputs() > 1) {
        require_size("the curvature", at.curvature.size(), J.curvatures());
        const double R = std::sqrt(longest * longest + (J.fit_intercept() ? 1.0 : 0.0));
        const auto [nu, norms] = of_outputs(J, at.gradient, at.curvature, R);
        return standard_errors(nu + floor * norms.any, norms.row);
    }
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
