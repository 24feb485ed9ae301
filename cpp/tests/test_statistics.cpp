// Anchored statistics (E8-E10): sums over the current rows, the step from them, and its bound.
#include "expunge/statistics.hpp"

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

std::vector<Index> range(Index first, Index last) {
    std::vector<Index> all(static_cast<std::size_t>(last - first));
    std::iota(all.begin(), all.end(), first);
    return all;
}

double longest(const Problem& problem) { return problem.X.rowwise().norm().maxCoeff(); }

AnchoredStatistics statistics_at(const Problem& problem, const Vector& theta) {
    const Objective J = problem.objective();
    return {J, std::make_shared<const Anchor>(J, theta), J.evaluate(theta), J.rounding_floor(theta),
            longest(problem)};
}

Vector minimiser(const Problem& problem) {
    return minimize(problem.objective(), Vector::Zero(problem.penalty.size()), 1e-10, 200).theta;
}

// |grad J(theta)| by `exact`, in long double.
double exact_residual(const Problem& problem, const Vector& theta) {
    return static_cast<double>(exact(problem, theta).gradient.norm());
}

AnchoredStatistics add(const AnchoredStatistics& statistics, const Problem& rows) {
    const Objective J = rows.objective();
    return statistics.edit(nullptr, &J);
}

AnchoredStatistics subtract(const AnchoredStatistics& statistics, const Problem& rows) {
    const Objective J = rows.objective();
    return statistics.edit(&J, nullptr);
}

template <class Visit>
void for_each_kind(Visit&& visit) {
    for (const Loss& loss : {Loss(Squared{}), Loss(Logistic{})})
        for (const bool fit_intercept : {false, true})
            for (const char* shape : {"more rows than columns", "weights", "mostly zeros"})
                visit(make_problem(shape, 150, 12, loss, fit_intercept));
}

}  // namespace

TEST("whatever the order and the batches, statistics and step are those of the rows that are left") {
    for_each_kind([](const Problem& problem) {
        about = problem.name;
        const Vector theta = minimiser(problem);
        const Problem left = subset(problem, range(40, 150));
        const AnchoredStatistics all = statistics_at(problem, theta), expected = statistics_at(left, theta);
        const Vector step = expected.step().theta;
        for (const unsigned seed : {1u, 2u, 3u, 4u}) {
            const Vector order_key = Random(seed).vector(40);
            std::vector<Index> order = range(0, 40);
            std::sort(order.begin(), order.end(),
                      [&](Index i, Index j) { return order_key(i) < order_key(j); });
            AnchoredStatistics statistics = all;
            for (std::size_t k = 0; k < 40;) {
                const std::size_t m = std::min<std::size_t>(seed * seed, 40 - k);
                const std::vector<Index> rows(order.begin() + static_cast<long>(k),
                                              order.begin() + static_cast<long>(k + m));
                statistics = subtract(statistics, subset(problem, rows));
                if (seed % 2) statistics.step();  // makes the solution that a row's edit then moves
                k += m;
            }
            const auto& s = statistics.state();
            CHECK(s.edits == 40.0 && s.rows == expected.state().rows);
            CHECK_AT_MOST(std::abs(s.weight - expected.state().weight), 1e-12 * all.state().weight);
            CHECK_AT_MOST((s.gradient - expected.state().gradient).norm(),
                          statistics.gradient_error() + expected.gradient_error());
            CHECK_AT_MOST(std::abs(s.value - expected.state().value), 1e-12 * (1.0 + all.state().value));
            CHECK_AT_MOST((statistics.step().theta - step).norm(), 1e-11 * (1.0 + step.norm()));
            statistics = add(statistics, subset(problem, range(0, 40)));
            CHECK_AT_MOST((statistics.step().theta - all.step().theta).norm(), 1e-11 * (1.0 + step.norm()));
        }
    });
}

