// minimize (E11): the residual asked for, or the rounding floor, from any start and with any old factor, and
// the linear systems on the way.
#include "expunge/newton.hpp"

#include <stdexcept>

#include "expunge/errors.hpp"
#include "problems.hpp"

using namespace expunge;
using namespace expunge::testing;

namespace {

constexpr double tolerance = 1e-8;
constexpr int max_iter = 200;

// Converged, and honest: the residual that it reports is that of theta in long double.
void check_minimum(const Problem& problem, const Objective& J, const Minimum& minimum,
                   double asked = tolerance) {
    CHECK_AT_MOST(minimum.at.residual(), std::max(asked, minimum.floor));
    CHECK_AT_MOST(std::abs(exact(problem, minimum.theta).gradient.norm() - minimum.at.residual()),
                  minimum.floor);
    const double floor = J.rounding_floor(minimum.theta);  // or a bound that is as good
    CHECK(minimum.floor == floor || (floor <= minimum.floor && minimum.floor <= asked));
    CHECK(minimum.iterations < max_iter);
    CHECK(minimum.passes >= minimum.iterations);  // a start that is known saves one
}

void check_minimum(const Problem& problem, const Minimum& minimum, double asked = tolerance) {
    check_minimum(problem, problem.objective(), minimum, asked);
}

// The distance of two minimisers, in multiples of what their residuals allow (E9).
double parted(const Problem& problem, const Minimum& a, const Minimum& b) {
    return (a.theta - b.theta).norm() * problem.penalty.head(problem.X.cols()).minCoeff() /
           (a.at.residual() + b.at.residual() + a.floor + b.floor);
}

template <class Visit>
void for_each_minimiser(Visit&& visit) {
    for_each_problem([&](const Problem& problem) {
        if (problem.has_minimiser()) visit(problem);
    });
}

Vector origin(const Problem& problem) { return Vector::Zero(problem.penalty.size()); }

}  // namespace

TEST("minimize reaches the tolerance or the rounding floor, from nothing, in few passes") {
    for_each_minimiser([](const Problem& problem) {
        const Minimum minimum = minimize(problem.objective(), origin(problem), tolerance, max_iter);
        check_minimum(problem, minimum);
        CHECK(minimum.iterations > 0 && minimum.anchor != nullptr);
        CHECK_AT_MOST(minimum.passes, 120);
    });
}

TEST("squared loss takes one Newton step") {
    for_each_minimiser([](const Problem& problem) {
        if (std::holds_alternative<Logistic>(problem.loss)) return;
        const Minimum minimum = minimize(problem.objective(), problem.theta, tolerance, max_iter);
        check_minimum(problem, minimum);
        CHECK_AT_MOST(minimum.iterations, 2);
    });
}

TEST("minimize reaches the same minimiser from far away") {
    for_each_minimiser([](const Problem& problem) {
        const Objective J = problem.objective();
        const Minimum near = minimize(J, origin(problem), tolerance, max_iter);
        const Minimum far = minimize(J, 20.0 * problem.theta, tolerance, max_iter);
        check_minimum(problem, far);
        if (!problem.fit_intercept) CHECK_AT_MOST(parted(problem, near, far), 1.0);
    });
}

TEST("a factor of other rows, far away, still leads to the minimiser") {
    for_each_minimiser([](const Problem& problem) {
        Problem other = problem;
        other.X = Random(41).matrix(problem.X.rows(), problem.X.cols());
        const auto stale = std::make_shared<const Anchor>(other.objective(), 0.1 * problem.theta);
        const Minimum minimum = minimize(problem.objective(), origin(problem), tolerance, max_iter, stale);
        check_minimum(problem, minimum);
        CHECK(minimum.anchor != nullptr);
    });
}

TEST("after a small edit the old factor saves passes") {
    const Problem problem = make_problem("several panels", 1000, 200, Logistic{}, false);
    const Minimum fitted = minimize(problem.objective(), origin(problem), tolerance, max_iter);
    const auto old = std::make_shared<const Anchor>(problem.objective(), fitted.theta);
    Problem edited = problem;
    edited.s.head(3).setZero();
    const Minimum warm = minimize(edited.objective(), fitted.theta, tolerance, max_iter, old);
    const Minimum cold = minimize(edited.objective(), origin(problem), tolerance, max_iter);
    check_minimum(edited, warm);
    CHECK_AT_MOST(warm.passes, cold.passes - 1);
    CHECK_AT_MOST((warm.theta - cold.theta).norm(), 2.0 * tolerance / 0.75);
}

