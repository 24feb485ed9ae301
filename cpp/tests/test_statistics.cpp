// Anchored statistics (E8-E10): sums over the current rows, the step from them, and its bound.
#include "expunge/statistics.hpp"

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>
#include <numeric>

#include "expunge/errors.hpp"
#include "expunge/newton.hpp"
#include "problems.hpp"

using namespace expunge;
using namespace expunge::testing;

namespace {

Problem subset(const Problem& problem, const std::vector<Index>& rows) {
    Problem part = problem;
    part.X = problem.X(rows, Eigen::all);
    part.y = problem.y(rows);
    part.s = problem.s(rows);
    return part;
}

Problem stacked(const std::vector<Problem>& parts) {
    Problem whole = parts[0];
    for (auto part = parts.begin() + 1; part != parts.end(); ++part) {
        const Index n = whole.X.rows(), m = part->X.rows();
        whole.X.conservativeResize(n + m, Eigen::NoChange);
        whole.X.bottomRows(m) = part->X;
        for (const auto& [all, some] : {std::pair(&whole.y, &part->y), std::pair(&whole.s, &part->s)}) {
            all->conservativeResize(n + m);
            all->tail(m) = *some;
        }
    }
    return whole;
}

std::vector<Index> range(Index first, Index last) {
    std::vector<Index> all(static_cast<std::size_t>(last - first));
    std::iota(all.begin(), all.end(), first);
    return all;
}

double longest(const Problem& problem) { return problem.X.rowwise().norm().maxCoeff(); }

AnchoredStatistics statistics_of(const Objective& J, const Vector& theta, double largest_norm) {
    return {J, std::make_shared<const Anchor>(J, theta), J.evaluate(theta), J.rounding_floor(theta),
            largest_norm};
}

AnchoredStatistics statistics_at(const Problem& problem, const Vector& theta) {
    return statistics_of(problem.objective(), theta, longest(problem));
}

Vector minimiser(const Problem& problem) {
    return minimize(problem.objective(), Vector::Zero(problem.penalty.size()), 1e-10, 200).theta;
}

// |grad J(theta)| by `exact`, in long double.
double exact_residual(const Problem& problem, const Vector& theta) {
    return static_cast<double>(exact(problem, theta).gradient.norm());
}

AnchoredStatistics subtract(const AnchoredStatistics& statistics, const Problem& rows) {
    const Objective J = rows.objective();
    return statistics.edit(&J, nullptr);
}

template <class Visit>
void for_each_kind(Visit&& visit) {
    for (const Loss& loss : {Loss(Squared{}), Loss(Logistic{})})
        for (const bool fit_intercept : {false, true})
            for (const char* shape :
                 {"more rows than columns", "weights", "mostly zeros", "separable", "badly scaled"}) {
                const Problem problem = make_problem(shape, 150, 12, loss, fit_intercept);
                about = problem.name;
                visit(problem);
            }
}

// ---- Edits of every kind ----

// A row as it was and as it is, one of them without rows where it joins or leaves.
struct Edit {
    Index row;  // of the problem, or `joins`
    Problem before, after;
};
constexpr Index joins = -1;

// RowsView that leave, rows that join, corrected labels, corrected values, in turn.
std::vector<Edit> mixed_edits(const Problem& problem, Index count) {
    Random random(71);
    std::vector<Edit> edits;
    for (Index k = 0; k < count; ++k) {
        const Problem row = subset(problem, {k}), none = subset(problem, {});
        Problem changed = row;
        if (k % 4 == 2) {
            changed.y(0) = problem.loss.index() == 0 ? random.normal() : 1.0 - row.y(0);
        } else {
            changed.X *= -0.5;
        }
        if (k % 4 == 0)
            edits.push_back({k, row, none});
        else if (k % 4 == 1)
            edits.push_back({joins, none, changed});
        else
            edits.push_back({k, row, changed});
    }
    return edits;
}

// The problem after them.
Problem edited(const Problem& problem, const std::vector<Edit>& edits) {
    std::vector<Index> untouched = range(0, problem.X.rows());
    for (const Edit& edit : edits)
        if (edit.row != joins) untouched.erase(std::find(untouched.begin(), untouched.end(), edit.row));
    std::vector<Problem> parts = {subset(problem, untouched)};
    for (const Edit& edit : edits) parts.push_back(edit.after);
    return stacked(parts);
}

// All of `edits` as one; labels alone share their rows (E6).
AnchoredStatistics granted(const AnchoredStatistics& statistics, const std::vector<Edit>& edits) {
    std::vector<Problem> was, now;
    for (const Edit& edit : edits) {
        was.push_back(edit.before);
        now.push_back(edit.after);
    }
    const Problem before = stacked(was), after = stacked(now);
    const bool labels_alone = before.X.rows() == after.X.rows() && before.X == after.X;
    const Objective J_before = before.objective(),
                    J_after = after.on(rows_of(labels_alone ? before.X : after.X));
    return statistics.edit(before.X.rows() > 0 ? &J_before : nullptr,
                           after.X.rows() > 0 ? &J_after : nullptr);
}

// e_H
double hessian_error(const AnchoredStatistics& statistics) {
    const Anchor& H = *statistics.state().anchor;
    return statistics.state().tallies.hessian_rounding +
           static_cast<double>(H.size() + H.edits() + 2) * roundoff * H.frobenius();
}

// g_a, H_a and J(theta_a) of these rows, to the rounding that the statistics admit; J is rounded to the size
// that it had with the rows `between` as well.
void check_sums(const AnchoredStatistics& statistics, const Problem& problem, const Problem& between) {
    const auto& s = statistics.state();
    const Exact expected = exact(problem, s.anchor->theta());
    const auto scale = std::max(expected.value_scale, exact(between, s.anchor->theta()).value_scale);
    CHECK_AT_MOST(distance(s.gradient, expected.gradient), statistics.gradient_error());
    CHECK_AT_MOST(distance(symmetric(s.anchor->hessian()), expected.hessian), hessian_error(statistics));
    CHECK_AT_MOST(std::abs(s.tallies.value - static_cast<double>(expected.value)),
                  1e-12 * static_cast<double>(scale));
    CHECK(s.tallies.rows == static_cast<double>((problem.s.array() > 0.0).count()));
    CHECK_AT_MOST(std::abs(s.tallies.weight - problem.s.sum()), 1e-12 * problem.s.sum());
    CHECK_AT_MOST(longest(problem), s.tallies.largest_norm);
}

// How far theta is from `expected`, in units of what the order and the batches of edits may change in it:
// 1e-14 (1 + cond |H_0| / |H|) of theta_a or theta, H_0 and H before and after them (oracle 4), in
// coordinates that make H's diagonal 1: neither sums nor factors notice how columns are scaled.
double order_error(const AnchoredStatistics& first, const AnchoredStatistics& last, const Vector& expected) {
    const Matrix H_0 = symmetric(first.state().anchor->hessian()),
                 H = symmetric(last.state().anchor->hessian());
    const Vector scale = H.diagonal().cwiseSqrt();
    const auto eigenvalues = [&](const Matrix& M) -> Vector {
        const Vector inverse = scale.cwiseInverse();
        return Eigen::SelfAdjointEigenSolver<Matrix>(inverse.asDiagonal() * M * inverse.asDiagonal())
            .eigenvalues();
    };
    const Vector theta = last.step().theta;
    const double size = std::max(scale.cwiseProduct(first.state().anchor->theta()).norm(),
                                 scale.cwiseProduct(expected).norm());
    return scale.cwiseProduct(theta - expected).norm() /
           (1e-14 * (1.0 + eigenvalues(H_0).maxCoeff() / eigenvalues(H).minCoeff()) * size);
}

}  // namespace

