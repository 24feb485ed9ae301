#include "expunge/objective.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>
#include <string>

namespace expunge {

namespace {

using Panel = std::array<double, panel_rows>;

constexpr Panel filled(double value) {
    Panel panel{};
    panel.fill(value);
    return panel;
}
constexpr Panel zeros = filled(0.0), ones = filled(1.0);

// value = s loss, r = s d1, w = s d2 for m rows: the one loop around a loss.
template <class L>
void weighted_loss(Index m, const double* __restrict eta, const double* __restrict y,
                   const double* __restrict s, double* __restrict value, double* __restrict r,
                   double* __restrict w) {
    for (Index i = 0; i < m; ++i) {
        value[i] = s[i] * L::value(y[i], eta[i]);
        r[i] = s[i] * L::d1(y[i], eta[i]);
        w[i] = s[i] * L::d2(y[i], eta[i]);
    }
}

auto as_vector(const Panel& panel, Index m) { return Eigen::Map<const Vector>(panel.data(), m); }
auto as_vector(Panel& panel, Index m) { return Eigen::Map<Vector>(panel.data(), m); }

}  // namespace

Objective::Objective(std::vector<Block> blocks, Loss loss, VectorRef penalty, bool fit_intercept)
    : blocks_(std::move(blocks)), loss_(loss), penalty_(penalty), fit_intercept_(fit_intercept) {
    d_ = penalty_.size() - (fit_intercept ? 1 : 0);
    for (const Block& block : blocks_) {
        std::visit(
            [&](const auto& rows) {
                if (rows.columns() != d_)
                    throw std::invalid_argument("X has " + std::to_string(rows.columns()) +
                                                " columns, expected " + std::to_string(d_));
                n_ += rows.rows();
            },
            block.rows);
    }
}

bool Objective::same_rows(const Objective& other) const {
    if (blocks_.size() != 1 || other.blocks_.size() != 1) return false;
    return std::visit(
        []<class A, class B>(const A& a, const B& b) {
            if constexpr (std::is_same_v<A, B>) return a.same_rows(b);
            return false;
        },
        blocks_[0].rows, other.blocks_[0].rows);
}

// Calls visit(loss, panel, row number, m, eta, y, s, last): `last` says that panel_rows rows are through
// (or the block ends), the moment to add a panel's sum to the total.
template <class Visit>
void Objective::for_each_panel(const VectorRef& theta, Visit&& visit) const {
    thread_local Workspace packed;
    alignas(64) Panel eta;
    const VectorRef coef = theta.head(d_);
    const double intercept = fit_intercept_ ? theta(d_) : 0.0;
    Index row = 0;
    for (const Block& block : blocks_) {
        std::visit(
            [&](const auto& rows, auto loss) {
                const Index step = rows.rows_in_cache();
                for (Index start = 0; start < rows.rows(); start += panel_rows) {
                    const Index stop = std::min(start + panel_rows, rows.rows());
                    for (Index first = start; first < stop; first += step) {
                        const Index m = std::min(step, stop - first);
                        const auto panel = rows.panel(first, m, packed);
                        auto x_theta = as_vector(eta, m);
                        panel.multiply(coef, x_theta);
                        x_theta.array() += intercept;
                        const double* y = block.y ? block.y + first : zeros.data();
                        const double* s = block.s ? block.s + first : ones.data();
                        visit(loss, panel, row + first, m, eta, y, s, first + m == stop);
                    }
                }
                row += rows.rows();
            },
            block.rows, loss_);
    }
}

void Objective::add_data(const VectorRef& theta, double sign, Evaluation& total, double* curvature) const {
    alignas(64) Panel value, r, w;
    double panel_value = 0.0;
    Vector panel_gradient = Vector::Zero(parameters());
    for_each_panel(theta, [&](auto loss, const auto& panel, Index row, Index m, const Panel& eta,
                              const double* y, const double* s, bool last) {
        weighted_loss<decltype(loss)>(m, eta.data(), y, s, value.data(), r.data(), w.data());
        panel_value += as_vector(value, m).sum();
        panel.add_transposed(as_vector(r, m), panel_gradient.head(d_));
        if (fit_intercept_) panel_gradient(d_) += as_vector(r, m).sum();
        if (curvature) std::copy_n(w.data(), m, curvature + row);
        if (last) {
            total.value += sign * panel_value;
            total.gradient += sign * panel_gradient;
            panel_value = 0.0;
            panel_gradient.setZero();
        }
    });
}

Evaluation Objective::evaluate(const VectorRef& theta) const {
    Evaluation at{0.0, Vector::Zero(parameters()), Vector(n_)};
    add_data(theta, 1.0, at, at.curvature.data());
    at.value += 0.5 * theta.dot(penalty_.cwiseProduct(theta));
    at.gradient += penalty_.cwiseProduct(theta);
    return at;
}

Vector Objective::curvature(const VectorRef& theta) const {
    Vector curvature(n_);
    for_each_panel(theta, [&](auto loss, const auto&, Index row, Index m, const Panel& eta, const double* y,
                              const double* s, bool) {
        for (Index i = 0; i < m; ++i) curvature(row + i) = s[i] * loss.d2(y[i], eta[i]);
    });
    return curvature;
}

void Objective::add_gram(const VectorRef& curvature, Matrix& H) const {
    Index row = 0;
    for (const Block& block : blocks_) {
        expunge::add_gram(block.rows, curvature.data() + row, H.topLeftCorner(d_, d_));
        row += std::visit([](const auto& rows) { return rows.rows(); }, block.rows);
    }
    // The column of ones: X^T w and sum w. The penalty of its unit vector is 0.
    if (fit_intercept_) H.row(d_) += hvp(curvature, Vector::Unit(parameters(), d_)).transpose();
}

Matrix Objective::hessian(const VectorRef& theta) const {
    Matrix H = Matrix::Zero(parameters(), parameters());
    add_gram(curvature(theta), H);
    H.diagonal() += penalty_;
    return H;
}

Vector Objective::hvp(const VectorRef& curvature, const VectorRef& v) const {
    alignas(64) Panel r;
    Vector product = penalty_.cwiseProduct(v);
    for_each_panel(v, [&](auto, const auto& panel, Index row, Index m, const Panel& x_v, const double*,
                          const double*, bool) {
        as_vector(r, m) = curvature.segment(row, m).cwiseProduct(as_vector(x_v, m));
        panel.add_transposed(as_vector(r, m), product.head(d_));
        if (fit_intercept_) product(d_) += as_vector(r, m).sum();
    });
    return product;
}

double Objective::rounding_floor(const VectorRef& theta) const {
    constexpr double u = 0x1p-53;
    const double ones_column = fit_intercept_ ? 1.0 : 0.0;
    const double intercept = fit_intercept_ ? std::abs(theta(d_)) : 0.0;
    const double additions = static_cast<double>(panel_rows + (n_ + panel_rows - 1) / panel_rows + 3);
    alignas(64) Panel norm2, x_theta, stored;
    double sum = 0.0;
    for_each_panel(theta, [&](auto loss, const auto& panel, Index, Index m, const Panel& eta, const double* y,
                              const double* s, bool) {
        panel.row_sizes(theta.head(d_), as_vector(norm2, m), as_vector(x_theta, m), as_vector(stored, m));
        for (Index i = 0; i < m; ++i) {
            const double r = loss.d1(y[i], eta[i]);
            const double eta_rounding = (stored[i] + ones_column + 2.0) * (x_theta[i] + intercept);
            sum += s[i] * std::sqrt(norm2[i] + ones_column) *
                   (additions * std::abs(r) + loss.d1_rounding(r, eta_rounding, y[i]));
        }
    });
    return u * (sum + 4.0 * penalty_.cwiseProduct(theta).norm());
}

Evaluation Objective::difference(const Objective* before, const Objective* after, const VectorRef& theta) {
    Evaluation total{0.0, Vector::Zero(theta.size()), Vector()};
    if (before && after && before->same_rows(*after)) {
        const Block& old = before->blocks_[0];
        alignas(64) Panel value, r, w, old_value, old_r;
        after->for_each_panel(theta, [&](auto loss, const auto& panel, Index row, Index m, const Panel& eta,
                                         const double* y, const double* s, bool) {
            const double* old_y = old.y ? old.y + row : zeros.data();
            const double* old_s = old.s ? old.s + row : ones.data();
            using L = decltype(loss);
            weighted_loss<L>(m, eta.data(), old_y, old_s, old_value.data(), old_r.data(), w.data());
            weighted_loss<L>(m, eta.data(), y, s, value.data(), r.data(), w.data());
            total.value += (as_vector(value, m) - as_vector(old_value, m)).sum();
            as_vector(r, m) -= as_vector(old_r, m);
            panel.add_transposed(as_vector(r, m), total.gradient.head(after->d_));
            if (after->fit_intercept_) total.gradient(after->d_) += as_vector(r, m).sum();
        });
        return total;
    }
    if (after) after->add_data(theta, 1.0, total, nullptr);
    if (before) before->add_data(theta, -1.0, total, nullptr);
    return total;
}

}  // namespace expunge
