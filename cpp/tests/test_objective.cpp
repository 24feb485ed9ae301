// J, its gradient and Hessian (E1).
#include <numeric>
#include <thread>

#include "problems.hpp"

using namespace expunge;
using namespace expunge::testing;

TEST("value, gradient, curvature and Hessian are those of E1 in long double, in every layout of X") {
    for_each_objective([](const Problem& problem, const Exact& e, const Stored&, const Objective& J) {
        const Evaluation at = J.evaluate(problem.theta);
        CHECK_AT_MOST(std::abs(at.value - e.value), 1e-13 * e.value_scale);
        CHECK_AT_MOST(distance(at.gradient, e.gradient), J.rounding_floor(problem.theta));  // E19
        CHECK_AT_MOST(distance(at.curvature, e.curvature), 1e-13 * e.hessian_scale);
        CHECK(J.curvature(problem.theta) == at.curvature);
        CHECK_AT_MOST(distance(symmetric(J.hessian(problem.theta)), e.hessian), 1e-13 * e.hessian_scale);
    });
}

TEST("products with the Hessian and its diagonal are those of E1, in every layout of X") {
    for_each_objective([](const Problem& problem, const Exact& e, const Stored&, const Objective& J) {
        const Vector curvature = J.curvature(problem.theta), v = Random(24).vector(J.parameters());
        const RealVector Hv = e.hessian * v.cast<Real>();
        CHECK_AT_MOST(distance(J.hvp(curvature, v), Hv), 1e-13 * e.hessian_scale * v.norm());
        CHECK_AT_MOST(distance(J.hvp_at(problem.theta, v), Hv), 1e-13 * e.hessian_scale * v.norm());
        const RealVector diagonal = e.hessian.diagonal() - problem.penalty.cast<Real>();
        CHECK_AT_MOST(distance(J.gram_diagonal(curvature), diagonal), 1e-13 * e.hessian_scale);
        const Matrix G = J.hessian(problem.theta) - Matrix(problem.penalty.asDiagonal());
        for (Index j = 0; j < J.parameters(); ++j) CHECK(G.col(j).head(j).isZero(0.0));
    });
}

TEST("the bound of the gram matrix's norm is its largest row sum for weights and the intercept") {
    for_each_objective([](const Problem& problem, const Exact&, const Stored&, const Objective& J) {
        RowMatrix X = RowMatrix::Ones(problem.X.rows(), J.parameters());
        X.leftCols(problem.X.cols()) = problem.X.cwiseAbs();
        const double expected = (X.transpose() * problem.s.cwiseProduct(X.rowwise().sum())).maxCoeff();
        CHECK_AT_MOST(std::abs(J.gram_norm_bound() - expected), 1e-13 * expected);
    });
}

TEST("a gram matrix is added, for curvatures of either sign") {
    for_each_objective([](const Problem& problem, const Exact& e, const Stored&, const Objective& J) {
        if (!problem.name.starts_with("mostly zeros")) return;
        const Vector curvature = J.curvature(problem.theta);
        Matrix H = Matrix::Zero(J.parameters(), J.parameters());
        J.add_gram(2.0 * curvature, H);
        J.add_gram(-curvature, H);
        H.diagonal() += problem.penalty;
        CHECK_AT_MOST(distance(symmetric(H), e.hessian), 3e-13 * e.hessian_scale);
    });
}

TEST("gradient and Hessian of one pass are those of two, within the rounding floor") {
    for_each_objective([](const Problem& problem, const Exact& e, const Stored& layout, const Objective& J) {
        double norm = layout.rows.largest_norm();
        Matrix H;
        const Evaluation at = J.evaluate(problem.theta, norm, H);
        const Evaluation plain = J.evaluate(problem.theta, norm);
        CHECK(at.curvature == plain.curvature);
        CHECK_AT_MOST(std::abs(at.floor - plain.floor), 1e-12 * plain.floor);
        CHECK_AT_MOST(std::abs(at.value - plain.value), 1e-13 * std::abs(plain.value));
        CHECK_AT_MOST(distance(at.gradient, e.gradient), J.rounding_floor(problem.theta));
        CHECK_AT_MOST(distance(symmetric(H), e.hessian), 1e-13 * e.hessian_scale);
        CHECK(H == J.hessian(problem.theta));
    });
}