TEST("whatever the order and the batches of edits, statistics and step are those of the rows") {  // E9
    for_each_kind([](const Problem& problem) {
        const Vector theta = minimiser(problem);
        const std::vector<Edit> edits = mixed_edits(problem, 40);
        const Problem left = edited(problem, edits);
        const AnchoredStatistics all = statistics_at(problem, theta), expected = statistics_at(left, theta);
        const Vector step = expected.step().theta;
        for (const unsigned seed : {1u, 2u, 3u, 4u, 7u}) {
            about = problem.name + ", seed " + std::to_string(seed);
            const Vector order_key = Random(seed).vector(40);
            std::vector<Index> order = range(0, 40);
            std::sort(order.begin(), order.end(),
                      [&](Index i, Index j) { return order_key(i) < order_key(j); });
            AnchoredStatistics statistics = all;
            for (std::size_t k = 0; k < 40;) {
                std::vector<Edit> batch;
                for (; batch.size() < seed * seed && k < 40; ++k)
                    batch.push_back(edits[static_cast<std::size_t>(order[k])]);
                statistics = granted(statistics, batch);
                if (seed % 2) statistics.step();  // makes the solution that a row's edit then moves
            }
            check_sums(statistics, left, problem);
            CHECK(statistics.state().tallies.edits == 60.0);  // rows: 10 left, 10 joined, 20 did both
            CHECK_AT_MOST(order_error(all, statistics, step), 1.0);
            CHECK_AT_MOST(exact_residual(left, statistics.step().theta), statistics.step().bound);
            for (const Edit& edit : edits)
                statistics = granted(statistics, {{edit.row, edit.after, edit.before}});
            check_sums(statistics, problem, left);
            CHECK_AT_MOST((statistics.step().theta - all.step().theta).norm(), 1e-11 * (1.0 + step.norm()));
        }
    });
}

