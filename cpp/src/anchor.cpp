#include "expunge/anchor.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "expunge/errors.hpp"

namespace expunge {

namespace {

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
    return H;
}

std::vector<Index> without(Index p, const std::vector<Index>& dropped) {
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

}  // namespace

void Anchor::hold(Matrix H) {
    kept_ = up_to(H.rows());
    gone_.clear();
    held_ = std::make_shared<const Held>(std::move(H));
}

Anchor::Anchor(const Objective& objective, Vector theta, const VectorRef& curvature, Index block) {
    const Index p = theta.size();
    if (block >= p) {
        theta_ = std::move(theta);
        block_ = up_to(p);
        hold(hessian_of(objective, curvature));
        diagonal_ = held_->H.diagonal();
    } else {
        diagonal_ = objective.gram_diagonal(curvature);
        block_ = heaviest(diagonal_, objective.penalty(), block);
        diagonal_ += objective.penalty();
        hold(hessian_of(objective.select(block_), curvature));
    }
}

Matrix Anchor::hessian() const { return gone_.empty() ? held_->H : Matrix(held_->H(kept_, kept_)); }

Vector Anchor::solve(const VectorRef& b) const {
    if (complete() && gone_.empty()) return held_->factor.solve(b);
    Vector x = b.cwiseQuotient(diagonal_);
    Vector u = Vector::Zero(held_->factor.size());
    u(kept_) = b(block_);
    u = held_->factor.solve(u);
    if (!gone_.empty()) u -= W_ * corner_->solve(u(gone_));
    x(block_) = u(kept_);
    return x;
}

std::shared_ptr<const Anchor> Anchor::edit(const Objective* before, const Objective* after) const {
    if (!complete()) return shared_from_this();
    const bool same = before && after && before->same_rows(*after);
    Vector change;
    if (same) {
        change = after->curvature(theta_) - before->curvature(theta_);
        if ((change.array() == 0.0).all()) return shared_from_this();
    }
    Matrix H = hessian();
    if (same) {
        after->add_gram(change, H);
    } else {
        if (before) before->add_gram(-before->curvature(theta_), H);
        if (after) after->add_gram(after->curvature(theta_), H);
    }
    constexpr double digits_left = 1e-3;
    Vector largest = diagonal_.cwiseMax(H.diagonal());
    if (!(H.diagonal().array() > digits_left * largest.array()).all()) return nullptr;
    std::shared_ptr<Anchor> edited(new Anchor());
    edited->theta_ = theta_;
    edited->diagonal_ = std::move(largest);
    edited->block_ = block_;
    try {
        edited->hold(std::move(H));
    } catch (const NotPositiveDefinite&) {
        return nullptr;
    }
    return edited;
}

std::shared_ptr<const Anchor> Anchor::drop(const std::vector<Index>& dropped) const {
    const std::vector<Index> survive = without(size(), dropped);
    std::shared_ptr<Anchor> smaller(new Anchor());
    if (complete()) smaller->theta_ = theta_(survive);
    smaller->diagonal_ = diagonal_(survive);
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
    const Index m = held_->factor.size(), k = static_cast<Index>(smaller->gone_.size());
    // k solves cost 2 k m^2, a new factor m^3 / 3; a small one is not worth the algebra.
    constexpr Index small = 256;
    if (m <= small || 8 * k > m) {
        smaller->hold(held_->H(smaller->kept_, smaller->kept_));
        return smaller;
    }
    smaller->held_ = held_;
    const Index old = W_.cols();
    if (k == old) {
        smaller->W_ = W_;
        smaller->corner_ = corner_;
    } else {
        Matrix added = Matrix::Zero(m, k - old);
        for (Index j = old; j < k; ++j) added(smaller->gone_[static_cast<std::size_t>(j)], j - old) = 1.0;
        held_->factor.solve_in_place(added);
        smaller->W_.resize(m, k);
        if (old > 0) smaller->W_.leftCols(old) = W_;
        smaller->W_.rightCols(k - old) = added;
        smaller->corner_ = std::make_shared<const CholeskyFactor>(smaller->W_(smaller->gone_, Eigen::all));
    }
    return smaller;
}

}  // namespace expunge
