// The gradient difference (E3): the gradient after a correction less the one before.
#include "problems.hpp"

using namespace expunge;
using namespace expunge::testing;

TEST("the gradient difference is the gradient after less the gradient before") {
    for_each_problem([](const Problem& problem) {
        Problem before = problem, after = problem;  // other values, labels, weights and number of rows
        before.penalty.setZero();
        after.penalty.setZero();
        after.X = Random(31).matrix(problem.X.rows() + 3, problem.X.cols());
        after.y = Vector::Ones(after.X.rows());
        after.s = Vector::LinSpaced(after.X.rows(), 0.0, 2.0);
        const Objective J_before = before.objective(), J_after = after.objective();
        const double floor = J_before.rounding_floor(problem.theta) + J_after.rounding_floor(problem.theta);
        const Exact old = exact(before, problem.theta), now = exact(after, problem.theta);
        const RealVector change = now.gradient - old.gradient;

        const Evaluation both = Objective::difference(&J_before, &J_after, problem.theta);
        CHECK_AT_MOST(distance(both.gradient, change), 1.1 * floor);
        CHECK_AT_MOST(std::abs(both.value - (now.value - old.value)),
                      1e-13 * (now.value_scale + old.value_scale));
        CHECK(both.curvature.size() == 0);
        const Evaluation removed = Objective::difference(&J_before, nullptr, problem.theta);
        CHECK_AT_MOST(distance(removed.gradient, -old.gradient), floor);
        const Evaluation added = Objective::difference(nullptr, &J_after, problem.theta);
        CHECK_AT_MOST(distance(added.gradient, now.gradient), floor);
        CHECK(Objective::difference(nullptr, nullptr, problem.theta).gradient.isZero(0.0));
    });
}

TEST("the penalty does not enter a gradient difference") {
    for_each_problem([](const Problem& problem) {
        Problem free = problem;
        free.penalty.setZero();
        const Objective J = problem.objective(), J_free = free.objective();
        CHECK(Objective::difference(nullptr, &J, problem.theta).gradient ==
              Objective::difference(nullptr, &J_free, problem.theta).gradient);
    });
}

TEST("the gradient difference of rows in any layout is that of dense rows") {
    for_each_objective(
        [](const Problem& problem, const Exact&, const Stored& layout, const Objective& before) {
            Problem after = problem;
            after.y = 1.0 - problem.y.array();
            after.s = 0.5 * problem.s.array() + 0.25;
            const Objective shared = after.on(layout.rows), dense_before = problem.objective(),
                            dense_after = after.objective();
            const Evaluation expected = Objective::difference(&dense_before, &dense_after, problem.theta);
            const double floor = before.rounding_floor(problem.theta) + shared.rounding_floor(problem.theta) +
                                 dense_before.rounding_floor(problem.theta) +
                                 dense_after.rounding_floor(problem.theta);
            CHECK(before.same_rows(shared));
            for (const Objective* old : {&before, &dense_before})
                CHECK_AT_MOST(
                    (Objective::difference(old, &shared, problem.theta).gradient - expected.gradient).norm(),
                    floor);
            CHECK(Objective::difference(&before, &before, problem.theta).gradient.isZero(0.0));
        });
}

TEST("rows shared by before and after give the difference of rows apart, and of themselves exactly 0") {
    for_each_problem([](const Problem& problem) {
        Problem after = problem;
        after.y = 1.0 - problem.y.array();
        after.s = 0.5 * problem.s.array() + 0.25;
        const Objective before = problem.objective(), shared = after.on(rows_of(problem.X)),
                        apart = after.objective();
        CHECK(before.same_rows(shared));
        CHECK(!before.same_rows(apart));
        const Evaluation a = Objective::difference(&before, &shared, problem.theta);
        const Evaluation b = Objective::difference(&before, &apart, problem.theta);
        const double floor = before.rounding_floor(problem.theta) + apart.rounding_floor(problem.theta);
        CHECK_AT_MOST((a.gradient - b.gradient).norm(), 2.0 * floor);
        CHECK_AT_MOST(std::abs(a.value - b.value), 1e-13 * (exact(problem, problem.theta).value_scale +
                                                            exact(after, problem.theta).value_scale));
        CHECK(Objective::difference(&before, &before, problem.theta).gradient.isZero(0.0));
        CHECK(Objective::difference(&before, &before, problem.theta).value == 0.0);
    });
}

TEST("corrected labels change the gradient by s (y - y') x, at every theta") {  // E6
    for_each_problem([](const Problem& problem) {
        Problem after = problem;
        after.y = 1.0 - problem.y.array();
        const Objective before = problem.objective(), J = after.on(rows_of(problem.X));
        const Vector w = problem.s.cwiseProduct(problem.y - after.y);
        Vector expected(J.parameters());
        expected.head(problem.X.cols()) = problem.X.transpose() * w;
        if (problem.fit_intercept) expected(problem.X.cols()) = w.sum();
        for (const double scale : {0.0, 1.0, -3.0}) {
            const Vector theta = scale * problem.theta;
            CHECK_AT_MOST((Objective::difference(&before, &J, theta).gradient - expected).norm(),
                          2.0 * (before.rounding_floor(theta) + J.rounding_floor(theta)));
        }
    });
}