TEST("every layout of the rows gives the same statistics") {
    for (const Loss& loss : {Loss(Squared{}), Loss(Logistic{})})
        for (const bool fit_intercept : {false, true}) {
            const Problem problem = make_problem("mostly zeros", 70, 12, loss, fit_intercept);
            const std::vector<Edit> edits = mixed_edits(problem, 12);
            const Problem left = edited(problem, edits);
            const Vector theta = 0.5 * problem.theta;
            std::vector<Problem> was, now;
            for (const Edit& edit : edits) {
                was.push_back(edit.before);
                now.push_back(edit.after);
            }
            const Problem before = stacked(was), after = stacked(now);
            const std::vector<Stored> all = layouts(problem.X), gone = layouts(before.X),
                                      come = layouts(after.X);
            const AnchoredStatistics first = statistics_at(problem, theta);
            const Vector step = statistics_at(left, theta).step().theta;
            for (std::size_t i = 0; i < all.size(); ++i) {
                about = problem.name + ", " + all[i].name;
                const Objective J_before = before.on(gone[i].rows), J_after = after.on(come[i].rows);
                const AnchoredStatistics statistics =
                    statistics_of(problem.on(all[i].rows), theta, longest(problem)).edit(&J_before, &J_after);
                check_sums(statistics, left, problem);
                CHECK_AT_MOST(order_error(first, statistics, step), 1.0);
                CHECK_AT_MOST(exact_residual(left, statistics.step().theta), statistics.step().bound);
            }
        }
}

TEST("statistics of shards add up to those of the whole") {
    for_each_kind([](const Problem& problem) {
        const Vector theta = minimiser(problem);
        const AnchoredStatistics whole = statistics_at(problem, theta);
        AnchoredStatistics merged = statistics_at(subset(problem, range(0, 30)), theta);
        for (const auto& [first, last] : {std::pair<Index, Index>{30, 100}, {100, 150}})
            merged = merged.merge(statistics_at(subset(problem, range(first, last)), theta));
        check_sums(merged, problem, problem);
        CHECK_AT_MOST(order_error(whole, merged, whole.step().theta), 1.0);
        CHECK_AT_MOST(exact_residual(problem, merged.step().theta), merged.step().bound);
        const AnchoredStatistics elsewhere = statistics_at(problem, 2.0 * theta);
        CHECK(thrown<std::invalid_argument>([&] { whole.merge(elsewhere); }).find("different anchors") !=
              std::string::npos);
        Problem other = problem;
        other.penalty *= 2.0;
        CHECK(thrown<std::invalid_argument>([&] {
                  whole.merge(statistics_at(other, theta));
              }).find("different objectives") != std::string::npos);
    });
}