TEST("a start that is known saves its pass, and is measured before it is believed") {
    const Problem problem = make_problem("more rows than columns", 60, 5, Logistic{}, true);
    const Objective J = problem.objective();
    const Minimum plain = minimize(J, problem.theta, tolerance, max_iter);
    Evaluation start = J.evaluate(problem.theta);
    start.curvature.resize(0);
    const Minimum started = minimize(J, problem.theta, tolerance, max_iter, nullptr, start);
    check_minimum(problem, started);
    CHECK_AT_MOST((started.theta - plain.theta).norm(), 1e-7);

    start.gradient.setZero();  // claims to be the minimiser
    const Minimum doubted = minimize(J, problem.theta, tolerance, max_iter, nullptr, start);
    check_minimum(problem, doubted);
}

TEST("at the minimiser nothing is done but to measure") {
    const Problem problem = make_problem("more rows than columns", 60, 5, Logistic{}, false);
    const Objective J = problem.objective();
    const Vector theta = minimize(J, origin(problem), 1e-12, max_iter).theta;
    const Minimum again = minimize(J, theta, tolerance, max_iter);
    CHECK(again.theta == theta && again.iterations == 0 && again.anchor == nullptr);
    CHECK(again.passes == 1);  // which finds the norm, and that bounds the floor
}

TEST("a tolerance below the rounding floor ends at the floor, and soon") {
    for_each_minimiser([](const Problem& problem) {
        const Minimum minimum = minimize(problem.objective(), origin(problem), 0.0, max_iter);
        check_minimum(problem, minimum, 0.0);
        CHECK_AT_MOST(minimum.passes, 300);
    });
}

TEST("a known largest norm tells the floor without a pass") {
    const Problem problem = make_problem("more rows than columns", 60, 5, Logistic{}, false);
    const RowsView X = rows_of(problem.X);
    const Objective J({{X, problem.y.data(), problem.s.data()}}, problem.loss, problem.penalty, false,
                      X.largest_norm());
    const Minimum minimum = minimize(J, origin(problem), 1e-12, max_iter);
    CHECK_AT_MOST(minimum.at.residual(), 1e-12);
    CHECK(minimum.floor == minimum.at.floor);
    CHECK_AT_MOST(J.rounding_floor(minimum.theta), minimum.floor);
    const Minimum again = minimize(J, minimum.theta, tolerance, max_iter);
    CHECK(again.iterations == 0 && again.passes == 1);
    // A bound above the tolerance says nothing: the floor itself is asked for.
    const Minimum exactly = minimize(J, minimum.theta, 0.5 * minimum.at.floor, max_iter);
    CHECK(exactly.floor == J.rounding_floor(exactly.theta));
}

TEST("a largest norm that is not known is found in the first pass") {
    for_each_minimiser([](const Problem& problem) {
        const RowsView X = rows_of(problem.X);
        const double norm = X.largest_norm();
        const Minimum found = minimize(problem.on(X), origin(problem), tolerance, max_iter);
        CHECK_AT_MOST(std::abs(found.largest_norm - norm), 1e-14 * norm);
        const Objective J({{X, problem.y.data(), problem.s.data()}}, problem.loss, problem.penalty,
                          problem.fit_intercept, norm);
        const Minimum known = minimize(J, origin(problem), tolerance, max_iter);
        CHECK(known.largest_norm == norm && known.iterations == found.iterations);
    });
}

TEST("anchors of any block lead to the same minimiser, on dense rows and on sparse") {
    for_each_minimiser([](const Problem& problem) {
        const Objective dense = problem.objective();
        const Minimum complete = minimize(dense, origin(problem), tolerance, max_iter);
        const Stored csr = masked_csr(problem.X);
        const Objective sparse = problem.on(csr.rows);
        const Index p = problem.penalty.size();
        for (const Objective* J : {&dense, &sparse}) {
            for (const Index block : {Index(0), Index(1), p / 2, p}) {
                about = problem.name + (J == &dense ? ", dense" : ", sparse") + ", block of " +
                        std::to_string(block);
                const Minimum minimum =
                    minimize(*J, origin(problem), tolerance, max_iter, nullptr, std::nullopt, [] {}, block);
                check_minimum(problem, *J, minimum);
                CHECK(minimum.anchor ? minimum.anchor->complete() == (block >= p)
                                     : J == &sparse && block >= p);  // a factor is dear there
                if (!problem.fit_intercept) CHECK_AT_MOST(parted(problem, complete, minimum), 1.0);
                const Minimum floor =
                    minimize(*J, origin(problem), 0.0, max_iter, nullptr, std::nullopt, [] {}, block);
                check_minimum(problem, *J, floor, 0.0);
                CHECK_AT_MOST(minimum.passes, 200);
                CHECK_AT_MOST(floor.passes, 300);
            }
        }
    });
}

