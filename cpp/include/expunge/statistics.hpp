#pragma once
#include <memory>
#include <optional>

#include "expunge/anchor.hpp"

namespace expunge {

// Anchored statistics (E8): at a fixed theta_a, the gradient g_a and the Hessian H_a of the current data,
// how long its rows are and how much rounding both carry. Rows add to them and leave them one by one, in
// any order; statistics of shards add up. theta = theta_a - H_a^-1 g_a (E9) then needs no row, and neither
// does a bound of its residual (E10). Immutable: an edit gives new statistics, which share the factor.
class AnchoredStatistics {
public:
    // `anchor` is complete, the Hessian of J at its theta; `at` is J there, `floor` what rounding may hide in
    // its gradient; no row of J is longer than `largest_norm`, intercept not counted.
    AnchoredStatistics(const Objective& J, std::shared_ptr<const Anchor> anchor, const Evaluation& at,
                       double floor, double largest_norm);

    // What the rows add up to beside g_a and H_a.
    struct Tallies {
        double value = 0.0;               // J(theta_a)
        double rows = 0.0, weight = 0.0;  // of positive weight; the sum of weights
        double largest_norm = 0.0;        // R of E10, at least
        double gradient_rounding = 0.0;   // e_g without
        double gradient_norm = 0.0;       // the sum of |g_a| over edits, in units of 1/u
        double hessian_rounding = 0.0;    // e_H without that of its representation
        double edits = 0.0;               // rows edited since the anchor
        bool operator==(const Tallies&) const = default;
    };
    // All that they are, as saved.
    struct State {
        std::shared_ptr<const Anchor> anchor;
        Loss loss;
        Vector penalty;  // (p,), 0 at the intercept
        bool fit_intercept = false;
        Vector gradient;  // g_a (p,)
        Tallies tallies;
    };
    explicit AnchoredStatistics(State state);
    const State& state() const { return state_; }

    // Rows before -> after (E3), either null; penalties do not enter. Throws where fewer rows or less weight
    // than none would be left. Whether H_a stays positive definite shows when its factor is asked for. With
    // `fold` nothing but sums is left, no row by itself: and of what a row adds to a bound, which stays when
    // the row leaves, its power of two.
    AnchoredStatistics edit(const Objective* before, const Objective* after, bool fold = false) const {
        return edit(Objective::change(before, after, state_.anchor->theta()), fold);
    }
    AnchoredStatistics edit(const Change& change, bool fold = false) const;  // as tallied at the anchor
    // And E3 on these rows at another theta.
    std::pair<AnchoredStatistics, Evaluation> edit(const Objective* before, const Objective* after,
                                                   const VectorRef& theta, bool fold = false) const;
    AnchoredStatistics folded() const;

    // Folded, with R, e_g and e_H rounded up to powers of two: for who keeps these sums without the rows,
    // since maxima and bounds stay when a row leaves, and tell its digits.
    AnchoredStatistics rounded() const;

    // The same sums at another theta, where the Hessian does not depend on it: what rows that left have moved
    // g_a by leaves with them.
    AnchoredStatistics moved(Vector theta) const;

    // Of both data together, at the same anchor: the penalty is counted once.
    AnchoredStatistics merge(const AnchoredStatistics& other) const;

    // Without the coordinates in `dropped` (ascending), where the Hessian does not depend on theta: the
    // anchor keeps its other coordinates (E12).
    AnchoredStatistics drop(const std::vector<Index>& dropped) const;

    struct Step {
        Vector theta;
        double bound;  // of |grad J(theta)|
    };
    // E9 and E10.
    Step step() const;

    // The largest difference from g_a that rounding can explain in a gradient of these data at theta_a, to
    // which `floor` adds.
    double gradient_error() const;

private:
    double hessian_error() const;  // e_H, with what its representation adds

    // H_a^-1 g_a, what H_a times it leaves of g_a, and the norm of that.
    struct Solution {
        Vector x, product;
        double residual;
    };
    Solution solve() const;
    double error(double length, double theta_norm) const;  // e of E10, length = |H_a^-1 g_a|

    State state_;
    std::optional<Vector> start_;  // H_a^-1 g_a as it follows from that before the last edit, if it does
    std::shared_ptr<Lazy<Solution>> solution_ = std::make_shared<Lazy<Solution>>();
};

}  // namespace expunge
