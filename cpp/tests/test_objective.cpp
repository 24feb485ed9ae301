// J, its gradient and Hessian (E1), the gradient difference (E3) and the rounding floor (E19).
#include <thread>

#include "problems.hpp"

using namespace expunge;
using namespace expunge::testing;

TEST("value, gradient, curvature and Hessian are those of E1 in long double, in every layout of X") {
    for_each_problem([](const Problem& problem) {
        const Exact e = exact(problem, problem.theta);
        const double floor = problem.objective().rounding_floor(problem.theta);
        for (const Stored& layout : layouts(problem.X)) {
            about = problem.name + ", " + layout.name;
            const Objective J = problem.on(layout.rows);
            const Evaluation at = J.evaluate(problem.theta);
            CHECK_AT_MOST(std::abs(at.value - e.value), 1e-13 * e.value_scale);
            CHECK_AT_MOST(distance(at.gradient, e.gradient), floor);  // E19 bounds the true error
            CHECK_AT_MOST(distance(at.curvature, e.curvature), 1e-13 * e.hessian_scale);
            CHECK(J.curvature(problem.theta) == at.curvature);
            CHECK_AT_MOST(distance(symmetric(J.hessian(problem.theta)), e.hessian), 1e-13 * e.hessian_scale);
            CHECK_AT_MOST(std::abs(J.rounding_floor(problem.theta) - floor), 1e-13 * floor);
        }
    });
}

TEST("the rounding floor covers terms of eta that cancel, in any order") {
    for (const RowMatrix& X :
         {RowMatrix{{1e16, 1.0, -1e16}}, RowMatrix{{1e16, -1e16, 1.0}}, RowMatrix{{1.0, -1e16, 1e16}}}) {
        const Problem problem{
            "cancelling", X,    Vector::Zero(1), Vector::Ones(1), Vector::Zero(3), Vector::Ones(3),
            Squared{},    false};
        const Objective J = problem.objective();
        CHECK_AT_MOST(distance(J.evaluate(problem.theta).gradient, exact(problem, problem.theta).gradient),
                      J.rounding_floor(problem.theta));
    }
}

TEST("the residual is the norm of the gradient, and infinite values stand for nothing measured") {
    CHECK((Evaluation{1.0, Vector::Constant(4, 3.0), Vector()}.residual() == 6.0));
    CHECK(Evaluation{}.value == std::numeric_limits<double>::infinity());
}

TEST("a Hessian-vector product is the Hessian times the vector") {
    for_each_problem([](const Problem& problem) {
        const Objective J = problem.objective();
        const Vector v = Random(21).vector(J.parameters());
        const Matrix H = symmetric(J.hessian(problem.theta));
        CHECK_AT_MOST((J.hvp(J.curvature(problem.theta), v) - H * v).norm(), 1e-13 * H.norm() * v.norm());
    });
}

TEST("the gradient is the finite difference of the value, the Hessian of the gradient") {
    for_each_problem([](const Problem& problem) {
        if (problem.name.starts_with("margins")) return;  // the step would have to be 1e-5
        const Objective J = problem.objective();
        const Vector v = Random(22).vector(J.parameters()).normalized();
        const Evaluation at = J.evaluate(problem.theta);
        const double step = 1e-3;
        const double slope =
            central_difference([&](double t) { return J.evaluate(problem.theta + t * v).value; }, step);
        const Vector turn =
            central_difference([&](double t) { return J.evaluate(problem.theta + t * v).gradient; }, step);
        const Vector Hv = J.hvp(at.curvature, v);
        CHECK_AT_MOST(std::abs(slope - at.gradient.dot(v)), 1e-8 * std::max(at.residual(), at.value));
        CHECK_AT_MOST((turn - Hv).norm(), 1e-8 * std::max(Hv.norm(), at.residual()));
    });
}

