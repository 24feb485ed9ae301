// minimize (E11): the residual asked for, or the rounding floor, from any start and with any old factor.
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
void check_minimum(const Problem& problem, const Minimum& minimum, double asked = tolerance) {
    CHECK_AT_MOST(minimum.at.residual(), std::max(asked, minimum.floor));
    CHECK_AT_MOST(std::abs(exact(problem, minimum.theta).gradient.norm() - minimum.at.residual()),
                  minimum.floor);
    CHECK(minimum.floor == problem.objective().rounding_floor(minimum.theta));
    CHECK(minimum.iterations < max_iter);
    CHECK(minimum.passes > minimum.iterations);
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
        const double modulus = problem.penalty.head(problem.X.cols()).minCoeff();
        if (!problem.fit_intercept)
            CHECK_AT_MOST((near.theta - far.theta).norm(),
                          (near.at.residual() + far.at.residual() + near.floor + far.floor) / modulus);
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
    CHECK(again.passes == 2);  // the gradient and the floor
}

TEST("a tolerance below the rounding floor ends at the floor, and soon") {
    for_each_minimiser([](const Problem& problem) {
        const Minimum minimum = minimize(problem.objective(), origin(problem), 0.0, max_iter);
        check_minimum(problem, minimum, 0.0);
        CHECK_AT_MOST(minimum.passes, 300);
    });
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
          "Hessian is not positive definite (pivot 1): raise alpha above 0");
}