TEST("an old anchor of any block leads to the minimiser with anchors of any other") {
    const Problem problem = make_problem("mostly zeros", 300, 11, Logistic{}, true);
    Problem other = problem;
    other.X = Random(42).matrix(300, 11);
    const Objective J = problem.objective(), J_other = other.objective();
    Evaluation known = J.evaluate(problem.theta);
    known.curvature.resize(0);
    for (const Index old : {Index(0), Index(5), all_coordinates}) {
        const auto anchor = std::make_shared<const Anchor>(J_other, 0.1 * problem.theta, old);
        for (const Index block : {Index(0), Index(5), all_coordinates}) {
            about = std::to_string(old) + " to " + std::to_string(block);
            for (const std::optional<Evaluation>& start : {std::optional<Evaluation>(), {known}})
                check_minimum(problem,
                              minimize(J, problem.theta, tolerance, max_iter, anchor, start, [] {}, block));
        }
    }
}

TEST("steps with an old factor learn from each other") {
    Problem old = make_problem("several panels", 1000, 37, Squared{}, false), problem = old;
    const auto anchor = std::make_shared<const Anchor>(old.objective(), origin(problem));
    const Vector row = problem.X.row(0);
    problem.s(0) += 0.45 / row.dot(anchor->solve(row));  // a fixed factor leaves 0.45 of it every time
    const Objective J = problem.objective();
    Vector theta = origin(problem);
    int steps = 0;
    for (Vector g = J.evaluate(theta).gradient; g.norm() > tolerance; g = J.evaluate(theta).gradient) {
        theta -= anchor->solve(g);
        ++steps;
    }
    Evaluation known = J.evaluate(origin(problem));
    known.curvature.resize(0);
    const Minimum minimum = minimize(J, origin(problem), tolerance, max_iter, anchor, known);
    check_minimum(problem, minimum);
    CHECK(minimum.anchor == anchor);
    CHECK_AT_MOST(20, steps);
    CHECK_AT_MOST(minimum.iterations, 10);
}

TEST("well-conditioned rows need no factor, others get theirs") {
    constexpr Index d = 150;
    for (const Index n : {1500, 12000}) {  // by themselves, and by way of a sample
        about = std::to_string(n);
        Problem problem = make_problem("normal", n, d, Logistic{}, true);
        problem.X *= 0.125;
        const Minimum easy = minimize(problem.objective(), origin(problem), 1e-3, max_iter);
        CHECK_AT_MOST(easy.at.residual(), 1e-3);
        CHECK(easy.anchor == nullptr);
        CHECK_AT_MOST(easy.passes, 12);
        for (Index j = 0; j < d; ++j) problem.X.col(j) *= std::ldexp(1.0, static_cast<int>(j % 12) - 3);
        problem.X.rightCols(d / 2) = 0.03125 * problem.X.rightCols(d / 2) + problem.X.leftCols(d / 2).eval();
        const Minimum hard = minimize(problem.objective(), origin(problem), tolerance, max_iter);
        check_minimum(problem, hard);
        CHECK(hard.anchor != nullptr && hard.anchor->complete());
        CHECK_AT_MOST(hard.passes, 80);
    }
    about.clear();
}

TEST("with fewer rows than even columns, no factor is needed") {
    for (const bool fit_intercept : {false, true}) {
        const Problem problem = make_problem("wide", 100, 800, Logistic{}, fit_intercept);
        about = problem.name;
        const Minimum minimum = minimize(problem.objective(), origin(problem), 1e-4, max_iter);
        check_minimum(problem, problem.objective(), minimum, 1e-4);
        CHECK(minimum.anchor == nullptr);
        CHECK_AT_MOST(minimum.passes, 30);
    }
    about.clear();
}

TEST("max_iter is obeyed and what was reached is returned") {
    const Problem problem = make_problem("margins of 800", 24, 4, Logistic{}, false);
    const Objective J = problem.objective();
    for (const int limit : {0, 1, 2}) {
        const Minimum minimum = minimize(J, origin(problem), 1e-12, limit);
        CHECK(minimum.iterations == limit);
        CHECK(minimum.at.gradient == J.evaluate(minimum.theta).gradient);
        CHECK_AT_MOST(minimum.at.value, J.evaluate(origin(problem)).value);
    }
}

TEST("an exception of the checkpoint passes through and holds nothing back") {
    struct Stop : std::runtime_error {
        using std::runtime_error::runtime_error;
    };
    const Problem problem = make_problem("more rows than columns", 60, 5, Logistic{}, false);
    const Objective J = problem.objective();
    const auto anchor = std::make_shared<const Anchor>(J, origin(problem));
    for (const int calls : {1, 2}) {
        int called = 0;
        const auto stop = [&] {
            if (++called == calls) throw Stop("enough");
        };
        CHECK(thrown<Stop>([&] { minimize(J, problem.theta, 0.0, max_iter, anchor, std::nullopt, stop); }) ==
              "enough");
        CHECK(called == calls);
        CHECK(anchor.use_count() == 1);
    }
    check_minimum(problem, minimize(J, problem.theta, tolerance, max_iter, anchor));
}