TEST("many rows, in parts for threads, give gradient and Hessian of one pass too") {
    for (const Index n : {1023, 1025, 5000}) {  // gradients have fewer additions than E19 counts
        const Problem problem = make_problem("parts", n, 7, Logistic{}, true);
        const Exact e = exact(problem, problem.theta);
        for (const Stored& layout : layouts(problem.X)) {
            about = std::to_string(n) + " rows, " + layout.name;
            const Objective J = problem.on(layout.rows);
            double norm = std::numeric_limits<double>::quiet_NaN();
            Matrix H;
            const Evaluation at = J.evaluate(problem.theta, norm, H);
            CHECK_AT_MOST(std::abs(norm - layout.rows.largest_norm()), 1e-14 * norm);
            CHECK_AT_MOST(distance(at.gradient, e.gradient), J.rounding_floor(problem.theta));
            CHECK_AT_MOST(std::abs(at.value - J.evaluate(problem.theta).value), 1e-12 * std::abs(at.value));
            CHECK_AT_MOST(distance(symmetric(H), e.hessian), 1e-13 * e.hessian_scale);
        }
    }
    about.clear();
}

TEST(
    "a row of weight 0 may overflow: value, gradient, Hessian, floor and largest norm are those without it") {
    for (const Loss& loss : {Loss(Squared{}), Loss(Logistic{})}) {
        for (const bool fit_intercept : {false, true}) {
            for (const double size : {1e155, 1e200, 1.7e308}) {
                Problem problem = make_problem("more rows than columns", 40, 5, loss, fit_intercept);
                problem.theta *= 1e3;
                problem.s(7) = problem.s(30) = 0.0;
                problem.X.row(7).setZero();
                problem.X.row(30).setZero();
                Problem huge = problem;
                huge.X.row(7) << size, -size, size, size, 1.0;
                huge.X.row(30).setConstant(-size);
                const Vector v = Random(31).vector(problem.penalty.size());
                for (const Stored& layout : layouts(huge.X)) {
                    if (layout.name.find("32") != std::string::npos) continue;  // would not hold them
                    about = layout.name + " " + text_of(size);
                    const Objective J = huge.on(layout.rows), K = problem.objective();
                    const double nan = std::numeric_limits<double>::quiet_NaN();
                    double norm = nan, expected_norm = nan;
                    Matrix H, expected_H;
                    const Evaluation at = J.evaluate(huge.theta, norm, H);
                    const Evaluation expected = K.evaluate(huge.theta, expected_norm, expected_H);
                    const auto near = [](const auto& a, const auto& b) {
                        return (a - b).norm() <= 1e-12 * b.norm();
                    };
                    CHECK(std::abs(at.value - expected.value) <= 1e-12 * expected.value);
                    CHECK(near(at.gradient, expected.gradient));
                    CHECK(near(at.curvature, expected.curvature));
                    CHECK(near(H, expected_H));
                    CHECK(std::abs(norm - expected_norm) <= 1e-12 * norm);
                    CHECK(at.floor <= 4.0 * expected.floor);  // more columns are stored of some
                    CHECK(J.rounding_floor(huge.theta) <= (1.0 + 1e-12) * at.floor);
                    CHECK(near(J.hessian(huge.theta), expected_H));
                    CHECK(near(J.hvp_at(huge.theta, v), K.hvp_at(huge.theta, v)));
                    CHECK(near(J.hvp(at.curvature, v), K.hvp(expected.curvature, v)));
                    CHECK(near(J.gram_diagonal(at.curvature), K.gram_diagonal(expected.curvature)));
                    CHECK(std::abs(J.gram_norm_bound() - K.gram_norm_bound()) <= 1e-12 * K.gram_norm_bound());
                    CHECK(near(Objective::gradient_difference(nullptr, &J, huge.theta),
                               Objective::gradient_difference(nullptr, &K, huge.theta)));
                    const Change change = Objective::change(nullptr, &J, huge.theta);
                    CHECK(near(change.gradient, Objective::change(nullptr, &K, huge.theta).gradient));
                    CHECK(std::isfinite(change.after.gradient_rounding + change.after.hessian_rounding));
                    CHECK(std::abs(change.after.largest_norm) <= 1e100);
                }
            }
        }
    }
    about.clear();
}

