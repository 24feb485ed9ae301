#include "expunge/anchor.hpp"

#include <utility>

#include "expunge/errors.hpp"

namespace expunge {

Anchor::Anchor(const Objective& objective, Vector theta)
    : theta_(std::move(theta)), H_(objective.hessian(theta_)), factor_(H_), largest_(H_.diagonal()) {}

Anchor::Anchor(Vector theta, Matrix H, CholeskyFactor factor, Vector largest)
    : theta_(std::move(theta)), H_(std::move(H)), factor_(std::move(factor)), largest_(std::move(largest)) {}

std::shared_ptr<const Anchor> Anchor::edit(const Objective* before, const Objective* after) const {
    Matrix H = H_;
    if (before && after && before->same_rows(*after)) {
        const Vector change = after->curvature(theta_) - before->curvature(theta_);
        if ((change.array() == 0.0).all()) return shared_from_this();
        after->add_gram(change, H);
    } else {
        if (before) before->add_gram(-before->curvature(theta_), H);
        if (after) after->add_gram(after->curvature(theta_), H);
    }
    constexpr double digits_left = 1e-3;
    Vector largest = largest_.cwiseMax(H.diagonal());
    if (!(H.diagonal().array() > digits_left * largest.array()).all()) return nullptr;
    try {
        CholeskyFactor factor(H);
        return std::shared_ptr<const Anchor>(
            new Anchor(theta_, std::move(H), std::move(factor), std::move(largest)));
    } catch (const NotPositiveDefinite&) {
        return nullptr;
    }
}

std::shared_ptr<const Anchor> Anchor::drop(const std::vector<Index>& dropped) const {
    std::vector<Index> kept;
    for (Index i = 0, k = 0; i < theta_.size(); ++i) {
        if (k < static_cast<Index>(dropped.size()) && dropped[static_cast<std::size_t>(k)] == i)
            ++k;
        else
            kept.push_back(i);
    }
    Matrix H = H_(kept, kept);
    // Erasing one index costs about p^2, factoring anew p^3 / 3 at several times the speed.
    const auto erase_limit = static_cast<std::size_t>(theta_.size() / 32);
    const bool erase = dropped.size() <= erase_limit;
    CholeskyFactor factor = erase ? factor_ : CholeskyFactor(H);
    if (erase)
        for (auto i = dropped.rbegin(); i != dropped.rend(); ++i) factor.erase(*i);
    return std::shared_ptr<const Anchor>(
        new Anchor(theta_(kept), std::move(H), std::move(factor), largest_(kept)));
}

}  // namespace expunge
