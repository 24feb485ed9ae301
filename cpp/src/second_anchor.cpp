#include "expunge/second_anchor.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "expunge/errors.hpp"
#include "multinomial.hpp"
#include "walk.hpp"

namespace expunge {

namespace {

// Of m rows with predictors eta_a and eta_b. A d2 so small, at a margin above 620, has lost digits.
void add_moved(const Loss& loss, Index m, const double* eta_a, const double* eta_b, const double* y,
               const double* s, CurvatureChange& moved) {
    constexpr double least = 0x1p-900;
    alignas(64) Panel d2_a, d2_b;
    kernels().weighted_d2(key(loss), m, eta_a, y, ones.data(), false, d2_a.data());
    kernels().weighted_d2(key(loss), m, eta_b, y, ones.data(), false, d2_b.data());
    for (Index i = 0; i < m; ++i) {
        if (!(s[i] > 0.0)) continue;
        const double a = d2_a[i], b = d2_b[i], share = (b - a) / a;
        moved.add(a >= least && b >= least
                      ? CurvatureChange{std::abs(share), s[i] * (b - a) * share, s[i] * a}
                      : CurvatureChange{infinity, infinity, infinity});
    }
}

}  // namespace

// The second product costs little: each entry of X is read once for both.
Evaluation Objective::evaluate_beside(const VectorRef& theta, const VectorRef& anchor,
                                      CurvatureChange& moved) const {
    require_size("theta", theta.size(), parameters());
    require_size("the anchor", anchor.size(), parameters());
    if (outputs_ > 1) return Multinomial(*this).evaluate_beside(theta, anchor, moved);
    Evaluation at{0.0, Vector::Zero(parameters()), Vector(n_)};
    const bool apart = wide(), bounded = std::isfinite(largest_norm_);
    Vector r_of_all(apart ? n_ : 0);
    const double offset = fit_intercept_ ? theta(d_) : 0.0, offset_a = fit_intercept_ ? anchor(d_) : 0.0;
    const double for_each_norm =
        bounded ? (static_cast<double>(largest_row()) + 3.0 + entry_roundings_) * theta.norm() : 0.0;
    double rounding = 0.0;
    moved = {};
    walk([&](const RowsView& rows,
             Workspace& memory) { return rows.spread(theta.head(d_), anchor.head(d_), memory); },
         Read::entry, Walk::by_threads, apart ? 0 : 1,
         [&](const Here& here, const VectorRef& both, Sums& sums) {
             alignas(64) Panel eta, eta_a, value, r, norms;
             const Index m = here.m;
             here.panel.multiply(both, as_vector(eta, m), as_vector(eta_a, m), offset, offset_a);
             sums.value += weighted_loss(loss_, m, eta.data(), here.y, here.s, value.data(), r.data(),
                                         at.curvature.data() + here.row);
             add_moved(loss_, m, eta_a.data(), eta.data(), here.y, here.s, sums.moved);
             if (bounded) {
                 as_vector(norms, m).setConstant(largest_norm_ * largest_norm_);
                 sums.rounding +=
                     kernels().sum_of_rounding(key(loss_), m, r.data(), here.y, here.s, most_additions_ + 3.0,
                                               for_each_norm, fit_intercept_ ? 1.0 : 0.0, norms.data());
             }
             if (apart) {
                 r_of_all.segment(here.row, m) = as_vector(r, m);
             } else {
                 here.panel.add_transposed(as_vector(r, m), sums.columns);
                 sums.intercept += kernels().sum(m, r.data());
             }
         },
         [&](const RowsView& rows, const Sums& sums) {
             if (!apart) collect(rows, sums, 1.0, at.gradient);
             at.value += sums.value;
             rounding += sums.rounding;
             moved.add(sums.moved);
         });
    if (apart) add_transposed(Read::entry, Walk::by_threads, 1.0, r_of_all, at.gradient);
    add_penalty(theta, at);
    if (bounded) at.floor = known(penalty_rounding(theta) + roundoff * rounding);
    return at;
}

KnownFloor::KnownFloor(const Objective& J, double floor) {
    if (!std::holds_alternative<Logistic>(J.loss()) || !J.dense() || J.outputs() > 1) return;
    value = floor;
    additions = J.additions() + 3.0;
}

// |d1| <= 1, and |d2| <= |d1|: so it grows by e^rho at most. Each error e_i of E19 does, too, and by that of
// |x|^T |theta|, which is at most rho.
double KnownFloor::at(const Objective& J, const VectorRef& anchor, const VectorRef& theta, double R) const {
    if (!std::isfinite(value) || !J.dense() || theta.size() == 0) return infinity;
    const double k = J.additions() + 3.0, q = static_cast<double>(theta.size()) + 5.0,
                 step = (theta - anchor).norm(), rho = R * step, more = 1.0 + 0x1p-18;
    if (!(roundoff * q * R * std::max(theta.norm(), anchor.norm()) <= 0x1p-20)) return infinity;
    const double here =
        std::max(1.0, k / additions) * value + roundoff * R * (k + q * R * anchor.norm()) * joined;
    return known(more * std::exp(rho) * (1.0 + q * rho / k) * here +
                 4.0 * roundoff * step * J.penalty().maxCoeff());
}

std::optional<SecondAnchor> SecondAnchor::edit(const Change& change, const Objective* after,
                                               const VectorRef& anchor) const {
    SecondAnchor edited(*this);
    edited.gradient += change.gradient;
    edited.gradient_rounding += roundoff * (change.before.gradient_rounding + change.after.gradient_rounding);
    edited.gradient_norm += edited.gradient.norm();
    if (after) {
        CurvatureChange joined;
        after->evaluate_beside(theta, anchor, joined);
        edited.moved.add(joined);
    }
    if (!std::isfinite(edited.moved.largest + edited.moved.squares)) return std::nullopt;
    return edited;
}

SecondAnchor::Bounds SecondAnchor::bounds(const Loss& loss, const VectorRef& anchor, double R, double weight,
                                          Index outputs) const {
    constexpr double more = 1.0 + 0x1p-20;  // of the sum
    const double K = outputs > 1 ? static_cast<double>(outputs) : 0.0, of_d2 = (16.0 + 4.0 * K) * roundoff,
                 moves = K > 0.0 ? 4.0 : 1.0;
    double error = 2.0 * of_d2;
    for (const double norm : {anchor.norm(), theta.norm()}) {
        const double t = moves * roundoff * static_cast<double>(theta.size() + 3) * R * norm;
        error += t <= 0.5 ? t * (1.0 + t) : infinity;
    }
    const double hidden = 2.0 * (1.0 + moved.largest) * error,
                 steepest = K > 0.0 ? 0.5 : std::visit([](auto l) { return l.max_d2; }, loss),
                 curvature = std::isfinite(steepest) ? std::max(0.0, weight) * steepest : 2.0 * moved.weight;
    return {moved.largest * more + hidden, (std::sqrt(moved.squares) + hidden * std::sqrt(curvature)) * more};
}

}  // namespace expunge