TEST("a bound is never below the residual, and the step of a squared loss has none but rounding") {
    for_each_kind([](const Problem& problem) {
        Problem current = problem;
        const Vector theta = minimiser(problem);
        AnchoredStatistics statistics = statistics_at(problem, theta);
        const bool squared = std::holds_alternative<Squared>(problem.loss);
        for (Index k = 0; k < 120; ++k) {
            about = problem.name + ", edit " + std::to_string(k);
            const Index row = (37 * k) % 150;
            Problem before = subset(current, {row}), after = before;
            if (k % 3 == 0)
                after.y(0) = squared ? -0.5 * after.y(0) : 1.0 - after.y(0);
            else if (k % 3 == 1)
                after.X *= 0.25 + 0.01 * static_cast<double>(k);
            else
                after.s(0) = k % 2 ? 0.0 : 2.0;
            const Objective was = before.objective(), now = after.objective();
            statistics = statistics.edit(&was, &now);
            current.X.row(row) = after.X.row(0);
            current.y(row) = after.y(0);
            current.s(row) = after.s(0);
            const AnchoredStatistics::Step step = statistics.step();
            const Exact at = exact(current, step.theta);
            CHECK_AT_MOST(at.gradient.norm(), step.bound);
            if (squared) CHECK_AT_MOST(step.bound, 1e-12 * at.hessian_scale * step.theta.norm());
        }
    });
}

TEST("coefficients are no further from the minimiser than sums say") {
    int bounded = 0;
    for_each_kind([&](const Problem& problem) {
        if (!problem.has_minimiser()) return;
        const Problem gone = subset(problem, {0, 1}), left = subset(problem, range(2, problem.X.rows()));
        if (!left.has_minimiser()) return;
        const Index d = problem.X.cols();
        const double lambda = problem.penalty.head(d).minCoeff(), norm = longest(problem);
        const Vector theta = minimiser(problem), best = minimiser(left);
        const AnchoredStatistics statistics = subtract(statistics_of(problem.objective(), theta, norm), gone);
        const Objective J = left.objective();
        const double rounded = 1e-9 * (1.0 + best.norm()) * std::max(1.0, lambda);
        const auto check = [&](const Vector& here, double bound) {
            CHECK_AT_MOST(lambda * (here - best).head(d).norm(), bound + rounded);
            bounded += std::isfinite(bound);
        };
        const Vector step = statistics.step().theta, between = 0.5 * (theta + step);
        check(step, statistics.coefficient_distance());
        for (const Vector& here : {theta, between, step})
            check(here, statistics.coefficient_distance(here, J.evaluate(here), J.rounding_floor(here)));
    });
    CHECK_AT_MOST(40, bounded);
}

// The bound of E10 over the residual, for equal rows at eta, `ones` of 1000 labelled 1. Where they come
// `by_edit` they replace shorter ones.
double sharpness(double eta, Index ones, double weight, bool fit_intercept, bool by_edit) {
    about = "eta " + text_of(eta) + ", weight " + text_of(weight) + (fit_intercept ? ", intercept" : "") +
            (by_edit ? ", by edit" : "");
    Problem problem = make_problem("more rows than columns", 1000, 1, Logistic{}, fit_intercept);
    problem.X.setConstant(0.5);
    problem.y.setZero();
    problem.y.head(ones).setOnes();
    problem.s.setConstant(weight);
    problem.penalty(0) = 1e-6;
    Vector theta = Vector::Zero(1 + fit_intercept);
    theta(fit_intercept) = fit_intercept ? eta : eta / 0.5;
    AnchoredStatistics statistics = statistics_at(problem, theta);
    if (by_edit) {
        Problem shorter = problem;
        shorter.X.setConstant(0.125);
        const Objective before = shorter.objective(), after = problem.objective();
        statistics = statistics_at(shorter, theta).edit(&before, &after);
    }
    const auto step = statistics.step();
    return step.bound / exact_residual(problem, step.theta);
}