TEST("the residual is the norm of the gradient, and infinite values stand for nothing measured") {
    CHECK((Evaluation{1.0, Vector::Constant(4, 3.0), Vector()}.residual() == 6.0));
    CHECK(Evaluation{}.value == std::numeric_limits<double>::infinity());
    CHECK(Evaluation{}.floor == std::numeric_limits<double>::infinity());
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

TEST("several blocks, dense and sparse, of either type of number and one of them empty, equal one") {
    for_each_problem([](const Problem& problem) {
        const Index n = problem.X.rows(), d = problem.X.cols(), cut = n / 3, sparse = n / 4;
        const Eigen::Matrix<float, -1, -1, Eigen::RowMajor> second =
            problem.X.middleRows(cut, n - cut - sparse).cast<float>();
        const Stored third = masked_csr(problem.X.bottomRows(sparse));
        const RowsView first = RowsView::dense<double>(problem.X.data(), cut, d, 1, all_columns(d));
        const RowsView rest = RowsView::dense<float>(second.data(), second.rows(), d, 1, all_columns(d));
        const RowsView none = RowsView::dense<double>(nullptr, 0, d, 1, all_columns(d));
        const Objective whole = problem.objective();
        const double norm = rows_of(problem.X).largest_norm();
        const Objective blocks({{first, problem.y.data(), problem.s.data()},
                                {none, nullptr, nullptr},
                                {rest, problem.y.data() + cut, problem.s.data() + cut},
                                {third.rows, problem.y.data() + n - sparse, problem.s.data() + n - sparse}},
                               problem.loss, problem.penalty, problem.fit_intercept, norm);
        CHECK(blocks.rows() == n && blocks.parameters() == whole.parameters());
        const Evaluation a = whole.evaluate(problem.theta), b = blocks.evaluate(problem.theta);
        CHECK_AT_MOST((a.gradient - b.gradient).norm(),
                      whole.rounding_floor(problem.theta) + blocks.rounding_floor(problem.theta));
        CHECK_AT_MOST(blocks.rounding_floor(problem.theta), (1.0 + 1e-13) * b.floor);
        CHECK_AT_MOST((whole.gram_diagonal(a.curvature) - blocks.gram_diagonal(a.curvature)).norm(),
                      1e-13 * whole.gram_diagonal(a.curvature).norm());
        CHECK_AT_MOST(std::abs(a.value - b.value), 2e-13 * exact(problem, problem.theta).value_scale);
        CHECK_AT_MOST((a.curvature - b.curvature).norm(),
                      1e-13 * exact(problem, problem.theta).hessian_scale);
        const Matrix H = whole.hessian(problem.theta);
        CHECK_AT_MOST((symmetric(H) - symmetric(blocks.hessian(problem.theta))).norm(),
                      1e-13 * exact(problem, problem.theta).hessian_scale);
        const Vector v = Random(23).vector(whole.parameters());
        CHECK_AT_MOST((whole.hvp(a.curvature, v) - blocks.hvp(b.curvature, v)).norm(),
                      1e-12 * H.norm() * v.norm());
        CHECK_AT_MOST((blocks.hvp_at(problem.theta, v) - blocks.hvp(b.curvature, v)).norm(),
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

TEST("noise adds its linear term, to J, its gradient and the floor, and nothing to the Hessian") {
    for_each_objective([](const Problem& problem, const Exact& e, const Stored& layout, const Objective& J) {
        const Index d = problem.X.cols(), p = problem.penalty.size();
        Vector b = Vector::Zero(p);
        b.head(d) = Vector::LinSpaced(d, -3.0, 2.0);
        const Objective noisy({{layout.rows, problem.y.data(), problem.s.data()}}, problem.loss,
                              problem.penalty, problem.fit_intercept, std::numeric_limits<double>::infinity(),
                              b);
        const Vector& theta = problem.theta;
        const Evaluation at = noisy.evaluate(theta);
        const double floor = noisy.rounding_floor(theta);
        CHECK_AT_MOST(double((at.gradient.cast<Real>() - e.gradient - b.cast<Real>()).norm()), floor);
        CHECK_AT_MOST(floor, J.rounding_floor(theta) + 4.0 * roundoff * b.norm());
        const Real exactly = e.value + b.cast<Real>().dot(theta.cast<Real>());
        CHECK_AT_MOST(double(std::abs(Real(at.value) - exactly)),
                      1e-14 * (double(e.value_scale) + b.cwiseAbs().dot(theta.cwiseAbs())));
        CHECK(noisy.hessian(theta) == J.hessian(theta));
        CHECK(noisy.curvature(theta) == J.curvature(theta));
        std::vector<Index> odd;
        for (Index j = 0; j < d; j += 2) odd.push_back(j);
        const Vector some = theta(odd);
        CHECK_AT_MOST((noisy.select(odd).evaluate(some).gradient - J.select(odd).evaluate(some).gradient -
                       Vector(b(odd)))
                          .norm(),
                      noisy.select(odd).rounding_floor(some));
    });
}

TEST("an objective without rows is its penalty") {
    const Vector penalty = Vector::Constant(3, 2.0), theta = Vector::LinSpaced(3, 1.0, 3.0);
    const auto sparse = csr<double, std::int32_t>(RowMatrix(0, 3), 3, all_columns(3));
    for (const Objective& J :
         {Objective({}, Logistic{}, penalty, false),
          Objective({{sparse.rows(all_columns(3)), nullptr, nullptr}}, Logistic{}, penalty, false, 0.0),
          Objective({{RowsView::dense<double>(nullptr, 0, 3, 1, all_columns(3)), nullptr, nullptr}},
                    Logistic{}, penalty, false)}) {
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

TEST("some of the coordinates are the objective over those columns") {
    for_each_objective([](const Problem& problem, const Exact&, const Stored&, const Objective& J) {
        if (problem.name.starts_with("several panels")) return;  // to save time
        const Index d = problem.X.cols();
        std::vector<Index> all(static_cast<std::size_t>(d)), odd;
        std::iota(all.begin(), all.end(), Index(0));
        for (Index j = 1; j < d; j += 2) odd.push_back(j);
        for (const std::vector<Index>& columns : {all, odd, {d - 1}, {}}) {
            for (const bool intercept : {false, true}) {
                if (intercept && !problem.fit_intercept) continue;
                std::vector<Index> coordinates = columns;
                if (intercept) coordinates.push_back(d);
                Problem narrow = problem;
                narrow.X = problem.X(Eigen::all, columns);
                narrow.penalty = problem.penalty(coordinates);
                narrow.theta = problem.theta(coordinates);
                narrow.fit_intercept = intercept;
                const Exact e = exact(narrow, narrow.theta);
                const Objective selected = J.select(coordinates);
                CHECK(selected.fit_intercept() == intercept && selected.penalty() == narrow.penalty);
                CHECK(selected.rows() == J.rows());
                const Evaluation at = selected.evaluate(narrow.theta);
                CHECK_AT_MOST(std::abs(at.value - e.value), 1e-13 * e.value_scale);
                CHECK_AT_MOST(distance(at.gradient, e.gradient), selected.rounding_floor(narrow.theta));
                CHECK_AT_MOST(distance(at.curvature, e.curvature), 1e-13 * e.hessian_scale);
                CHECK_AT_MOST(distance(symmetric(selected.hessian(narrow.theta)), e.hessian),
                              1e-13 * e.hessian_scale);
            }
        }
    });
}

TEST("the gap of a squared hinge is how far the nearest kink is, whatever the layout") {  // E36
    const Problem problem = make_problem("several panels", 600, 6, Logistic{}, true);
    const Vector& theta = problem.theta;
    double nearest = std::numeric_limits<double>::infinity();
    for (Index i = 0; i < problem.X.rows(); ++i) {
        const double eta = problem.X.row(i).dot(theta.head(6)) + theta(6);
        if (problem.s(i) > 0.0)
            nearest = std::min(nearest, std::abs(1.0 - (2.0 * problem.y(i) - 1.0) * eta) /
                                            std::sqrt(problem.X.row(i).squaredNorm() + 1.0));
    }
    for (const Stored& layout : layouts(problem.X)) {
        about = layout.name;
        const Objective J({{layout.rows, problem.y.data(), problem.s.data()}}, SquaredHinge{},
                          problem.penalty, true);
        const double gap = J.kink_gap(theta);
        CHECK(gap <= nearest);
        CHECK_AT_MOST(nearest - gap, 1e-9 * nearest + 1e-12);
    }
}

TEST("threads may evaluate one objective at the same time") {
    const Problem problem = make_problem("several panels", 1000, 37, Logistic{}, true);
    for (const Stored& X :
         {stored<float>("F", problem.X, 1, 1000, 37, all_columns(37)),  // packed by each thread
          masked_csr(problem.X)}) {
        about = X.name;
        const Objective J = problem.on(X.rows);
        const Evaluation alone = J.evaluate(problem.theta);
        const double floor = J.rounding_floor(problem.theta);
        const Matrix H = symmetric(J.hessian(problem.theta));
        std::vector<char> equal(4, 0);
        std::vector<std::thread> threads;
        for (char& result : equal)
            threads.emplace_back([&] {
                bool all = true;
                for (int k = 0; k < 5; ++k)
                    all = all && J.evaluate(problem.theta).gradient == alone.gradient &&
                          J.rounding_floor(problem.theta) == floor &&
                          symmetric(J.hessian(problem.theta)) == H;
                result = all;
            });
        for (std::thread& thread : threads) thread.join();
        for (const char result : equal) CHECK(result);
    }
    about.clear();
}