TEST("statistics of shards add up to those of the whole") {
    for_each_kind([](const Problem& problem) {
        about = problem.name;
        const Vector theta = minimiser(problem);
        const AnchoredStatistics whole = statistics_at(problem, theta);
        AnchoredStatistics merged = statistics_at(subset(problem, range(0, 30)), theta);
        for (const auto& [first, last] : {std::pair<Index, Index>{30, 100}, {100, 150}})
            merged = merged.merge(statistics_at(subset(problem, range(first, last)), theta));
        CHECK_AT_MOST((merged.state().gradient - whole.state().gradient).norm(),
                      merged.gradient_error() + whole.gradient_error());
        CHECK_AT_MOST(std::abs(merged.state().value - whole.state().value), 1e-12 * whole.state().value);
        CHECK(merged.state().rows == whole.state().rows);
        CHECK_AT_MOST((merged.step().theta - whole.step().theta).norm(), 1e-11);
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
            CHECK_AT_MOST(exact_residual(current, step.theta), step.bound);
            if (squared) CHECK_AT_MOST(step.bound, 1e-8);
        }
    });
}

TEST("the constant of the bound is reached by equal rows where the third derivative is largest") {
    // At eta = ln(2 + sqrt 3) |d3| is 1/(6 sqrt 3), d2 is 1/6: the remainder is |d3|/2 a^2, the bound d2/2
    // a^2.
    constexpr Index n = 1000;
    for (const double weight : {1.0, 3.0}) {
        Problem problem = make_problem("more rows than columns", n, 1, Logistic{}, false);
        const double eta = std::log(2.0 + std::sqrt(3.0));
        problem.X.setConstant(2.0);
        problem.s.setConstant(weight);
        const Vector theta = Vector::Constant(1, eta / 2.0);
        // sigma(eta) = y on average, but for a small step.
        const double sigma = 1.0 / (1.0 + std::exp(-eta));
        for (Index i = 0; i < n; ++i) problem.y(i) = i < std::lround(sigma * n) ? 1.0 : 0.0;
        problem.penalty.setConstant(1e-3);
        const AnchoredStatistics statistics = statistics_at(problem, theta);
        Problem flipped = subset(problem, range(0, 20)), after = flipped;
        after.y.setZero();
        const Objective was = flipped.objective(), now = after.objective();
        Problem current = problem;
        current.y.head(20).setZero();
        const auto step = statistics.edit(&was, &now).step();
        const double residual = exact_residual(current, step.theta);
        CHECK_AT_MOST(residual, step.bound);
        CHECK_AT_MOST(step.bound, 2.2 * residual);  // d2 / |d3| = sqrt 3, and more with the step's length
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
        CHECK_AT_MOST(std::abs(narrow.state().value - expected.state().value),
                      1e-10 * expected.state().value);
    }
    const Problem logistic = make_problem("more rows than columns", 60, 9, Logistic{}, false);
    CHECK(thrown<std::invalid_argument>([&] {
              statistics_at(logistic, logistic.theta).drop({0});
          }).starts_with("coordinates drop only"));
}

TEST("rows without curvature in floating point come and go") {
    Problem problem = make_problem("more rows than columns", 50, 4, Logistic{}, false);
    problem.X.row(3) *= 1e5;
    const Vector theta = minimiser(problem);
    AnchoredStatistics statistics = statistics_at(problem, theta);
    statistics.step();
    for (const Index row : {Index(3), Index(4)}) statistics = subtract(statistics, subset(problem, {row}));
    std::vector<Index> rows = range(0, 50);
    rows.erase(rows.begin() + 3, rows.begin() + 5);
    const auto step = statistics.step();
    CHECK(step.theta.allFinite());
    CHECK_AT_MOST(exact_residual(subset(problem, rows), step.theta), step.bound);
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
        const AnchoredStatistics once = kept.folded();
        CHECK(once.state().anchor->edits() == 0);
        CHECK(once.state().hessian_rounding > kept.state().hessian_rounding);
        CHECK(once.folded().state().anchor == once.state().anchor);
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
    const AnchoredStatistics folded = smaller.folded();
    CHECK(!folded.state().anchor->eliminated());
    CHECK_AT_MOST((folded.step().theta - smaller.step().theta).norm(), 1e-10 * folded.step().theta.norm());
}
