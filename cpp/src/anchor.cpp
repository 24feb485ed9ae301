#include "expunge/anchor.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

#include "expunge/errors.hpp"
#include "expunge/packed.hpp"

namespace expunge {

namespace {

constexpr double slack = 0.9;  // for the rounding of a trace, which other terms bound

std::vector<Index> up_to(Index p) {
    std::vector<Index> all(static_cast<std::size_t>(p));
    std::iota(all.begin(), all.end(), Index(0));
    return all;
}

// The `size` coordinates where the data's curvature is largest beside the penalty, ascending.
std::vector<Index> heaviest(const Vector& diagonal, const Vector& penalty, Index size) {
    std::vector<Index> order = up_to(diagonal.size());
    const auto weight = [&](Index i) {
        return penalty(i) > 0.0 ? diagonal(i) / penalty(i) : std::numeric_limits<double>::infinity();
    };
    std::nth_element(order.begin(), order.begin() + size, order.end(),
                     [&](Index i, Index j) { return weight(i) > weight(j); });
    order.resize(static_cast<std::size_t>(size));
    std::sort(order.begin(), order.end());
    return order;
}

Matrix hessian_of(const Objective& objective, const VectorRef& curvature) {
    Matrix H = Matrix::Zero(objective.parameters(), objective.parameters());
    objective.add_gram(curvature, H);
    H.diagonal() += objective.penalty();
    const Index K = objective.outputs(), p = objective.parameters() / K;
    if (K == 1 || !objective.fit_intercept()) return H;
    double of_intercepts = 0.0;  // the mean of their diagonal fills the null space
    for (Index k = 0; k < K; ++k) of_intercepts += H((k + 1) * p - 1, (k + 1) * p - 1);
    for (Index k = 0; k < K; ++k)
        for (Index l = 0; l <= k; ++l)
            H((k + 1) * p - 1, (l + 1) * p - 1) += of_intercepts / static_cast<double>(K * K);
    return H;
}

// Of the same, without H: rows of the penalty first, then those of the data, some at a time.
CholeskyFactor factor_of_rows(const Objective& objective, const VectorRef& curvature) {
    const Index p = objective.parameters(), n = objective.rows();
    Index penalised = 0, row = 0;
    Vector weights = Vector::Zero(n);
    return CholeskyFactor::of_rows(p, [&](Eigen::Ref<Matrix> rows) {
        rows.setZero();
        Index m = 0;
        for (; penalised < p && m < rows.rows(); ++penalised, ++m)
            rows(m, penalised) = std::sqrt(objective.penalty()(penalised));
        const Index first = row, before = m;
        for (; row < n && m < rows.rows(); ++row) m += curvature(row) > 0.0;
        weights.setZero();
        weights.segment(first, row - first) = curvature.segment(first, row - first);
        Matrix columns(p, m - before);
        objective.scaled_rows(weights.cwiseMax(0.0), columns);
        rows.middleRows(before, m - before) = columns.transpose();
        return m;
    });
}

}  // namespace

std::vector<Index> complement(Index p, const std::vector<Index>& dropped) {
    require_ascending("dropped coordinates", dropped, p);
    std::vector<Index> kept;
    kept.reserve(static_cast<std::size_t>(p) - dropped.size());
    auto next = dropped.begin();
    for (Index i = 0; i < p; ++i) {
        if (next != dropped.end() && *next == i)
            ++next;
        else
            kept.push_back(i);
    }
    return kept;
}

Anchor::Held::Held(Matrix hessian) : H(std::move(hessian)) {
    double squares = H.diagonal().squaredNorm();
    for (Index j = 0; j < H.cols(); ++j) {
        const double* below = H.col(j).data() + j + 1;
        squares += 2.0 * kernels().dot(H.rows() - j - 1, below, below);
    }
    norm = std::sqrt(squares);
    if (H.rows() > 0) last = H.row(H.rows() - 1).transpose();
}

void Anchor::hold(Matrix H) {
    kept_ = up_to(H.rows());
    gone_.clear();
    A_.reset();
    edits_ = 0;
    edited_ = 0.0;
    inverse_gain_ = inverse_last_ = inverse_moved_ = 0.0;
    held_ = std::make_shared<Held>(std::move(H));
}

Anchor::Anchor(const Objective& objective, Vector theta, const VectorRef& curvature, Index block) {
    const Index p = theta.size();
    require_size("theta", p, objective.parameters());
    require_size("curvature", curvature.size(), objective.curvatures());
    if (block < 0)
        throw std::invalid_argument("a block has 0 coordinates or more, got " + std::to_string(block));
    if (const Index K = objective.outputs(); K > 1 && block < p) {
        const Objective one = objective.one_output();
        of_each_ = std::make_shared<const Anchor>(one, theta.head(p / K),
                                                  objective.shared_curvature(curvature), block);
        diagonal_ = of_each_->diagonal().replicate(K, 1);
        hold(Matrix(0, 0));
        return;
    }
    if (block >= p) {
        theta_ = std::move(theta);
        block_ = up_to(p);
        hold(hessian_of(objective, curvature));
        diagonal_ = held_->H.diagonal();
        largest_ = diagonal_;
    } else {
        diagonal_ = objective.gram_diagonal(curvature);
        block_ = heaviest(diagonal_, objective.penalty(), block);
        diagonal_ += objective.penalty();
        hold(hessian_of(objective.select(block_), curvature));
    }
    factor(complete() ? objective : objective.select(block_), curvature);
}

void Anchor::factor(const Objective& objective, const VectorRef& curvature) const {
    try {
        factor();
    } catch (const NotPositiveDefinite&) {
        if (objective.outputs() > 1) throw;
        held_->factored.set(factor_of_rows(objective, curvature));
        held_->from_rows = true;
    }
}

bool Anchor::has_factor() const {
    try {
        factor();
        return true;
    } catch (const NotPositiveDefinite&) {
        return false;
    }
}

Anchor::Anchor(Vector diagonal) : diagonal_(std::move(diagonal)) {
    hold(Matrix(0, 0));
    factor();
}

Anchor::Anchor(Vector theta, Matrix H)
    : theta_(std::move(theta)), diagonal_(H.diagonal()), largest_(diagonal_) {
    require_size("H", H.rows(), theta_.size());
    require_size("H", H.cols(), theta_.size());
    block_ = up_to(theta_.size());
    hold(std::move(H));
}

Matrix Anchor::held_hessian() const {
    Matrix H = held_->H;
    for (const double sign : {1.0, -1.0}) {  // one rank update for each sign
        std::vector<Index> columns;
        for (Index k = 0; k < edits_; ++k)
            if (A_->signs(k) == sign) columns.push_back(k);
        if (!columns.empty()) add_product(H, A_->rows(Eigen::all, columns).eval(), sign);
    }
    return H;
}

Matrix Anchor::hessian() const {
    Matrix H = held_hessian();
    if (gone_.empty()) return H;
    return H(kept_, kept_);
}

double Anchor::rounding() const {
    return 8.0 * static_cast<double>(held_->H.rows() + edits_ + 2) * roundoff * frobenius();
}

double Anchor::frobenius() const { return held_->norm + edited_; }

double Anchor::fold_rounding() const {
    return edits_ == 0 ? 0.0 : (static_cast<double>(edits_) + 3.0) * roundoff * frobenius();
}

// A term is a product of three, of which d2 takes some roundings, and one of so many that are added.
void Anchor::add_to_past(double trace, Index terms) {
    past_.trace += trace;
    past_.rounding += (static_cast<double>(terms) + 16.0) * roundoff * trace;
}

std::pair<double, double> Anchor::inverse_trace(bool columns) const {
    require_complete();
    const Vector& diagonal = held_->inverse_diagonal.get([&] { return held_->factor().inverse_diagonal(); });
    const double moved = diagonal.sum() + inverse_moved_;
    const double lost =
        moved * std::min(1.0, 4.0 * rounding() * moved);  // where rows that came cancel digits
    const double trace = columns ? diagonal.head(diagonal.size() - 1).sum() + inverse_gain_ - inverse_last_
                                 : diagonal.sum() + inverse_gain_;
    return {trace, inverse_moved_ > 0.0 ? lost : 0.0};
}

double Anchor::least_eigenvalue() const {
    const auto [trace, lost] = inverse_trace(false);
    const double least = slack / (trace + lost) - rounding();
    return std::isfinite(least) ? std::max(0.0, least) : 0.0;
}

double Anchor::least_eigenvalue_beside(double inverses) const {
    const auto [trace, lost] = inverse_trace(false);
    const double share = rounding() * (trace + lost),
                 rest = (trace + lost) * (1.0 + 1e-9) / (1.0 - share) - inverses;
    const double least = share < 0.5 && rest > 0.0 ? slack / rest - rounding() : 0.0;
    return std::max(least_eigenvalue(), least);
}

// Where H is off by a share, so is what is left of it.
double Anchor::least_eigenvalue_of_columns() const {
    if (size() <= 1) return std::numeric_limits<double>::infinity();
    const auto [trace, lost] = inverse_trace(true);
    const auto [all, of_all] = inverse_trace(false);
    const double share = rounding() * (all + of_all) / slack;
    const double least = slack / (trace + lost) * (1.0 - share);
    return std::isfinite(least) ? std::max(0.0, least) : 0.0;
}

Vector Anchor::last_column() const {
    require_complete();
    const Index p = size(), last = p - 1;
    if (eliminated()) return multiply(Vector::Unit(p, last));
    Vector column = held_->last;
    for (Index k = 0; k < edits_; ++k)
        kernels().add_scaled(p, A_->signs(k) * A_->rows(last, k), A_->rows.col(k).data(), column.data());
    return column;
}

bool Anchor::cancelled() const {
    if (!complete()) return false;
    constexpr double digits_left = 1e-3;
    return !(diagonal_.array() > digits_left * largest_.array()).all();
}

// E18, one column of A after the other: x - v a^T x / c
Vector Anchor::correct(Vector x, Index edits) const {
    const Index p = x.size();
    for (Index k = 0; k < edits; ++k) {
        const double along = kernels().dot(p, A_->rows.col(k).data(), x.data()) / A_->pivots(k);
        kernels().add_scaled(p, -along, A_->solutions.col(k).data(), x.data());
    }
    return x;
}

// (I - v a^T / c) (w + along v), a^T v = c - sign
Vector Anchor::follow(const Vector& w, double along) const {
    require_size("w", w.size(), size());
    const Index k = edits_ - 1;
    return w + A_->solutions.col(k) * ((A_->signs(k) * along - A_->rows.col(k).dot(w)) / A_->pivots(k));
}

Vector Anchor::solve(const VectorRef& b) const {
    require_size("b", b.size(), size());
    if (of_each_) {
        const Index p = of_each_->size();
        Vector x(b.size());
        for (Index k = 0; k < b.size(); k += p) x.segment(k, p) = of_each_->solve(b.segment(k, p));
        return x;
    }
    if (complete() && gone_.empty()) return correct(held_->factor().solve(b), edits_);
    Vector x = b.cwiseQuotient(diagonal_);
    Vector u = Vector::Zero(held_->H.rows());
    u(kept_) = b(block_);
    u = correct(held_->factor().solve(u), edits_);
    if (!gone_.empty()) u -= W_ * corner_->solve(u(gone_));
    x(block_) = u(kept_);
    return x;
}

Vector Anchor::multiply(const VectorRef& v) const {
    require_complete();
    require_size("v", v.size(), size());
    Vector wide;
    if (!gone_.empty()) {
        wide = Vector::Zero(held_->H.rows());
        wide(kept_) = v;
    }
    const VectorRef u = gone_.empty() ? v : VectorRef(wide);
    Vector product = multiply_symmetric(held_->H, u);
    for (Index k = 0; k < edits_; ++k) {
        const double* a = A_->rows.col(k).data();
        const double along = A_->signs(k) * kernels().dot(u.size(), a, u.data());
        kernels().add_scaled(u.size(), along, a, product.data());
    }
    if (gone_.empty()) return product;
    return product(kept_);
}

// The first `count` rows of nonzero weight join A. False where a pivot loses its sign or all its digits.
bool Anchor::append(const std::vector<Change::Rows>& changes, Index count) {
    Index used = edits_;
    if (!A_ || !A_->used.compare_exchange_strong(used, edits_ + count)) {  // another anchor went on from here
        auto copy = std::make_shared<Edits>(size(), capacity());
        copy->used = edits_ + count;
        if (edits_ > 0) {
            copy->rows.leftCols(edits_) = A_->rows.leftCols(edits_);
            copy->solutions.leftCols(edits_) = A_->solutions.leftCols(edits_);
            copy->pivots.head(edits_) = A_->pivots.head(edits_);
            copy->signs.head(edits_) = A_->signs.head(edits_);
        }
        A_ = std::move(copy);
    }
    Edits& E = *A_;
    Index k = edits_;
    for (const double sign : {1.0, -1.0}) {
        for (const Change::Rows& change : changes) {
            const Vector weights = (sign * change.curvature).cwiseMax(0.0);
            const Index m = change.rows->scaled_rows(weights);
            if (m == 0) continue;
            change.rows->scaled_rows(weights, E.rows.middleCols(k, m));
            E.signs.segment(k, m).setConstant(sign);
            k += m;
        }
    }
    auto V = E.solutions.middleCols(edits_, count);
    V = E.rows.middleCols(edits_, count);
    if (count == 1)
        V = held_->factor().solve(V.col(0));
    else
        held_->factor().solve_in_place(V);
    for (k = edits_; k < edits_ + count; ++k) {
        const auto a = E.rows.col(k);
        const double* v = E.solutions.col(k).data();
        const double before = kernels().dot(size(), v, v);  // without the edits, where digits may cancel
        E.solutions.col(k) = correct(E.solutions.col(k), k);
        E.pivots(k) = E.signs(k) + a.dot(E.solutions.col(k));
        // Below these, of 1 - h, A is no more accurate than a new factor: the second is what the rounding of
        // H may make of it.
        constexpr double smallest = 1e-8, digits = 1e3;
        const double v2 = kernels().dot(size(), v, v),
                     least = std::max(smallest, digits * rounding() * std::max(before, v2));
        if (!(E.signs(k) * E.pivots(k) > least)) return false;
        const Vector squares = a.cwiseAbs2();
        inverse_gain_ -= v2 / E.pivots(k);
        if (size() > 0) inverse_last_ -= v[size() - 1] * v[size() - 1] / E.pivots(k);
        inverse_moved_ += std::abs(v2 / E.pivots(k));
        diagonal_ += E.signs(k) * squares;
        edited_ += squares.sum();
        add_to_past(squares.sum(), count);
    }
    edits_ += count;
    largest_ = largest_.cwiseMax(diagonal_);
    return true;
}

std::shared_ptr<const Anchor> Anchor::edit(const Objective* before, const Objective* after, bool fold) const {
    if (!complete()) return shared_from_this();
    return edit(Objective::change(before, after, theta_, false).rows, fold);
}

std::shared_ptr<const Anchor> Anchor::edit(const std::vector<Change::Rows>& rows, bool fold) const {
    if (!complete()) return shared_from_this();
    Index count = 0;
    for (const Change::Rows& change : rows) require_size("theta", size(), change.rows->parameters());
    for (const Change::Rows& change : rows) count += change.rows->scaled_rows(change.curvature.cwiseAbs());
    const bool whole = edits_ == 0 && !eliminated();  // H is H_0
    if (count == 0 && (whole || !fold)) return shared_from_this();
    constexpr Index pays = 12;  // above p / 12 rows a new factor costs less than one row after the other
    const bool few = count <= std::max<Index>(1, size() / pays);
    if (!fold && few && gone_.empty() && factored() && edits_ + count <= capacity()) {
        std::shared_ptr<Anchor> appended(new Anchor(*this));
        if (appended->append(rows, count)) return appended;
    }
    Matrix H = hessian();
    for (const Change::Rows& change : rows) change.rows->add_gram(change.curvature, H);
    auto folded = std::make_shared<Anchor>(theta_, std::move(H));
    if (!fold) {  // otherwise digits of rows that left would stay
        folded->largest_ = largest_.cwiseMax(folded->diagonal_);
        folded->past_ = past_;
        for (const Change::Rows& change : rows)
            folded->add_to_past(change.rows->gram_diagonal(change.curvature.cwiseAbs()).sum(), count);
        folded->past_.rounding += fold_rounding() + 3.0 * roundoff * folded->frobenius();
    }
    if (fold && few && whole && factored()) folded->held_->factored.set(rotated(rows));
    return folded;
}

std::shared_ptr<const Anchor> Anchor::penalised(const VectorRef& more) const {
    require_complete();
    require_size("the penalty", more.size(), size());
    Matrix H = hessian();
    H.diagonal() += more;
    auto moved = std::make_shared<Anchor>(theta_, std::move(H));
    moved->largest_ = largest_.cwiseMax(moved->diagonal_);
    moved->past_ = past_;
    moved->past_.rounding += fold_rounding() + 3.0 * roundoff * moved->frobenius();
    return moved;
}

// The factor of H_0 plus these rows, or nothing where rotations cannot give it (E22).
std::optional<CholeskyFactor> Anchor::rotated(const std::vector<Change::Rows>& rows) const {
    CholeskyFactor factor = held_->factor();
    try {
        for (const double sign : {1.0, -1.0})
            for (const Change::Rows& change : rows) {
                const Vector weights = (sign * change.curvature).cwiseMax(0.0);
                Matrix columns(size(), change.rows->scaled_rows(weights));
                if (columns.cols() == 0) continue;
                change.rows->scaled_rows(weights, columns);
                if (sign > 0.0)
                    factor.update(columns);
                else
                    factor.downdate(columns);
            }
    } catch (const NotPositiveDefinite&) {
        return std::nullopt;
    }
    return factor;
}

std::shared_ptr<const Anchor> Anchor::drop(const std::vector<Index>& dropped) const {
    const std::vector<Index> survive = complement(size(), dropped);
    std::shared_ptr<Anchor> smaller(new Anchor());
    if (of_each_) {  // the same coordinates of each class
        const Index p = of_each_->size(), K = p > 0 ? size() / p : 0;
        const auto end = std::lower_bound(dropped.begin(), dropped.end(), p);
        smaller->of_each_ = of_each_->drop({dropped.begin(), end});
        if (K * (p - smaller->of_each_->size()) != static_cast<Index>(dropped.size()))
            throw std::invalid_argument("the same coordinates of every class are to be dropped");
        smaller->diagonal_ = smaller->of_each_->diagonal().replicate(K, 1);
        smaller->hold(Matrix(0, 0));
        return smaller;
    }
    if (complete()) smaller->theta_ = theta_(survive);
    smaller->diagonal_ = diagonal_(survive);
    if (complete()) smaller->largest_ = largest_(survive);
    smaller->past_ = past_;
    smaller->gone_ = gone_;
    for (std::size_t k = 0; k < block_.size(); ++k) {
        const auto at = std::lower_bound(survive.begin(), survive.end(), block_[k]);
        if (at != survive.end() && *at == block_[k]) {
            smaller->block_.push_back(at - survive.begin());
            smaller->kept_.push_back(kept_[k]);
        } else {
            smaller->gone_.push_back(kept_[k]);
        }
    }
    const Index m = held_->H.rows(), k = static_cast<Index>(smaller->gone_.size());
    // k solves cost 2 k m^2, a new factor m^3 / 3; a small one is not worth the algebra.
    constexpr Index small = 256;
    if (m <= small || 8 * k > m) {
        const std::vector<Index> kept = smaller->kept_;
        smaller->hold(held_hessian()(kept, kept));
        smaller->past_.rounding += fold_rounding();
        return smaller;
    }
    smaller->held_ = held_;
    smaller->A_ = A_;
    smaller->edits_ = edits_;
    smaller->edited_ = edited_;
    smaller->inverse_gain_ = inverse_gain_;  // less by what dropped
    smaller->inverse_last_ = inverse_last_;
    smaller->inverse_moved_ = inverse_moved_;
    const Index old = W_.cols();
    if (k == old) {
        smaller->W_ = W_;
        smaller->corner_ = corner_;
    } else {
        Matrix added = Matrix::Zero(m, k - old);
        for (Index j = old; j < k; ++j) added(smaller->gone_[static_cast<std::size_t>(j)], j - old) = 1.0;
        held_->factor().solve_in_place(added);
        for (Index j = 0; edits_ > 0 && j < k - old; ++j) added.col(j) = correct(added.col(j), edits_);
        smaller->W_.resize(m, k);
        if (old > 0) smaller->W_.leftCols(old) = W_;
        smaller->W_.rightCols(k - old) = added;
        smaller->corner_ = std::make_shared<const CholeskyFactor>(smaller->W_(smaller->gone_, Eigen::all));
    }
    return smaller;
}

}  // namespace expunge
