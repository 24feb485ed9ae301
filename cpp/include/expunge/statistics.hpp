#pragma once
#include <algorithm>
#include <memory>
#include <optional>

#include "expunge/anchor.hpp"
#include "expunge/distance.hpp"
#include "expunge/second_anchor.hpp"

namespace expunge {

// Anchored statistics (E8): the gradient g_a and the Hessian H_a of the current data at a fixed theta_a, the
// length of its longest row, and bounds of the rounding errors in g_a and H_a. Rows are added and subtracted
// in any order, and statistics of shards add up. No row is read for theta = theta_a - H_a^-1 g_a (E9) and for
// the bound of its residual (E10). Immutable: every edit gives new statistics, which share the factor. While
// the rows are there, a second anchor is nearer to the minimum (E26).
class AnchoredStatistics {
public:
    // `anchor` is complete: the Hessian of J at its theta. `at` is J there, and `floor` bounds the rounding
    // error of its gradient. No row of J is longer than `largest_norm`, intercept not counted. Where J has a
    // ball and an intercept, distances are bounded about its centre.
    AnchoredStatistics(const Objective& J, std::shared_ptr<const Anchor> anchor, const Evaluation& at,
                       double floor, double largest_norm);

    // The other sums over rows, and bounds.
    struct Tallies {
        double value = 0.0;              // J(theta_a)
        double rows = 0.0;               // how many have a positive weight
        double weight = 0.0;             // sum of the weights, rounded up
        double largest_norm = 0.0;       // R of E10, or more
        double gradient_rounding = 0.0;  // e_g = gradient_rounding + u gradient_norm
        double gradient_norm = 0.0;      // sum of |g_a| after each edit
        double hessian_rounding = 0.0;   // e_H, without the rounding of H_a itself to doubles
        double edits = 0.0;              // rows added or subtracted since the anchor
        double value_rounding = 0.0;     // at least the rounding error of value, for a squared loss
        bool operator==(const Tallies&) const = default;
    };
    // What a file keeps.
    struct State {
        std::shared_ptr<const Anchor> anchor;
        Loss loss;
        Vector penalty;  // (p,), 0 at the intercept
        bool fit_intercept = false;
        Vector gradient;  // g_a (p,)
        Tallies tallies;
        Index outputs = 1;
    };
    explicit AnchoredStatistics(State state);
    const State& state() const { return state_; }
    const SecondAnchor* second() const { return second_.get(); }  // null where there is none

    // Subtracts the rows `before` and adds the rows `after` (E3); either may be null. Penalties do not enter.
    // Throws where fewer than 0 rows, or a weight below 0, would be left. Whether H_a stays positive definite
    // shows when its factor is asked for. With `fold` only sums are kept: no row stands by itself, and a
    // bound grows by a power of two, because it keeps what a row added after that row has left.
    AnchoredStatistics edit(const Objective* before, const Objective* after, bool fold = false) const {
        return edit(before, after, Objective::change(before, after, state_.anchor->theta()), fold);
    }
    // Also gives E3 at another theta.
    std::pair<AnchoredStatistics, Evaluation> edit(const Objective* before, const Objective* after,
                                                   const VectorRef& theta, bool fold = false) const;
    // The same statistics with a second anchor at theta (E26), and J there: one pass over the data, J, which
    // must be what the statistics are of. Where a row is so far from the boundary that its curvature
    // vanishes, there is none. An edit takes it along; nothing else does, and whatever outlives the rows is
    // without it.
    std::pair<AnchoredStatistics, Evaluation> measure_beside(const Objective& J, Vector theta) const;

    // The same statistics, knowing how long the rows of J, which they are of, are beside H_a: bounds of
    // distances then do not depend on units. Edits, measurements and merges take that along, and `round_up`
    // does, in powers of two; nothing else.
    AnchoredStatistics measure_rows(const Objective& J) const;
    // How long they are in the norms of H_a, at most, or nothing where that is not known; for a file.
    std::vector<double> row_lengths() const {
        return rows_ && !rows_->about_ball() ? rows_->longest() : std::vector<double>();
    }
    AnchoredStatistics know_rows(std::vector<double> longest) const;  // the reverse

    // Adds the rows that the factor holds one by one into H_a.
    AnchoredStatistics fold() const;

    // Folds, and rounds R, e_g and e_H up to powers of two. These keep what a row added after that row has
    // left, and would tell its digits to whoever keeps the statistics without the rows.
    AnchoredStatistics round_up() const;

    // Moves the anchor to another theta, where the Hessian does not depend on theta. The anchor then no
    // longer tells of rows that have left.
    AnchoredStatistics move_to(Vector theta) const;

    // Another penalty (p,) in place of that of now (E35): it moves with the weights of the rows, where a
    // loss is a mean.
    AnchoredStatistics penalise(Vector penalty) const;