TEST("several blocks, of either type of number and one of them empty, equal one") {
    for_each_problem([](const Problem& problem) {
        const Index n = problem.X.rows(), d = problem.X.cols(), cut = n / 3;
        const Eigen::Matrix<float, -1, -1, Eigen::RowMajor> second =
            problem.X.bottomRows(n - cut).cast<float>();
        const Rows first = DenseRows<double>(problem.X.data(), cut, d, 1, all_columns(d));
        const Rows rest = DenseRows<float>(second.data(), n - cut, d, 1, all_columns(d));
        const Rows none = DenseRows<double>(nullptr, 0, d, 1, all_columns(d));
        const Objective whole = problem.objective();
        const Objective blocks({{first, problem.y.data(), problem.s.data()},
                                {none, nullptr, nullptr},
                                {rest, problem.y.data() + cut, problem.s.data() + cut}},
                               problem.loss, problem.penalty, problem.fit_intercept);
        CHECK(blocks.rows() == n && blocks.parameters() == whole.parameters());
        const Evaluation a = whole.evaluate(problem.theta), b = blocks.evaluate(problem.theta);
        CHECK_AT_MOST((a.gradient - b.gradient).norm(), 2.0 * whole.rounding_floor(problem.theta));
        CHECK_AT_MOST(std::abs(a.value - b.value), 2e-13 * exact(problem, problem.theta).value_scale);
        CHECK_AT_MOST((a.curvature - b.curvature).norm(),
                      1e-13 * exact(problem, problem.theta).hessian_scale);
        const Matrix H = whole.hessian(problem.theta);
        CHECK_AT_MOST((symmetric(H) - symmetric(blocks.hessian(problem.theta))).norm(),
                      1e-13 * exact(problem, problem.theta).hessian_scale);
        const Vector v = Random(23).vector(whole.parameters());
        CHECK_AT_MOST((whole.hvp(a.curvature, v) - blocks.hvp(b.curvature, v)).norm(),
                      1e-12 * H.norm() * v.norm());
        CHECK(!blocks.same_rows(blocks));  // only single blocks are compared
    });
}

TEST("targets that are not given are zeros, weights that are not given are ones") {
    for_each_problem([](const Problem& problem) {
        Problem plain = problem;
        plain.y.setZero();
        plain.s.setOnes();
        const Objective given = plain.objective();
        const Objective absent({{rows_of(plain.X), nullptr, nullptr}}, plain.loss, plain.penalty,
                               plain.fit_intercept);
        const Evaluation a = given.evaluate(plain.theta), b = absent.evaluate(plain.theta);
        CHECK(a.value == b.value && a.gradient == b.gradient && a.curvature == b.curvature);
        CHECK(given.rounding_floor(plain.theta) == absent.rounding_floor(plain.theta));
    });
}

TEST("weight 0 is a row removed, weight 2 a row twice") {
    for_each_problem([](const Problem& problem) {
        const Index n = problem.X.rows();
        Problem weighted = problem, repeated = problem;
        weighted.s.setOnes();
        weighted.s(0) = 2.0;
        weighted.s(n - 1) = n > 1 ? 0.0 : 2.0;
        repeated.s.setOnes();
        repeated.X.row(n - 1) = problem.X.row(0);
        repeated.y(n - 1) = problem.y(0);
        if (n == 1) repeated.s.setConstant(2.0);
        const double floor = weighted.objective().rounding_floor(problem.theta);
        CHECK_AT_MOST((weighted.objective().evaluate(problem.theta).gradient -
                       repeated.objective().evaluate(problem.theta).gradient)
                          .norm(),
                      2.0 * floor);
    });
}

TEST("an objective without rows is its penalty") {
    const Vector penalty = Vector::Constant(3, 2.0), theta = Vector::LinSpaced(3, 1.0, 3.0);
    for (const Objective& J :
         {Objective({}, Logistic{}, penalty, false),
          Objective({{DenseRows<double>(nullptr, 0, 3, 1, all_columns(3)), nullptr, nullptr}}, Logistic{},
                    penalty, false)}) {
        const Evaluation at = J.evaluate(theta);
        CHECK(J.rows() == 0 && at.value == 14.0 && at.gradient == 2.0 * theta && at.curvature.size() == 0);
        CHECK(symmetric(J.hessian(theta)) == Matrix(penalty.asDiagonal()));
    }
}

TEST("rows of the wrong width are refused with both widths") {
    const RowMatrix X = RowMatrix::Ones(2, 3);
    CHECK(thrown<std::invalid_argument>([&] {
              Objective J({{rows_of(X), nullptr, nullptr}}, Squared{}, Vector::Ones(3), true);
          }) == "X has 3 columns, expected 2");
}

// ---- E3 ----

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

TEST("threads may evaluate one objective at the same time") {
    const Problem problem = make_problem("several panels", 1000, 37, Logistic{}, true);
    const Stored X = stored<float>("F", problem.X, 1, 1000, 37, all_columns(37));  // packed by each thread
    const Objective J = problem.on(X.rows);
    const Evaluation alone = J.evaluate(problem.theta);
    const Matrix H = symmetric(J.hessian(problem.theta));
    std::vector<char> equal(4, 0);
    std::vector<std::thread> threads;
    for (char& result : equal)
        threads.emplace_back([&] {
            bool all = true;
            for (int k = 0; k < 5; ++k)
                all = all && J.evaluate(problem.theta).gradient == alone.gradient &&
                      symmetric(J.hessian(problem.theta)) == H;
            result = all;
        });
    for (std::thread& thread : threads) thread.join();
    for (const char result : equal) CHECK(result);
}