TEST("equal rows pin the constant of the bound from both sides") {
    // With v = |sigma(eta + a) - sigma(eta) - d2 a| the residual is R sum s v, the bound R sum s d2 a^2
    // psi(rho) / rho^2. Their ratio is d2 / |d3| where a is small.
    for (const double weight : {0.25, 1.0, 3.0})
        for (const bool fit_intercept : {false, true})
            for (const bool by_edit : {false, true}) {
                // |d3| is largest, 1 / (6 sqrt 3), d2 is 1/6, sigma 0.7887: a is 0.06.
                const double largest =
                    sharpness(std::log(2.0 + std::sqrt(3.0)), 799, weight, fit_intercept, by_edit);
                CHECK_AT_MOST(std::sqrt(3.0), largest);
                CHECK_AT_MOST(largest, 1.05 * std::sqrt(3.0));
                // |d3| is d2 but for 1 %, so v is d2 psi(a) at any a, here 1.02; rho is a, or 1.12 a.
                const double sharpest = sharpness(-6.0, 5, weight, fit_intercept, by_edit);
                CHECK_AT_MOST(1.0, sharpest);
                CHECK_AT_MOST(sharpest, fit_intercept ? 1.1 : 1.05);
            }
}

TEST("an edit that takes more than there is throws, and the statistics stay in use") {
    const Problem problem = make_problem("weights", 40, 5, Squared{}, false);
    const Vector theta = minimiser(problem);
    const AnchoredStatistics statistics = statistics_at(problem, theta);
    const Vector step = statistics.step().theta;
    Problem twice = problem;
    twice.X.resize(80, 5);
    twice.X << problem.X, problem.X;
    twice.y.resize(80);
    twice.y << problem.y, problem.y;
    twice.s.resize(80);
    twice.s << problem.s, problem.s;
    CHECK(thrown<std::invalid_argument>([&] { subtract(statistics, twice); }).starts_with("more rows"));
    Problem heavy = problem;
    heavy.s *= 2.0;
    CHECK(thrown<std::invalid_argument>([&] { subtract(statistics, heavy); }).starts_with("more weight"));
    Problem never = subset(problem, {0});
    never.s(0) = 1.0;
    never.X *= 100.0;
    const AnchoredStatistics indefinite = subtract(statistics, never);
    CHECK(thrown<NotPositiveDefinite>([&] { indefinite.step(); }).starts_with("Hessian is not"));
    CHECK(statistics.step().theta == step);
}

TEST("coordinates dropped from statistics of a squared loss leave those of the other columns") {
    for (const bool fit_intercept : {false, true}) {
        const Problem problem = make_problem("more rows than columns", 60, 9, Squared{}, fit_intercept);
        const Vector theta = minimiser(problem);
        const std::vector<Index> dropped = {1, 4, 5};
        std::vector<Index> kept;
        for (Index i = 0; i < problem.penalty.size(); ++i)
            if (std::find(dropped.begin(), dropped.end(), i) == dropped.end()) kept.push_back(i);
        const AnchoredStatistics narrow =
            subtract(statistics_at(problem, theta), subset(problem, {0, 7})).drop(dropped);
        std::vector<Index> rows = range(1, 60);
        rows.erase(std::find(rows.begin(), rows.end(), 7));
        Problem left = subset(problem, rows);
        left.X = left.X(Eigen::all, std::vector<Index>{0, 2, 3, 6, 7, 8}).eval();
        left.penalty = problem.penalty(kept).eval();
        const auto step = narrow.step();
        CHECK_AT_MOST((step.theta - minimiser(left)).norm(), 1e-9);
        CHECK_AT_MOST(exact_residual(left, step.theta), step.bound);
        const AnchoredStatistics expected = statistics_at(left, theta(kept));
        CHECK_AT_MOST(std::abs(narrow.state().tallies.value - expected.state().tallies.value),
                      1e-10 * expected.state().tallies.value);
    }
    const Problem logistic = make_problem("more rows than columns", 60, 9, Logistic{}, false);
    CHECK(thrown<std::invalid_argument>([&] {
              statistics_at(logistic, logistic.theta).drop({0});
          }).starts_with("coordinates drop only"));
}