    // Takes J and its gradient at the anchor, or where the Hessian does not depend on it at any theta, as
    // they were measured, with what rounding may hide in them: what edits have rounded since is forgotten.
    AnchoredStatistics measure(Vector theta, const Evaluation& at, double floor) const;

    // Adds the statistics of other data at the same anchor. The penalty is counted once.
    AnchoredStatistics merge(const AnchoredStatistics& other) const;

    // Drops coordinates, which ascend, where the Hessian does not depend on theta. The others stay where the
    // anchor has them (E12).
    AnchoredStatistics drop(const std::vector<Index>& dropped) const;

    struct Step {
        Vector theta;
        double bound;     // of |grad J(theta)|
        double distance;  // from theta to the minimum, at most, in standard errors
    };
    // The Newton step from the anchor (E9), the bound of its residual (E10) and of its distance (E41); or the
    // chord step from the second anchor, with its bounds (E26). A distance above `wanted` is bounded again,
    // in a way that is sharper and dearer.
    Step step(double wanted = 0.0) const;

    // A bound of the distance from theta to the minimum in standard errors (E41), given J and its gradient
    // there; `floor` bounds the rounding error of the gradient.
    double distance(const VectorRef& theta, const Evaluation& at, double floor) const;

    // E24: no less than lambda |theta - theta*| in the coefficients, lambda their least penalty, as a profile
    // residual is. Of the end of the step; and of a theta where J was measured.
    double coefficient_distance() const;
    double coefficient_distance(const VectorRef& theta, const Evaluation& at, double floor) const;

    bool quadratic() const;  // whether the Hessian does not depend on theta
    // Whether targets decide if there is a minimiser, and nobody counts them as classes are counted: a finite
    // distance proves that there is one.
    bool may_lack_minimiser() const {
        return state_.fit_intercept && !quadratic() && !std::holds_alternative<Logistic>(state_.loss);
    }
    double gradient_error() const;  // e_g: at least the rounding error of g_a

private:
    AnchoredStatistics edit(const Objective* before, const Objective* after, const Change& change,
                            bool fold) const;                              // `change` is that at the anchor
    AnchoredStatistics edit_first(const Change& change, bool fold) const;  // the second anchor is left behind
    void follow(const AnchoredStatistics& old, const Vector& change);      // the solution, one row's edit

    // Bounds at a theta where H is at least H_a / far^2 and the gradient X^T D^1/2 w + v + e, D = s d2 at
    // theta_a: of |w|, of v in the norm of H_a^-1, and of |e|.
    struct Gradient {
        double far = 1.0, w = 0.0, v = 0.0, e = 0.0;
    };
    Gradient measured(const VectorRef& theta, const Evaluation& at, double floor) const;
    // E41. `squares`: those left of a least-squares fit.
    double standard_errors(const Gradient& here, double squares, double wanted) const;
    double coefficients(const Gradient& here) const;  // E24
    // The least and the largest penalty of a coefficient; infinite and 0 where there is none.
    std::pair<double, double> penalties() const;
    // A row of H's sum is x_i, or with K outputs (e_k - e_l) x_i for each pair of classes: no longer than
    // this. Their predictors move by at most `more` times what rounding moves one.
    double row_norm() const;
    InverseNorms norms_by_penalty() const;
    double reach(const Vector& step) const;  // no predictor changes by more
    double inverses_of_constants() const;
    InverseNorms norms_by_inverse() const;
    double hessian_error() const;  // e_H: at least the rounding error of H_a
    double sums_error() const;     // the same, but for what is a share of each row's curvature
    double value_error(double value, const VectorRef& theta) const;  // of J measured there
    double moved_value_error(const VectorRef& step, const VectorRef& change, double value) const;

    // Of the anchor that steps are from:
    const Vector& gradient() const { return second_ ? second_->gradient : state_.gradient; }
    double step_gradient_error() const { return second_ ? second_->gradient_error() : gradient_error(); }

    struct Solution {
        Vector x, product;  // x = H_a^-1 g up to rounding, and H_a x
        double residual;    // |g - H_a x|
    };
    Solution solve() const;
    struct Arrival {
        Vector theta;
        Gradient gradient;
        double nonlinear = 0.0;  // the first term of E10
    };
    Arrival arrive() const;  // where the step leads
    // e of E10, length = |H_a^-1 g|, where H_a is off by so much in norm
    double step_error(double length, double theta_norm, double hessian) const;

    State state_;
    // By how much a curvature may be off for the rounding of its predictor, and what that is of e_H.
    struct Curvature {
        double share = 0.0, norm = 0.0;
    };

    Curvature curvature_;  // this and the next while the rows are there
    KnownFloor floor_;
    std::shared_ptr<const SecondAnchor> second_;
    std::shared_ptr<const RowNorms> rows_;
    std::optional<Vector> start_;  // H_a^-1 g, if it follows from the solution before the last edit
    std::shared_ptr<Lazy<Solution>> solution_ = std::make_shared<Lazy<Solution>>();
};

}  // namespace expunge
