// Rounding errors of an Objective (E19), and what replacing rows changes (E3, E10).
#include <algorithm>
#include <cmath>
#include <utility>

#include "expunge/errors.hpp"
#include "multinomial.hpp"
#include "walk.hpp"

namespace expunge {

double Objective::gram_norm_bound() const {
    if (outputs_ > 1) return one_output().gram_norm_bound();
    Vector sums = Vector::Zero(parameters());
    add_transposed(
        Vector::Ones(parameters()), Read::magnitude, Walk::by_threads, 1.0, sums,
        [&](const Here& here, const double* x_ones, double* r, Sums&) {
            std::copy_n(x_ones, here.m, r);
            kernels().weigh(here.m, here.s, 0.0, r);
        },
        nothing);
    return sums.size() > 0 ? sums.maxCoeff() : 0.0;
}

// How many additions a term of each coordinate's sum takes part in, at most (p,).
Vector Objective::additions_by_coordinate() const {
    Vector k = Vector::Zero(parameters());
    for (const Block& block : blocks_) block.rows.add_additions(k.head(d_));
    if (fit_intercept_) k(d_) = most_additions_;
    const Index p = parameters() / outputs_;
    for (Index j = 1; j < outputs_; ++j) k.segment(j * p, p) = k.head(p);
    return k;
}

double Objective::rounding_floor(const VectorRef& theta) const {
    require_size("theta", theta.size(), parameters());
    if (outputs_ > 1) return Multinomial(*this).rounding_floor(theta);
    Vector d1(n_);
    for_each_panel(
        theta, Read::entry, Walk::by_threads, 0,
        [&](const Here& here, const double* eta, Sums&) {
            kernels().weighted_d1(key(loss_), here.m, eta, here.y, ones.data(), false, d1.data() + here.row);
        },
        nothing);
    // |X|^T |s d1|, and |X|^T of what rounding in eta leaves in s d1
    const double more = (fit_intercept_ ? 1.0 : 0.0) + 2.0 + entry_roundings_;
    Vector sums = Vector::Zero(parameters()), predictors = sums;
    for_each_panel(
        theta.cwiseAbs(), Read::magnitude, Walk::by_threads, 2,
        [&](const Here& here, double* x_theta, Sums& of) {
            alignas(64) Panel stored, slope, rounding;
            const Index m = here.m, width = here.rows.width();
            here.rows.count_stored(here.panel, as_vector(stored, m));
            for (Index i = 0; i < m; ++i) x_theta[i] *= stored[i] + more;
            kernels().slope_and_rounding(key(loss_), m, d1.data() + here.row, here.y, here.s, here.weighted(),
                                         x_theta, slope.data(), rounding.data());
            here.panel.add_transposed(as_vector(slope, m), of.columns.head(width));
            here.panel.add_transposed(as_vector(rounding, m), of.columns.tail(width));
            of.intercept += kernels().sum(m, slope.data());
            of.rounding += kernels().sum(m, rounding.data());
        },
        [&](const RowsView& rows, const Sums& of) {
            rows.collect(of.columns.head(rows.width()), 1.0, sums.head(d_));
            rows.collect(of.columns.tail(rows.width()), 1.0, predictors.head(d_));
            if (!fit_intercept_) return;
            sums(d_) += of.intercept;
            predictors(d_) += of.rounding;
        });
    const Vector additions = additions_by_coordinate().array() + 3.0;
    return known(norm_of(roundoff * (additions.cwiseProduct(sums) + predictors)) + penalty_rounding(theta));
}

Tally Objective::count() const {
    Tally tally;
    double lost = 0.0;
    for (const Block& block : blocks_) {
        const Index n = block.rows.rows();
        for (Index i = 0; i < n; ++i) {
            const double s = block.s ? block.s[i] : 1.0;
            tally.rows += s > 0.0;
            lost += std::abs(rounded_off(tally.weight, s));
            tally.weight += s;
        }
    }
    tally.weight = raised(tally.weight, lost);
    return tally;
}

// Adds `sign` times what the rows contribute. Where `old` has the same rows, their contribution with its
// targets and weights is subtracted. Rounding (E10): a row may be off by u s |x| (k |d1| + d2 d |x|^T
// |theta|) in a gradient, k the additions that it takes part in, and by u s |x|^2 (k d2 + |d3| d |x|^T
// |theta|) in a Hessian. d2 and d3 are the largest over all that the true eta may be (E19).
void Objective::add_change(const VectorRef& theta, double sign, const Objective* old, bool tallied,
                           Change& total) const {
    if (outputs_ > 1) return Multinomial(*this).add_change(theta, sign, old, tallied, total);
    thread_local Workspace wide_ones, wide_theta;
    const Vector ones_of = Vector::Ones(tallied ? d_ : 0), sizes = theta.head(d_).cwiseAbs();
    const double one = fit_intercept_ ? 1.0 : 0.0, offset = fit_intercept_ ? std::abs(theta(d_)) : 0.0;
    const double additions = most_additions_ + 3.0,
                 d = static_cast<double>(parameters()) + 2.0 + entry_roundings_;
    Vector& curvature = total.rows.emplace_back(Change::Rows{this, Vector(n_)}).curvature;
    alignas(64) Panel value, w, old_r, norm2, predictor, rounding;
    // value, r and w of one side; norm2 and predictor, d |x|^T |theta|, are those of its rows.
    const auto side = [&](double side_sign, Index m, const double* eta, const double* y, const double* s,
                          double* r, Tally& tally) {
        total.value += side_sign * weighted_loss(loss_, m, eta, y, s, value.data(), r, w.data());
        if (!tallied) return;
        kernels().rounding_of(key(loss_), m, r, y, s, additions, predictor.data(), rounding.data());
        const auto [max_d2, max_d3] = std::visit([](auto l) { return std::pair(l.max_d2, l.max_d3); }, loss_);
        const double of_d2 =
            std::isfinite(max_d2) ? 0.0 : 8.0;  // its own rounding, where it is a sum of others
        for (Index i = 0; i < m; ++i) {
            if (!(s[i] > 0.0)) continue;
            const double x2 = norm2[i] + one, x = std::sqrt(x2), off = predictor[i];
            tally.largest_norm = std::max(tally.largest_norm, x);
            tally.gradient_rounding += x * rounding[i];
            const double in_d2 = max_d3 > 0.0 ? moved(w[i] / s[i], max_d3, max_d2, predictor[i]) : 0.0;
            tally.hessian_rounding += x2 * ((additions + of_d2) * w[i] + s[i] * in_d2);
            if (std::isfinite(max_d2))  // it is asked for of a squared loss
                tally.value_rounding += (static_cast<double>(m) + 8.0) * value[i] +
                                        off * (std::abs(r[i]) + roundoff * s[i] * max_d2 * off);
        }
        tally.gradient_rounding = known(tally.gradient_rounding);
        tally.hessian_rounding = known(tally.hessian_rounding);
        tally.value_rounding = known(tally.value_rounding);
    };
    add_transposed(
        theta, Read::entry, Walk::alone, sign, total.gradient,
        [&](const Here& here, const double* eta, double* r, Sums&) {
            const Index m = here.m;
            if (tallied) {
                here.panel.map(Read::square)
                    .multiply(here.rows.spread(ones_of, wide_ones), as_vector(norm2, m));
                here.panel.map(Read::magnitude)
                    .multiply(here.rows.spread(sizes, wide_theta), as_vector(predictor, m));
                as_vector(predictor, m).array() = d * (as_vector(predictor, m).array() + offset);
            }
            auto change = curvature.segment(here.row, m);
            side(sign, m, eta, here.y, here.s, r, sign > 0.0 ? total.after : total.before);
            change = sign * as_vector(w, m);
            if (!old) return;
            const Block& was = old->blocks_[0];
            side(-sign, m, eta, targets(was, here.row), weights(was, here.row), old_r.data(), total.before);
            change -= as_vector(w, m);
            as_vector(r, m) -= as_vector(old_r, m);
        },
        nothing);
}

Change Objective::change(const Objective* before, const Objective* after, const VectorRef& theta,
                         bool tallied) {
    Change total;
    total.gradient = Vector::Zero(theta.size());
    for (const auto& [side, tally] : {std::pair(before, &total.before), std::pair(after, &total.after)}) {
        if (!side) continue;
        require_size("theta", theta.size(), side->parameters());
        *tally = side->count();
        total.edited += side->rows();
    }
    const bool same = before && after && before->same_rows(*after);
    if (after) after->add_change(theta, 1.0, same ? before : nullptr, tallied, total);
    if (before && !same) before->add_change(theta, -1.0, nullptr, tallied, total);
    return total;
}

Evaluation Objective::difference(const Objective* before, const Objective* after, const VectorRef& theta) {
    Change total = change(before, after, theta, false);
    return {total.value, std::move(total.gradient), Vector()};
}

// g (p,) += sign X^T r. Where `old` has the same rows, r with its targets and weights is subtracted.
void Objective::add_slopes(const VectorRef& theta, double sign, const Objective* old, Vector& g) const {
    if (outputs_ > 1) return Multinomial(*this).add_slopes(theta, sign, old, g);
    add_transposed(
        theta, Read::entry, Walk::by_threads, sign, g,
        [&](const Here& here, const double* eta, double* r, Sums&) {
            const Index m = here.m;
            kernels().weighted_d1(key(loss_), m, eta, here.y, here.s, here.weighted(), r);
            if (!old) return;
            const Block& was = old->blocks_[0];
            const double* s = weights(was, here.row);
            alignas(64) Panel old_r;
            kernels().weighted_d1(key(loss_), m, eta, targets(was, here.row), s, s != ones.data(),
                                  old_r.data());
            as_vector(r, m) -= as_vector(old_r, m);
        },
        nothing);
}

Vector Objective::gradient_difference(const Objective* before, const Objective* after,
                                      const VectorRef& theta) {
    for (const Objective* side : {before, after})
        if (side) require_size("theta", theta.size(), side->parameters());
    Vector g = Vector::Zero(theta.size());
    const bool same = before && after && before->same_rows(*after);
    if (after) after->add_slopes(theta, 1.0, same ? before : nullptr, g);
    if (before && !same) before->add_slopes(theta, -1.0, nullptr, g);
    return g;
}

}  // namespace expunge