TEST("another penalty gives the statistics that it would have had from the start") {  // E35
    for (const Loss& loss : {Loss(Squared{}), Loss(Logistic{})}) {
        const Problem problem = make_problem("more rows than columns", 60, 5, loss, true);
        const Vector theta = minimiser(problem);
        Problem heavier = problem;
        heavier.penalty *= 1.75;
        const AnchoredStatistics moved =
            subtract(statistics_at(problem, theta), subset(problem, {0, 7})).penalise(heavier.penalty);
        const AnchoredStatistics expected = subtract(statistics_at(heavier, theta), subset(heavier, {0, 7}));
        CHECK_AT_MOST((moved.state().gradient - expected.state().gradient).norm(), 1e-12);
        CHECK_AT_MOST(std::abs(moved.state().tallies.value - expected.state().tallies.value), 1e-11);
        std::vector<Index> rows = range(1, 60);
        rows.erase(std::find(rows.begin(), rows.end(), 7));
        const auto step = moved.step(), other = expected.step();
        CHECK_AT_MOST((step.theta - other.theta).norm(), 1e-11);
        CHECK_AT_MOST(exact_residual(subset(heavier, rows), step.theta), step.bound);
        CHECK_AT_MOST(std::abs(step.bound - other.bound), 1e-9 + 1e-6 * other.bound);
        CHECK(thrown<std::invalid_argument>([&] { moved.penalise(Vector::Ones(3)); }).find("penalty") !=
              std::string::npos);
    }
}

TEST("rows without curvature in floating point come and go") {
    Problem problem = make_problem("more rows than columns", 50, 4, Logistic{}, false);
    const Vector& theta = problem.theta;
    problem.X.row(3) *= 1e5;
    problem.X.row(4) *= 730.0 / problem.X.row(4).dot(theta);
    problem.y.segment(3, 2).setZero();
    const Vector curvature = problem.objective().curvature(theta);
    CHECK(curvature(3) == 0.0 && curvature(4) > 0.0 && curvature(4) < 1e-300);
    AnchoredStatistics statistics = statistics_at(problem, theta);
    statistics.step();
    for (const Index row : {Index(3), Index(4)}) statistics = subtract(statistics, subset(problem, {row}));
    std::vector<Index> rows = range(0, 50);
    rows.erase(rows.begin() + 3, rows.begin() + 5);
    const Problem left = subset(problem, rows);
    const auto step = statistics.step();
    check_sums(statistics, left, problem);
    CHECK(step.theta.allFinite());
    CHECK_AT_MOST(exact_residual(left, step.theta), step.bound);
}

TEST("folded statistics are sums alone, and their bound counts what folding rounds") {
    for_each_kind([](const Problem& problem) {
        about = problem.name;
        AnchoredStatistics kept = statistics_at(problem, minimiser(problem)), folded = kept;
        kept.step();  // makes the factor, so that rows join it
        for (Index row = 0; row < 6; ++row) {
            const Problem gone = subset(problem, {row});
            const Objective was = gone.objective();
            kept = subtract(kept, gone);
            folded = folded.edit(&was, nullptr, true);
            CHECK(folded.state().anchor->edits() == 0);
            folded.step();
        }
        const Anchor& H = *kept.state().anchor;
        CHECK(H.edits() > 0);
        const AnchoredStatistics once = kept.fold();
        CHECK(once.state().anchor->edits() == 0);
        CHECK(once.state().tallies.hessian_rounding > kept.state().tallies.hessian_rounding);
        CHECK(once.fold().state().anchor == once.state().anchor);
        const Problem left = subset(problem, range(6, 150));
        for (const AnchoredStatistics& statistics : {once, folded}) {
            const auto step = statistics.step();
            CHECK_AT_MOST((step.theta - kept.step().theta).norm(), 1e-11 * (1.0 + step.theta.norm()));
            CHECK_AT_MOST(exact_residual(left, step.theta), step.bound);
        }
    });
}

TEST("folded statistics hold nothing of a coordinate that was dropped") {
    // So many coordinates that the factor is shared with the statistics before.
    const Problem problem = make_problem("more rows than columns", 400, 300, Squared{}, false);
    const AnchoredStatistics whole = statistics_at(problem, problem.theta);
    whole.step();
    const AnchoredStatistics smaller = whole.drop({7});
    CHECK(smaller.state().anchor->eliminated());
    const AnchoredStatistics folded = smaller.fold();
    CHECK(!folded.state().anchor->eliminated());
    CHECK_AT_MOST((folded.step().theta - smaller.step().theta).norm(), 1e-10 * folded.step().theta.norm());
}