TEST("the checkpoint is called once for each iteration") {
    const Problem problem = make_problem("more rows than columns", 60, 5, Logistic{}, true);
    int called = 0;
    const Minimum minimum = minimize(problem.objective(), origin(problem), tolerance, max_iter, nullptr,
                                     std::nullopt, [&] { ++called; });
    CHECK(called == minimum.iterations);
}

TEST("without a penalty, columns that repeat are refused, not regularised") {
    const RowMatrix X = RowMatrix::Ones(4, 2);
    const Vector y = Vector::Ones(4);
    const Objective J({{rows_of(X), y.data(), nullptr}}, Squared{}, Vector::Zero(2), false);
    CHECK(thrown<NotPositiveDefinite>([&] { minimize(J, Vector::Zero(2), tolerance, max_iter); }) ==
          not_positive_definite(1));
}

// ---- solve ----

TEST("solve reaches the tolerance with an anchor of any block, on dense rows and on sparse") {
    for_each_problem([](const Problem& problem) {
        if (problem.name.starts_with("margins") || problem.name.starts_with("separable")) return;
        const Objective dense = problem.objective();
        const Stored csr = masked_csr(problem.X);
        const Objective sparse = problem.on(csr.rows);
        const Vector theta = 0.1 * problem.theta, b = Random(71).vector(theta.size());
        const Matrix H = exact(problem, theta).hessian.cast<double>();
        for (const Objective* J : {&dense, &sparse}) {
            const Vector curvature = J->curvature(theta);
            for (const Index block : {Index(0), Index(2), all_coordinates}) {
                const Anchor anchor(*J, theta, block);
                for (const double asked : {0.1, 1e-6, 1e-10}) {
                    const double bound = asked * b.norm();
                    const Solution solution = solve(*J, curvature, b, anchor, bound, 1000);
                    CHECK(solution.converged);
                    CHECK_AT_MOST((H * solution.x - b).norm(), bound + 1e-13 * H.norm() * solution.x.norm());
                    CHECK(solution.products > 0);
                    if (anchor.complete()) CHECK_AT_MOST(solution.products, 2);
                }
            }
        }
    });
}

TEST("solve stops at the products allowed, says so, and what it has is a direction of ascent") {
    const Problem problem = make_problem("several panels", 1000, 37, Logistic{}, true);
    const Objective J = problem.objective();
    const Evaluation at = J.evaluate(problem.theta);
    const Anchor anchor(J, problem.theta, 3);
    const Solution whole = solve(J, at.curvature, at.gradient, anchor, 1e-9 * at.residual(), 1000);
    CHECK(whole.converged && whole.products > 3);
    double ascent = 0.0;
    for (int allowed = 1; allowed <= whole.products; ++allowed) {
        const Solution part = solve(J, at.curvature, at.gradient, anchor, 1e-9 * at.residual(), allowed);
        CHECK(part.products == allowed);
        CHECK(part.converged == (allowed == whole.products));
        const double rounding = double(J.parameters()) * roundoff * part.x.norm() * at.residual();
        CHECK(part.x.dot(at.gradient) > ascent - rounding);
        ascent = part.x.dot(at.gradient);
    }
    CHECK(solve(J, at.curvature, at.gradient, anchor, 0.0, 5).products == 5);
}

TEST("solve does nothing where nothing is asked") {
    const Problem problem = make_problem("more rows than columns", 60, 5, Logistic{}, true);
    const Objective J = problem.objective();
    const Vector curvature = J.curvature(problem.theta), b = Random(72).vector(6);
    const Anchor anchor(J, problem.theta);
    for (const Vector& asked : {Vector(Vector::Zero(6)), b}) {
        const Solution nothing = solve(J, curvature, asked, anchor, asked.norm(), 10);
        CHECK(nothing.converged && nothing.products == 0 && nothing.x == Vector::Zero(6));
    }
    const Solution none = solve(J, curvature, b, anchor, 0.1 * b.norm(), 0);
    CHECK(!none.converged && none.products == 0);
}

TEST("solve gives up where the Hessian is not positive definite or not finite") {
    const Problem problem = make_problem("more rows than columns", 60, 5, Logistic{}, true);
    const Objective J = problem.objective();
    const Vector curvature = J.curvature(problem.theta), b = Random(73).vector(6);
    const Anchor anchor(J, problem.theta);
    for (const double scale : {-10.0, poison}) {
        const Solution solution = solve(J, scale * curvature, b, anchor, 1e-9, 100);
        CHECK(!solution.converged && solution.products == 1);
        CHECK(solution.x.allFinite());
    }
}
