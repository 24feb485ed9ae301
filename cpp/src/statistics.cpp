#include "expunge/statistics.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

namespace expunge {

namespace {

double max_d3(const Loss& loss) {
    return std::visit([](auto l) { return l.max_d3; }, loss);
}

double max_d2(const Loss& loss) {
    return std::visit([](auto l) { return l.max_d2; }, loss);
}

// Throws unless all parts have the same coordinates.
void require_fit(const AnchoredStatistics::State& s) {
    if (!s.anchor) throw std::invalid_argument("statistics need an anchor");
    s.anchor->require_complete();
    const Index p = s.anchor->size();
    require_size("the penalty", s.penalty.size(), p);
    require_size("the gradient", s.gradient.size(), p);
    if (s.outputs < 1 || p % s.outputs != 0)
        throw std::invalid_argument(std::to_string(p) + " parameters are not those of " +
                                    std::to_string(s.outputs) + " outputs");
}

// By how much rounding moves the logarithm of a curvature, over u |x| |theta|: as a predictor. With K outputs
// that is of a product of two probabilities, each of which all predictors of the row move.
double predictor_rounding(Index p, Index outputs) {
    const auto d = static_cast<double>(p + 3);
    return outputs > 1 ? 4.0 * d : d;
}

// A norm that was computed from p numbers, rounded up.
double rounded_up(double norm, Index p) { return norm * (1.0 + 4.0 * roundoff * static_cast<double>(p + 4)); }

}  // namespace

AnchoredStatistics::AnchoredStatistics(const Objective& J, std::shared_ptr<const Anchor> anchor,
                                       const Evaluation& at, double floor, double largest_norm)
    : state_{.anchor = std::move(anchor),
             .loss = J.loss(),
             .penalty = J.penalty(),
             .fit_intercept = J.fit_intercept(),
             .gradient = at.gradient,
             .tallies = {.value = at.value, .gradient_rounding = floor},
             .outputs = J.outputs()},
      floor_(J, floor) {
    require_fit(state_);
    const Tally count = J.count();
    const Index p = J.parameters();
    state_.tallies.rows = count.rows;
    state_.tallies.weight = count.weight;
    state_.tallies.largest_norm =
        rounded_up(std::sqrt(largest_norm * largest_norm + (J.fit_intercept() ? 1.0 : 0.0)), p);
    // H_a - Lambda is a sum of s d2 x x^T, whose norm is at most its trace. d2 is taken at an eta that is off
    // by t: up to t = 1 its relative error is at most e^t - 1 <= t (1 + t) (E19). Above, only bounds are
    // known. Of rows that came or went since H_a was assembled, both times count.
    state_.tallies.value_rounding = value_error(at.value, state_.anchor->theta());
    const Anchor::Past& past = state_.anchor->past();
    const double trace = (state_.anchor->diagonal() - J.penalty()).cwiseAbs().sum(),
                 ever = trace + 2.0 * past.trace,
                 of_pairs = J.outputs() > 1 ? 3.0 * static_cast<double>(J.outputs()) + 20.0 : 0.0;
    state_.tallies.hessian_rounding =
        roundoff * (2.0 * (J.additions() + of_pairs) + 5.0) * ever + past.rounding;
    if (!quadratic() && J.fit_intercept() && J.ball() && J.outputs() == 1)
        rows_ = std::make_shared<const RowNorms>(*J.ball());
    if (max_d3(J.loss()) == 0.0) return;
    const double R = row_norm(),
                 t = roundoff * predictor_rounding(p, J.outputs()) * R * state_.anchor->theta().norm();
    if (t <= 0.25) curvature_ = {t * (1.0 + t), t * (1.0 + t) * trace};
    state_.tallies.hessian_rounding +=
        t <= 1.0 ? t * (1.0 + t) * ever
        : past.trace == 0.0
            ? (1.0 + 0x1p-20) * count.weight * R * R * std::min(max_d3(J.loss()) * t, max_d2(J.loss()))
            : std::numeric_limits<double>::infinity();
}

AnchoredStatistics::AnchoredStatistics(State state) : state_(std::move(state)) { require_fit(state_); }

bool AnchoredStatistics::quadratic() const { return max_d3(state_.loss) == 0.0; }

double AnchoredStatistics::gradient_error() const {
    return state_.tallies.gradient_rounding + roundoff * state_.tallies.gradient_norm;
}

double AnchoredStatistics::hessian_error() const {
    const auto p = static_cast<double>(state_.anchor->size() + state_.anchor->edits());
    return state_.tallies.hessian_rounding + (p + 2.0) * roundoff * state_.anchor->frobenius();
}

// The data's part of the true H_a is that of H_a times 1 +- share, but for this. So H_a exceeds 1 - share of
// what H_a less this, over 1 - share, is.
double AnchoredStatistics::sums_error() const {
    const double all = hessian_error();
    return raised(all - curvature_.norm, 4.0 * roundoff * all) / (1.0 - curvature_.share);
}

double AnchoredStatistics::value_error(double value, const VectorRef& theta) const {
    if (!quadratic()) return 0.0;
    const Tallies& of = state_.tallies;
    return expunge::value_error(value, of.rows, of.weight, of.largest_norm * theta.norm(), theta.size());
}

// What is off in J after a step, at most, beside what was: by the errors of the gradient and of H, and by
// rounding.
double AnchoredStatistics::moved_value_error(const VectorRef& step, const VectorRef& change,
                                             double value) const {
    const double length = step.norm(), p = static_cast<double>(step.size());
    if (length == 0.0) return 0.0;
    return (gradient_error() + hessian_error() * length) * length +
           (p + 4.0) * roundoff * (std::abs(value) + length * (state_.gradient.norm() + change.norm()));
}

AnchoredStatistics AnchoredStatistics::edit_first(const Change& change, bool fold) const {
    const Anchor& old = *state_.anchor;
    require_size("the rows' gradient", change.gradient.size(), state_.gradient.size());
    AnchoredStatistics edited(state_);
    State& s = edited.state_;
    const auto kept = [&](double value) { return fold ? power_of_two_above(value) : value; };
    if (!fold) {
        edited.floor_ = floor_;
        edited.floor_.joined += change.after.weight;
        edited.rows_ = rows_;
        edited.curvature_ = curvature_;
        double gone = 0.0;  // curvature that leaves, with what it was off by
        for (const Change::Rows& rows : change.rows)
            gone += rows.rows->total_curvature((-rows.curvature).cwiseMax(0.0));
        const double R = row_norm();
        s.tallies.hessian_rounding += (1.0 + 0x1p-20) * curvature_.share * R * R * gone;
    }
    for (const auto& [tally, sign] : {std::pair(&change.before, -1.0), std::pair(&change.after, 1.0)}) {
        s.tallies.rows += sign * tally->rows;
        const double lost = std::abs(rounded_off(s.tallies.weight, sign * tally->weight));
        s.tallies.weight = raised(s.tallies.weight + sign * tally->weight, lost);
        s.tallies.value_rounding += kept(roundoff * tally->value_rounding);
        const double norm = rounded_up(tally->largest_norm, s.gradient.size());
        s.tallies.largest_norm = std::max(s.tallies.largest_norm, fold ? norm_above(norm) : norm);
        s.tallies.gradient_rounding += kept(roundoff * tally->gradient_rounding);
        s.tallies.hessian_rounding += kept(roundoff * tally->hessian_rounding);
    }
    s.tallies.edits += static_cast<double>(change.edited);
    if (s.tallies.rows < 0.0)
        throw std::invalid_argument("more rows would leave than the statistics hold (" +
                                    std::to_string(static_cast<long long>(state_.tallies.rows)) +
                                    "): were all of them in the data?");
    if (s.tallies.weight < -1e-9 * state_.tallies.weight)
        throw std::invalid_argument("more weight would leave than the statistics hold (" +
                                    std::to_string(state_.tallies.weight) +
                                    "): were all of these rows in the data?");
    s.gradient += change.gradient;
    s.tallies.value += change.value;
    s.tallies.value_rounding += kept(2.0 * roundoff * (std::abs(s.tallies.value) + std::abs(change.value)));
    s.tallies.gradient_norm += kept(s.gradient.norm());
    s.anchor = old.edit(change.rows, fold);
    const Anchor& H = *s.anchor;
    if (!H.same_factor(old))  // H + Gram of the rows, rounded
        s.tallies.hessian_rounding += kept(old.fold_rounding() + 3.0 * roundoff * H.frobenius());
    return edited;
}

// A single row changes a gradient along its column of A.
void AnchoredStatistics::follow(const AnchoredStatistics& old, const Vector& change) {
    const Anchor& H = *state_.anchor;
    const Solution* solved = old.solution_->peek();
    const Vector* known = solved ? &solved->x : old.start_ ? &*old.start_ : nullptr;
    if (!known || !H.same_factor(*old.state_.anchor) || H.edits() != old.state_.anchor->edits() + 1) return;
    const auto a = H.last_edit();
    const double norm2 = a.squaredNorm(), along = a.dot(change) / norm2;
    if (norm2 > 1e-200 && (change - along * a).norm() <= 1e-13 * change.norm())
        start_ = H.follow(*known, along);
}

AnchoredStatistics AnchoredStatistics::edit(const Objective* before, const Objective* after,
                                            const Change& change, bool fold) const {
    AnchoredStatistics edited = edit_first(change, fold);
    if (edited.rows_ && after) edited.rows_ = std::make_shared<const RowNorms>(rows_->join(*after));
    if (!second_) {
        edited.follow(*this, change.gradient);
        return edited;
    }
    if (fold) return edited;
    const Change there = Objective::change(before, after, second_->theta);
    if (const auto moved = second_->edit(there, after, state_.anchor->theta())) {
        edited.second_ = std::make_shared<const SecondAnchor>(*moved);
        edited.follow(*this, there.gradient);
    }
    return edited;
}

std::pair<AnchoredStatistics, Evaluation> AnchoredStatistics::measure_beside(const Objective& J,
                                                                             Vector theta) const {
    require_size("theta", theta.size(), state_.gradient.size());
    SecondAnchor second;
    Evaluation at = J.evaluate_beside(theta, state_.anchor->theta(), second.moved);
    AnchoredStatistics measured(state_);
    measured.floor_ = floor_;
    measured.rows_ = rows_;
    measured.curvature_ = curvature_;
    const double floor =
        std::min(at.floor, floor_.at(J, state_.anchor->theta(), theta, state_.tallies.largest_norm));
    if (!quadratic() && std::isfinite(second.moved.largest + second.moved.squares + floor)) {
        second.theta = std::move(theta);
        second.gradient = at.gradient;
        second.gradient_rounding = floor;
        measured.second_ = std::make_shared<const SecondAnchor>(std::move(second));
    }
    return {std::move(measured), std::move(at)};
}

std::pair<AnchoredStatistics, Evaluation> AnchoredStatistics::edit(const Objective* before,
                                                                   const Objective* after,
                                                                   const VectorRef& theta, bool fold) const {
    const Vector& anchor = state_.anchor->theta();
    require_size("theta", theta.size(), anchor.size());
    Change change = Objective::change(before, after, anchor);
    AnchoredStatistics edited = edit(before, after, change, fold);
    if (theta == anchor) return {std::move(edited), {change.value, std::move(change.gradient), Vector()}};
    return {std::move(edited), Objective::difference(before, after, theta)};
}

AnchoredStatistics AnchoredStatistics::measure_rows(const Objective& J) const {
    require_size("theta", J.parameters(), state_.penalty.size());
    if (J.penalty() != state_.penalty || J.fit_intercept() != state_.fit_intercept)
        throw std::invalid_argument("the statistics are of another objective than the rows");
    AnchoredStatistics measured(*this);
    if (!quadratic() && J.outputs() == 1)
        measured.rows_ = std::make_shared<const RowNorms>(J, *state_.anchor);
    return measured;
}

AnchoredStatistics AnchoredStatistics::fold() const {
    const Anchor& H = *state_.anchor;
    AnchoredStatistics folded(state_);
    folded.state_.anchor = H.edit(std::vector<Change::Rows>(), true);
    if (folded.state_.anchor.get() == &H) return second_ ? folded : *this;
    folded.state_.tallies.hessian_rounding += power_of_two_above(H.fold_rounding());
    return folded;
}

AnchoredStatistics AnchoredStatistics::round_up() const {
    AnchoredStatistics rounded = fold();
    State& s = rounded.state_;
    s.tallies.largest_norm = norm_above(s.tallies.largest_norm);
    for (double* kept : {&s.tallies.gradient_rounding, &s.tallies.gradient_norm, &s.tallies.hessian_rounding,
                         &s.tallies.value_rounding})
        *kept = power_of_two_above(*kept);
    if (!rows_ || rows_->about_ball()) return rounded;  // the centre is that of rows that may have left
    RowNorms rows = rows_->move_to(*s.anchor, s.penalty, s.fit_intercept, *rows_);
    std::vector<double> longest = rows.longest();
    for (double& length : longest) length = norm_above(length);
    return rounded.know_rows(longest);
}

AnchoredStatistics AnchoredStatistics::know_rows(std::vector<double> longest) const {
    AnchoredStatistics known(*this);
    if (!longest.empty())
        known.rows_ = std::make_shared<const RowNorms>(*state_.anchor, state_.penalty, state_.fit_intercept,
                                                       std::move(longest));
    return known;
}

AnchoredStatistics AnchoredStatistics::move_to(Vector theta) const {
    if (!quadratic())
        throw std::invalid_argument("statistics move only where the Hessian does not depend on theta");
    const Anchor& H = *state_.anchor;
    if (theta.size() != H.size())
        throw std::invalid_argument("theta has " + std::to_string(theta.size()) + " numbers, expected " +
                                    std::to_string(H.size()));
    const Vector step = theta - H.theta();
    const Vector change = H.multiply(step);
    AnchoredStatistics moved(state_);
    State& s = moved.state_;
    s.tallies.value += step.dot(state_.gradient) + 0.5 * step.dot(change);
    s.tallies.value_rounding += power_of_two_above(moved_value_error(step, change, s.tallies.value));
    s.gradient += change;
    // the error of H, and two roundings: of the step and of the sum
    const double rounding = hessian_error() * step.norm() +
                            2.0 * roundoff * (H.frobenius() * step.norm() + state_.gradient.norm());
    s.tallies.gradient_rounding += power_of_two_above(rounding);
    s.anchor = H.move_to(std::move(theta));
    return moved;
}

AnchoredStatistics AnchoredStatistics::penalise(Vector penalty) const {
    const Anchor& H = *state_.anchor;
    require_size("the penalty", penalty.size(), H.size());
    const Vector more = penalty - state_.penalty, both = penalty + state_.penalty,
                 pull = more.cwiseProduct(H.theta());
    AnchoredStatistics moved(state_);
    moved.floor_ = floor_;
    moved.rows_ = rows_;
    moved.curvature_ = curvature_;
    State& s = moved.state_;
    s.gradient += pull;
    s.tallies.value += 0.5 * H.theta().dot(pull);
    s.tallies.value_rounding +=
        4.0 * roundoff * (std::abs(s.tallies.value) + H.theta().dot(both.cwiseProduct(H.theta())));
    s.tallies.gradient_rounding += 4.0 * roundoff * both.cwiseProduct(H.theta()).norm();
    s.tallies.gradient_norm += s.gradient.norm();
    s.anchor = H.penalised(more);
    s.tallies.hessian_rounding += H.fold_rounding() + 4.0 * roundoff * (both.norm() + s.anchor->frobenius());
    s.penalty = std::move(penalty);
    if (second_) {
        auto second = std::make_shared<SecondAnchor>(*second_);
        second->gradient += more.cwiseProduct(second->theta);
        second->gradient_rounding += 4.0 * roundoff * both.cwiseProduct(second->theta).norm();
        second->gradient_norm += second->gradient.norm();
        moved.second_ = std::move(second);
    }
    return moved;
}

AnchoredStatistics AnchoredStatistics::measure(Vector theta, const Evaluation& at, double floor) const {
    require_size("theta", theta.size(), state_.anchor->size());
    require_size("the gradient", at.gradient.size(), state_.anchor->size());
    const bool here = theta == state_.anchor->theta();
    if (!here && !quadratic())
        throw std::invalid_argument("the Hessian is that of another theta: measure at the anchor");
    AnchoredStatistics measured(state_);
    measured.rows_ = rows_;
    measured.curvature_ = curvature_;
    State& s = measured.state_;
    if (!here) s.anchor = s.anchor->move_to(std::move(theta));
    s.gradient = at.gradient;
    s.tallies.value = at.value;
    s.tallies.value_rounding = value_error(at.value, s.anchor->theta());
    s.tallies.gradient_rounding = floor;
    s.tallies.gradient_norm = 0.0;
    return measured;
}

AnchoredStatistics AnchoredStatistics::merge(const AnchoredStatistics& other) const {
    const State& t = other.state_;
    if (state_.gradient.size() != t.gradient.size())
        throw std::invalid_argument("the statistics are of different objectives: one has " +
                                    std::to_string(state_.gradient.size()) + " parameters, the other " +
                                    std::to_string(t.gradient.size()));
    if (state_.anchor->theta() != t.anchor->theta())
        throw std::invalid_argument("the statistics have different anchors: make them at the same theta");
    if (state_.loss.index() != t.loss.index() || state_.penalty != t.penalty ||
        state_.fit_intercept != t.fit_intercept || state_.outputs != t.outputs)
        throw std::invalid_argument(
            "the statistics are of different objectives: loss, alpha, classes and intercept must be the "
            "same");
    const Vector& theta = state_.anchor->theta();
    const Vector pull = state_.penalty.cwiseProduct(theta);
    AnchoredStatistics merged(state_);
    State& s = merged.state_;
    Matrix H = state_.anchor->hessian() + t.anchor->hessian();
    H.diagonal() -= state_.penalty;
    s.anchor = std::make_shared<const Anchor>(theta, std::move(H));
    s.gradient += t.gradient - pull;
    s.tallies.value += t.tallies.value - 0.5 * theta.dot(pull);
    s.tallies.value_rounding +=
        t.tallies.value_rounding +
        4.0 * roundoff * (std::abs(state_.tallies.value) + std::abs(t.tallies.value) + theta.dot(pull));
    s.tallies.rows += t.tallies.rows;
    const double lost = std::abs(rounded_off(s.tallies.weight, t.tallies.weight));
    s.tallies.weight = raised(s.tallies.weight + t.tallies.weight, lost);
    s.tallies.largest_norm = std::max(s.tallies.largest_norm, t.tallies.largest_norm);
    s.tallies.gradient_rounding +=
        t.tallies.gradient_rounding + 3.0 * roundoff * (t.gradient.norm() + pull.norm());
    s.tallies.gradient_norm += t.tallies.gradient_norm + s.gradient.norm();
    s.tallies.hessian_rounding +=
        t.tallies.hessian_rounding + 3.0 * roundoff * (s.anchor->frobenius() + t.anchor->frobenius());
    s.tallies.edits += t.tallies.edits;
    if (rows_ && other.rows_ && !rows_->about_ball() && !other.rows_->about_ball())
        merged.rows_ = std::make_shared<const RowNorms>(
            rows_->move_to(*s.anchor, s.penalty, s.fit_intercept, *other.rows_));
    return merged;
}

AnchoredStatistics AnchoredStatistics::drop(const std::vector<Index>& dropped) const {
    if (!quadratic())
        throw std::invalid_argument("coordinates drop only where the Hessian does not depend on theta");
    const Anchor& H = *state_.anchor;
    const std::vector<Index> kept = complement(H.size(), dropped);
    Vector gone = Vector::Zero(H.size());  // theta_K
    gone(dropped) = H.theta()(dropped);
    const Vector change = H.multiply(gone);
    AnchoredStatistics smaller(state_);
    State& s = smaller.state_;
    s.tallies.value += 0.5 * gone.dot(change) - gone.dot(state_.gradient);
    s.tallies.value_rounding += power_of_two_above(moved_value_error(gone, change, s.tallies.value));
    s.gradient = (state_.gradient - change)(kept);
    // powers of two, because a dropped column may hold digits that stand nowhere else
    s.tallies.gradient_rounding +=
        power_of_two_above((hessian_error() + roundoff * H.frobenius()) * gone.norm());
    s.tallies.gradient_norm += power_of_two_above(s.gradient.norm());
    s.penalty = state_.penalty(kept);
    s.anchor = H.drop(dropped);
    if (s.anchor->edits() == 0) s.tallies.hessian_rounding += power_of_two_above(H.fold_rounding());
    return smaller;
}

}  // namespace expunge
