#include "multinomial.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "expunge/errors.hpp"
#include "walk.hpp"

namespace expunge {

namespace {

// Room for (m, K) numbers of a panel, one for each use.
struct OutputScratch {
    Workspace eta, r, c;
};
OutputScratch& scratch_of_outputs() {
    thread_local OutputScratch memory;
    return memory;
}

// value = s loss, r = s d1, c (m, K), k at c + k stride; returns the sum of values. Rows of weight 0 are not
// there, also where their predictors are not finite.
double softmax_loss(Index m, Index K, const double* eta, const double* y, const double* s, double* value,
                    double* r, double* c, Index stride) {
    const double found = kernels().softmax_loss(m, K, eta, y, s, value, r, c, stride);
    if (std::isfinite(found)) return found;
    leave_out(m, s, value);
    for (Index k = 0; k < K; ++k) {
        leave_out(m, s, r + k * m);
        leave_out(m, s, c + k * stride);
    }
    return kernels().sum(m, value);
}

// Of the pairs of classes of a row, the least and the largest product of their ratios.
struct Ratios {
    double least = infinity, next_least = infinity, largest = 0.0, next_largest = 0.0;

    void add(double ratio) {
        next_least = std::min(next_least, std::max(least, ratio));
        least = std::min(least, ratio);
        next_largest = std::max(next_largest, std::min(largest, ratio));
        largest = std::max(largest, ratio);
    }
};

}  // namespace

Objective Objective::one_output() const {
    return {blocks_, loss_, penalty_.head(parameters() / outputs_), fit_intercept_, largest_norm_};
}

void Objective::centre(Vector& theta) const {
    if (outputs_ == 1 || !fit_intercept_) return;
    const Index p = parameters() / outputs_;
    double sum = 0.0;
    for (Index k = 0; k < outputs_; ++k) sum += theta((k + 1) * p - 1);
    for (Index k = 0; k < outputs_; ++k) theta((k + 1) * p - 1) -= sum / static_cast<double>(outputs_);
}

// (1 - sum of p^2) / (K - 1) s: the mean over directions of what H has of a row in a class (E33).
Vector Objective::shared_curvature(const VectorRef& curvature) const {
    require_size("curvature", curvature.size(), curvatures());
    Vector shared = Vector::Zero(n_), before = shared;
    for (Index k = 0; k < outputs_; ++k) {
        const auto c = curvature.segment(k * n_, n_);
        shared += 2.0 / static_cast<double>(outputs_ - 1) * c.cwiseProduct(before);
        before += c;
    }
    return shared;
}

// Calls visit(m rows, f(X) theta of each class (m, K), sums), of several thetas one after the other.
void Multinomial::for_each_panel(std::initializer_list<const double*> thetas, Read read, Walk how, Index sets,
                                 Fill visit, Objective::Collect collect) const {
    J_.walk(
        [&](const RowsView& rows, Workspace& memory) -> VectorRef {
            const Index room = room_for(rows.width()), count = static_cast<Index>(thetas.size());
            Eigen::Map<Vector> all(memory.take(count * room), count * room);
            Index at = 0;
            for (const double* theta : thetas)
                rows.spread_many(theta, p_, K_, read, all.segment(room * at++, room));
            return all;
        },
        read, how, sets* RowsView::together(K_),
        [&](const Here& here, const VectorRef& all, Sums& sums) {
            const Index m = here.m, room = room_for(here.rows.width());
            double* eta = scratch_of_outputs().eta.take(static_cast<Index>(thetas.size()) * K_ * m);
            double* to = eta;
            Index at = 0;
            for (const double* theta : thetas) {
                here.panel.multiply_many(all.segment(room * at++, room), K_, to);
                for (Index k = 0; J_.fit_intercept_ && k < K_; ++k)
                    as_vector(to + k * m, m).array() += theta[k * p_ + d_];
                to += K_ * m;
            }
            visit(here, eta, sums);
        },
        collect);
}

// The sums of f(X)^T r, r (m, K), each with that of r.
void Multinomial::add_panel(const Here& here, const double* r, Eigen::Ref<Vector> sums) const {
    const Index m = here.m, room = room_for(here.rows.width());
    here.panel.add_transposed_many(r, K_, sums.head(room));
    for (Index k = 0; k < K_; ++k) sums(room + k) += kernels().sum(m, r + k * m);
}

void Multinomial::collect(const RowsView& rows, const VectorRef& sums, Read read, double sign,
                          Vector& g) const {
    const Index room = room_for(rows.width());
    rows.collect_many(sums.head(room), K_, read, sign, g.data(), p_);
    for (Index k = 0; J_.fit_intercept_ && k < K_; ++k) g(k * p_ + d_) += sign * sums(room + k);
}

// g (K p,) += sign f(X)^T r; fill(m rows, eta, sums) makes r (m, K) of eta, in its place.
void Multinomial::add_transposed(std::initializer_list<const double*> thetas, Read read, Walk how,
                                 double sign, Vector& g, Fill fill, Objective::More more) const {
    if (!J_.wide()) {
        for_each_panel(
            thetas, read, how, 1,
            [&](const Here& here, double* eta, Sums& sums) {
                fill(here, eta, sums);
                add_panel(here, eta, sums.columns);
            },
            [&](const RowsView& rows, const Sums& sums) {
                collect(rows, sums.columns, read, sign, g);
                more(sums);
            });
        return;
    }
    Matrix r(n_, K_);  // theta first, then the sums: each has the cache for itself
    for_each_panel(
        thetas, read, how, 0,
        [&](const Here& here, double* eta, Sums& sums) {
            fill(here, eta, sums);
            r.middleRows(here.row, here.m) = Eigen::Map<const Matrix>(eta, here.m, K_);
        },
        [&](const RowsView&, const Sums& sums) { more(sums); });
    g += sign * transposed(r.reshaped());
}

Vector Multinomial::transposed(const VectorRef& r) const {
    Vector g = Vector::Zero(K_ * p_);
    const Vector none;
    J_.walk(
        [&](const RowsView&, Workspace&) -> VectorRef { return none; }, Read::entry, Walk::by_threads,
        RowsView::together(K_),
        [&](const Here& here, const VectorRef&, Sums& sums) {
            double* panel = scratch_of_outputs().r.take(here.m * K_);
            for (Index k = 0; k < K_; ++k)
                std::copy_n(r.data() + k * n_ + here.row, here.m, panel + k * here.m);
            add_panel(here, panel, sums.columns);
        },
        [&](const RowsView& rows, const Sums& sums) { collect(rows, sums.columns, Read::entry, 1.0, g); });
    return g;
}

double Multinomial::longest(const VectorRef& theta) const {
    double longest = 0.0;
    for (Index k = 0; k < K_; ++k) longest = std::max(longest, theta.segment(k * p_, p_).norm());
    return longest;
}

Objective Multinomial::select(const std::vector<Index>& coordinates) const {
    const auto of_class = static_cast<std::ptrdiff_t>(coordinates.size()) / K_;
    std::vector<Index> first(coordinates.begin(), coordinates.begin() + of_class);
    for (std::ptrdiff_t k = 0, i = 0; i < static_cast<std::ptrdiff_t>(coordinates.size()); ++i) {
        k = of_class > 0 ? i / of_class : 0;
        if (of_class * K_ != static_cast<std::ptrdiff_t>(coordinates.size()) ||
            coordinates[static_cast<std::size_t>(i)] !=
                first[static_cast<std::size_t>(i % of_class)] + k * p_)
            throw std::invalid_argument("the same coordinates of every class are to be kept");
    }
    const Objective one = J_.one_output().select(first);
    return {one.blocks_,
            J_.loss_,
            J_.penalty_(coordinates),
            one.fit_intercept_,
            J_.largest_norm_,
            J_.noise_.size() > 0 ? Vector(J_.noise_(coordinates)) : Vector(),
            nullptr,
            K_};
}

Evaluation Multinomial::evaluate(const VectorRef& theta, double& largest_norm, Matrix* H) const {
    Evaluation at{0.0, Vector::Zero(K_ * p_), Vector(n_ * K_)};
    const bool measured = std::isnan(largest_norm), bounded = measured || std::isfinite(largest_norm);
    const Vector every = Vector::Ones(measured ? d_ : 0);
    const double one = J_.fit_intercept_ ? 1.0 : 0.0,
                 for_each_norm = bounded
                                     ? (static_cast<double>(J_.largest_row()) + 3.0 + J_.entry_roundings_) *
                                           longest(theta)
                                     : 0.0;
    double rounding = 0.0, largest_norm2 = measured ? 0.0 : largest_norm * largest_norm;
    add_transposed(
        {theta.data()}, Read::entry, Walk::by_threads, 1.0, at.gradient,
        [&](const Here& here, double* eta, Sums& sums) {
            alignas(64) Panel value, norms, eta_rounding, left;
            const Index m = here.m;
            double* r = scratch_of_outputs().r.take(m * K_);
            sums.value +=
                softmax_loss(m, K_, eta, here.y, here.s, value.data(), r, at.curvature.data() + here.row, n_);
            std::copy_n(r, m * K_, eta);
            if (!bounded) return;
            if (measured)
                here.measure(every, norms, sums);
            else
                as_vector(norms, m).setConstant(largest_norm2);
            for (Index i = 0; i < m; ++i) {
                norms[i] = std::sqrt(norms[i] + one);
                eta_rounding[i] = for_each_norm * norms[i];
            }
            kernels().softmax_rounding(m, K_, r, here.s, J_.most_additions_ + 3.0, eta_rounding.data(),
                                       left.data());
            sums.rounding += kernels().dot(m, norms.data(), left.data());
        },
        [&](const Sums& sums) {
            at.value += sums.value;
            rounding += sums.rounding;
            largest_norm2 = std::max(largest_norm2, sums.largest_norm2);
        });
    if (measured) largest_norm = std::sqrt(largest_norm2);
    J_.add_penalty(theta, at);
    if (std::isfinite(largest_norm)) at.floor = known(roundoff * rounding + J_.penalty_rounding(theta));
    if (H) add_gram(at.curvature, *H);
    return at;
}

// By pairs of classes, as curvatures moved: kappa of each, and Q of all (E26).
Evaluation Multinomial::evaluate_beside(const VectorRef& theta, const VectorRef& anchor,
                                        CurvatureChange& moved) const {
    constexpr double least = 0x1p-400;  // a p so small has lost digits
    Evaluation at{0.0, Vector::Zero(K_ * p_), Vector(n_ * K_)};
    moved = {};
    add_transposed(
        {theta.data(), anchor.data()}, Read::entry, Walk::by_threads, 1.0, at.gradient,
        [&](const Here& here, double* eta, Sums& sums) {
            alignas(64) Panel value;
            const Index m = here.m;
            double *r = scratch_of_outputs().r.take(m * K_), *c = scratch_of_outputs().c.take(2 * m * K_),
                   *c_a = c + m * K_;
            softmax_loss(m, K_, eta + m * K_, here.y, here.s, value.data(), r, c_a, m);
            sums.value += softmax_loss(m, K_, eta, here.y, here.s, value.data(), r, c, m);
            std::copy_n(r, m * K_, eta);
            for (Index k = 0; k < K_; ++k) std::copy_n(c + k * m, m, at.curvature.data() + k * n_ + here.row);
            for (Index i = 0; i < m; ++i) {
                if (!(here.s[i] > 0.0)) continue;
                const double root = std::sqrt(here.s[i]);
                Ratios of;
                bool told = true;
                double squares = 0.0;
                for (Index k = 0; k < K_; ++k) {
                    const double a = c_a[k * m + i], b = c[k * m + i];
                    told = told && a >= least * root && b >= least * root;
                    of.add(b / a);
                    for (Index l = 0; l < k; ++l) {
                        const double w = a * c_a[l * m + i], change = b * c[l * m + i] - w;
                        squares += change * (change / w);
                    }
                }
                const double kappa =
                    std::max(of.largest * of.next_largest - 1.0, 1.0 - of.least * of.next_least);
                sums.moved.add(told ? CurvatureChange{kappa, squares} : CurvatureChange{infinity, infinity});
            }
        },
        [&](const Sums& sums) {
            at.value += sums.value;
            moved.add(sums.moved);
        });
    J_.add_penalty(theta, at);
    return at;
}

Vector Multinomial::curvature(const VectorRef& theta) const {
    Vector curvature(n_ * K_);
    for_each_panel(
        {theta.data()}, Read::entry, Walk::by_threads, 0,
        [&](const Here& here, double* eta, Sums&) {
            alignas(64) Panel value;
            softmax_loss(here.m, K_, eta, here.y, here.s, value.data(),
                         scratch_of_outputs().r.take(here.m * K_), curvature.data() + here.row, n_);
        },
        nothing);
    return curvature;
}

// One Gram matrix for each pair of classes (E28). Curvatures of rows that leave are negative.
void Multinomial::add_gram(const VectorRef& curvature, Matrix& H) const {
    const Objective one = J_.one_output();
    Matrix gram(p_, p_);
    for (Index k = 0; k < K_; ++k)
        for (Index l = k + 1; l < K_; ++l) {
            gram.setZero();
            one.add_gram(curvature.segment(k * n_, n_).cwiseProduct(curvature.segment(l * n_, n_).cwiseAbs()),
                         gram);
            kernels().symmetric_of_lower(p_, gram.data(), gram.data());
            H.block(l * p_, k * p_, p_, p_) -= gram;
            H.block(k * p_, k * p_, p_, p_) += gram;
            H.block(l * p_, l * p_, p_, p_) += gram;
        }
}

// s p (1 - p), 1 - p as a sum over the other classes.
Vector Multinomial::gram_diagonal(const VectorRef& curvature) const {
    Vector diagonal(K_ * p_);
    const Objective one = J_.one_output();
    for (Index k = 0; k < K_; ++k) {
        Vector others = Vector::Zero(n_);
        for (Index l = 0; l < K_; ++l)
            if (l != k) others += curvature.segment(l * n_, n_);
        diagonal.segment(k * p_, p_) = one.gram_diagonal(curvature.segment(k * n_, n_).cwiseProduct(others));
    }
    return diagonal;
}

Index Multinomial::rows_with(const VectorRef& w) const {
    return (Eigen::Map<const Matrix>(w.data(), n_, K_).array() > 0.0).rowwise().any().count();
}

double Multinomial::total_curvature(const VectorRef& w) const {
    const Eigen::Map<const Matrix> c(w.data(), n_, K_);
    double total = 0.0;
    Vector before = Vector::Zero(n_);
    for (Index k = 0; k < K_; ++k) {
        total += c.col(k).dot(before);
        before += c.col(k);
    }
    return total;
}

// Eliminating class k of a matrix f (U diag c - c c^T), U the sum of c from k on, leaves one of the same
// form: its column is sqrt(f c_k) (sqrt(U'), -c_l / sqrt(U') ...), U' the sum after k, and f becomes f U /
// U'.
void Multinomial::scaled_rows(const VectorRef& w, Eigen::Ref<Matrix> columns) const {
    const Objective one = J_.one_output();
    const Eigen::Map<const Matrix> c(w.data(), n_, K_);
    const Vector present = (c.array() > 0.0).rowwise().any().cast<double>();
    Matrix x(p_, static_cast<Index>(present.sum()));
    one.scaled_rows(present, x);
    Vector after(K_);
    for (Index i = 0, row = 0; i < n_; ++i) {
        if (!(present(i) > 0.0)) continue;
        after(K_ - 1) = 0.0;
        for (Index k = K_ - 1; k > 0; --k) after(k - 1) = after(k) + c(i, k);
        double f = 1.0;
        for (Index k = 0; k + 1 < K_; ++k) {
            if (!(after(k) > 0.0)) break;
            auto column = columns.col(row * (K_ - 1) + k);
            const double root = std::sqrt(f * c(i, k));
            column.segment(k * p_, p_) = root * std::sqrt(after(k)) * x.col(row);
            for (Index l = k + 1; l < K_; ++l)
                column.segment(l * p_, p_) = -root * c(i, l) / std::sqrt(after(k)) * x.col(row);
            f *= (after(k) + c(i, k)) / after(k);
        }
        ++row;
    }
}

Vector Multinomial::hvp(const VectorRef& curvature, const VectorRef& v) const {
    Vector product = J_.penalty_.cwiseProduct(v);
    add_transposed(
        {v.data()}, Read::entry, Walk::by_threads, 1.0, product,
        [&](const Here& here, double* x_v, Sums&) {
            kernels().softmax_hessian_times(here.m, K_, curvature.data() + here.row, n_, x_v);
            for (Index k = 0; here.weighted() && k < K_; ++k) leave_out(here.m, here.s, x_v + k * here.m);
        },
        nothing);
    return product;
}

Vector Multinomial::predict(const VectorRef& v) const {
    Matrix predicted(n_, K_);
    for_each_panel(
        {v.data()}, Read::entry, Walk::by_threads, 0,
        [&](const Here& here, double* eta, Sums&) {
            predicted.middleRows(here.row, here.m) = Eigen::Map<const Matrix>(eta, here.m, K_);
        },
        nothing);
    return predicted.reshaped();
}

// E32
double Multinomial::rounding_floor(const VectorRef& theta) const {
    Matrix d1(n_, K_);
    for_each_panel(
        {theta.data()}, Read::entry, Walk::by_threads, 0,
        [&](const Here& here, double* eta, Sums&) {
            alignas(64) Panel value;
            const Index m = here.m;
            double *r = scratch_of_outputs().r.take(m * K_), *c = scratch_of_outputs().c.take(m * K_);
            kernels().softmax_loss(m, K_, eta, here.y, ones.data(), value.data(), r, c, m);
            d1.middleRows(here.row, m) = Eigen::Map<const Matrix>(r, m, K_);
        },
        nothing);
    const double more = (J_.fit_intercept_ ? 1.0 : 0.0) + 2.0 + J_.entry_roundings_;
    const Vector sizes = theta.cwiseAbs();
    Vector sums = Vector::Zero(K_ * p_), predictors = sums;
    for_each_panel(
        {sizes.data()}, Read::magnitude, Walk::by_threads, 2,
        [&](const Here& here, double* x_theta, Sums& of) {
            alignas(64) Panel stored, eta_rounding;
            const Index m = here.m;
            here.rows.count_stored(here.panel, as_vector(stored, m));
            as_vector(eta_rounding, m) =
                Eigen::Map<const Matrix>(x_theta, m, K_).rowwise().maxCoeff().array() *
                (as_vector(stored, m).array() + more);
            double *slope = scratch_of_outputs().r.take(m * K_),
                   *rounding = scratch_of_outputs().c.take(m * K_);
            for (Index k = 0; k < K_; ++k)
                for (Index i = 0; i < m; ++i) {
                    const double r = std::abs(d1(here.row + i, k)), s = here.s[i];
                    slope[k * m + i] = weighted(s, r);
                    rounding[k * m + i] =
                        weighted(s, (static_cast<double>(K_) + 10.0) * r +
                                        moved(r, 0.25, 1.0, 2.0 * eta_rounding[static_cast<std::size_t>(i)]));
                }
            const Index half = of.columns.size() / 2;
            add_panel(here, slope, of.columns.head(half));
            add_panel(here, rounding, of.columns.tail(half));
        },
        [&](const RowsView& rows, const Sums& of) {
            const Index half = of.columns.size() / 2;
            collect(rows, of.columns.head(half), Read::magnitude, 1.0, sums);
            collect(rows, of.columns.tail(half), Read::magnitude, 1.0, predictors);
        });
    const Vector additions = J_.additions_by_coordinate().array() + 3.0;
    return known(norm_of(roundoff * (additions.cwiseProduct(sums) + predictors)) +
                 J_.penalty_rounding(theta));
}

// The rounding of predictors, e at most each, moves a weight p_k p_l by a share of e^4e - 1 at most.
void Multinomial::add_change(const VectorRef& theta, double sign, const Objective* old, bool tallied,
                             Change& total) const {
    thread_local Workspace wide_ones;
    const Vector ones_of = Vector::Ones(tallied ? d_ : 0);
    const double one = J_.fit_intercept_ ? 1.0 : 0.0, additions = J_.most_additions_ + 3.0,
                 q = static_cast<double>(p_) + 4.0 + J_.entry_roundings_, size = longest(theta);
    Vector& curvature = total.rows.emplace_back(Change::Rows{&J_, Vector(n_ * K_)}).curvature;
    alignas(64) Panel value, norm, eta_rounding, left;
    const auto side = [&](double side_sign, Index m, const double* eta, const double* y, const double* s,
                          double* r, double* c, Tally& tally) {
        total.value += side_sign * softmax_loss(m, K_, eta, y, s, value.data(), r, c, m);
        if (!tallied) return;
        kernels().softmax_rounding(m, K_, r, s, additions, eta_rounding.data(), left.data());
        for (Index i = 0; i < m; ++i) {
            if (!(s[i] > 0.0)) continue;
            const auto at = static_cast<std::size_t>(i);
            const double x = norm[at], e = 4.0 * eta_rounding[at], t = roundoff * e;
            double pairs = 0.0, before = 0.0;
            for (Index k = 0; k < K_; ++k) {
                pairs += c[k * m + i] * before;
                before += c[k * m + i];
            }
            tally.largest_norm = std::max(tally.largest_norm, x);
            tally.gradient_rounding += x * left[at];
            tally.hessian_rounding +=
                x * x *
                (t <= 1.0 ? 2.0 * pairs * (additions + 2.0 * (static_cast<double>(K_) + 10.0) + e * (1.0 + t))
                          : s[i] * (1.0 / roundoff + additions));
        }
        tally.gradient_rounding = known(tally.gradient_rounding);
        tally.hessian_rounding = known(tally.hessian_rounding);
    };
    add_transposed(
        {theta.data()}, Read::entry, Walk::alone, sign, total.gradient,
        [&](const Here& here, double* eta, Sums&) {
            const Index m = here.m, all = m * K_;
            if (tallied) {
                here.panel.map(Read::square)
                    .multiply(here.rows.spread(ones_of, wide_ones), as_vector(norm, m));
                as_vector(norm, m).array() = (as_vector(norm, m).array() + one).sqrt();
                as_vector(eta_rounding, m) = q * size * as_vector(norm, m);
            }
            double *r = scratch_of_outputs().r.take(2 * all), *c = scratch_of_outputs().c.take(2 * all);
            side(sign, m, eta, here.y, here.s, r, c, sign > 0.0 ? total.after : total.before);
            if (old) {
                const Block& was = old->blocks_[0];
                const double *y = targets(was, here.row), *s = weights(was, here.row);
                side(-sign, m, eta, y, s, r + all, c + all, total.before);
                for (Index i = 0; i < m; ++i) {  // sqrt(|s - s'|) p, with the sign of s - s'
                    const double gained = here.s[i] - s[i], most = std::max(here.s[i], s[i]),
                                 root = gained == 0.0 ? 0.0 : std::sqrt(std::abs(gained) / most);
                    const double* of = here.s[i] >= s[i] ? c : c + all;
                    for (Index k = 0; k < K_; ++k)
                        curvature(k * n_ + here.row + i) = std::copysign(root, gained) * of[k * m + i];
                }
                for (Index j = 0; j < all; ++j) r[j] -= r[all + j];
            } else {
                for (Index k = 0; k < K_; ++k)
                    curvature.segment(k * n_ + here.row, m) = sign * as_vector(c + k * m, m);
            }
            std::copy_n(r, all, eta);
        },
        nothing);
}

void Multinomial::add_slopes(const VectorRef& theta, double sign, const Objective* old, Vector& g) const {
    add_transposed(
        {theta.data()}, Read::entry, Walk::by_threads, sign, g,
        [&](const Here& here, double* eta, Sums&) {
            alignas(64) Panel value;
            const Index m = here.m, all = m * K_;
            double *r = scratch_of_outputs().r.take(2 * all), *c = scratch_of_outputs().c.take(all);
            softmax_loss(m, K_, eta, here.y, here.s, value.data(), r, c, m);
            if (old) {
                const Block& was = old->blocks_[0];
                softmax_loss(m, K_, eta, targets(was, here.row), weights(was, here.row), value.data(),
                             r + all, c, m);
                for (Index j = 0; j < all; ++j) r[j] -= r[all + j];
            }
            std::copy_n(r, all, eta);
        },
        nothing);
}

}  // namespace expunge
