#include "expunge/anchor.hpp"

#include <utility>

namespace expunge {

Anchor::Anchor(const Objective& objective, Vector theta)
    : theta_(std::move(theta)), H_(objective.hessian(theta_)), factor_(H_) {}

Anchor::Anchor(Vector theta, Matrix H, CholeskyFactor factor)
    : theta_(std::move(theta)), H_(std::move(H)), factor_(std::move(factor)) {}

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
    CholeskyFactor factor(H);
    return std::shared_ptr<const Anchor>(new Anchor(theta_, std::move(H), std::move(factor)));
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
    if (dropped.size() > erase_limit) {
        CholeskyFactor factor(H);
        return std::shared_ptr<const Anchor>(new Anchor(theta_(kept), std::move(H), std::move(factor)));
    }
    CholeskyFactor factor = factor_;
    for (auto i = dropped.rbegin(); i != dropped.rend(); ++i) factor.erase(*i);
    return std::shared_ptr<const Anchor>(new Anchor(theta_(kept), std::move(H), std::move(factor)));
}

}  // namespace expunge
