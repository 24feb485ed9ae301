// J, its gradient and Hessian (E1), the gradient difference (E3) and the rounding floor (E19).
#include <numeric>
#include <thread>

#include "problems.hpp"

using namespace expunge;
using namespace expunge::testing;

namespace {

struct Case {
    Problem problem;
    Exact e;  // at problem.theta
    std::vector<Stored> layouts;
};

// Calls visit(problem, e, layout, J) with X in every layout.
template <class Visit>
void for_each_objective(Visit&& visit) {
    static const auto cases = [] {
        std::vector<Case> all;
        for_each_problem([&](const Problem& problem) {
            all.push_back({problem, exact(problem, problem.theta), layouts(problem.X)});
        });
        return all;
    }();
    for (const auto& [problem, e, layouts] : cases) {
        for (const Stored& layout : layouts) {
            about = problem.name + ", " + layout.name;
            visit(problem, e, layout, problem.on(layout.rows));
        }
    }
    about.clear();
}

double panel_rows(const RowsView& X) { return static_cast<double>(X.panel_rows()); }

// What rounding in eta leaves in d1 of row i, in units of u.
double d1_rounding(const Problem& problem, const Exact& e, Index i, double eta_rounding) {
    const double d1 = static_cast<double>(e.d1(i)), y = problem.y(i);
    return std::visit([&](auto loss) { return loss.d1_rounding(d1, eta_rounding, y); }, problem.loss);
}

// E19 by its formula.
Real floor_by_columns(const Problem& problem, const Exact& e, const Stored& layout) {
    const Index n = problem.X.rows(), d = problem.X.cols(), p = problem.penalty.size();
    const double most = panel_rows(layout.rows), panels = std::ceil(double(n) / most);
    RealVector in_d1(n);
    for (Index i = 0; i < n; ++i) {
        const double stored = layout.row_entries(i) + problem.fit_intercept;
        in_d1(i) = d1_rounding(problem, e, i, (stored + 2.0) * double(e.eta_size(i)));
    }
    Real norm2 = 0, penalty2 = 0;
    for (Index j = 0; j < p; ++j) {
        const double terms = j < d ? layout.column_entries(j) : double(n);
        const double k = std::min(terms, most) + std::min(terms, panels) + 3.0;
        Real error = 0;
        for (Index i = 0; i < n; ++i)
            error +=
                (j < d ? std::abs(problem.X(i, j)) : 1.0) * problem.s(i) * (k * std::abs(e.d1(i)) + in_d1(i));
        norm2 += error * error;
        penalty2 += Real(problem.penalty(j)) * problem.penalty(j) * problem.theta(j) * problem.theta(j);
    }
    return roundoff * (std::sqrt(norm2) + 4 * std::sqrt(penalty2));
}

// The same with no more known of a row than that it is no longer than any other.
Real floor_by_largest_row(const Problem& problem, const Exact& e, const Stored& layout) {
    const Index n = problem.X.rows();
    const double most = panel_rows(layout.rows);
    const double k = std::min(double(n), most) + std::ceil(double(n) / most) + 3.0;
    const double norm = std::hypot(problem.X.rowwise().norm().maxCoeff(), double(problem.fit_intercept));
    const double eta_rounding = (layout.row_entries.maxCoeff() + 3.0) * norm * problem.theta.norm();
    Real sum = 0;
    for (Index i = 0; i < n; ++i)
        sum += problem.s(i) * (k * std::abs(e.d1(i)) + d1_rounding(problem, e, i, eta_rounding));
    return roundoff * (norm * sum + 4.0 * problem.penalty.cwiseProduct(problem.theta).norm());
}

}  // namespace

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

// ---- E19 ----

TEST("the rounding floor is that of E19, and one number for all dense layouts") {
    for_each_objective([](const Problem& problem, const Exact& e, const Stored& layout, const Objective& J) {
        const Real expected = floor_by_columns(problem, e, layout);
        const double floor = J.rounding_floor(problem.theta);
        CHECK_AT_MOST(std::abs(floor - expected), 1e-12 * expected);
        const double dense = problem.objective().rounding_floor(problem.theta);
        if (layout.name.starts_with("CSR float") || layout.name.starts_with("CSR, zeros"))
            CHECK_AT_MOST(floor, (1.0 + 1e-13) * dense);
        else if (!layout.name.starts_with("CSR"))
            CHECK_AT_MOST(std::abs(floor - dense), 1e-13 * dense);
    });
}

TEST("a known largest norm gives a bound of the rounding floor with the gradient") {
    for_each_objective([](const Problem& problem, const Exact& e, const Stored& layout, const Objective& J) {
        const Objective bounded({{layout.rows, problem.y.data(), problem.s.data()}}, problem.loss,
                                problem.penalty, problem.fit_intercept, layout.rows.largest_norm());
        const Evaluation at = bounded.evaluate(problem.theta), plain = J.evaluate(problem.theta);
        CHECK(plain.floor == std::numeric_limits<double>::infinity());
        CHECK(at.value == plain.value && at.gradient == plain.gradient && at.curvature == plain.curvature);
        CHECK_AT_MOST(distance(at.gradient, e.gradient), at.floor);
        CHECK_AT_MOST(J.rounding_floor(problem.theta), (1.0 + 1e-13) * at.floor);
        CHECK(bounded.rounding_floor(problem.theta) == J.rounding_floor(problem.theta));
        const Real expected = floor_by_largest_row(problem, e, layout);
        CHECK_AT_MOST(std::abs(at.floor - expected), 1e-12 * expected);
    });
}

TEST("a largest norm that is not known is found on the way, and the floor is of each row's own norm") {
    for_each_objective([](const Problem& problem, const Exact& e, const Stored& layout, const Objective& J) {
        const double known = layout.rows.largest_norm();
        double norm = std::numeric_limits<double>::quiet_NaN();
        const Evaluation at = J.evaluate(problem.theta, norm), plain = J.evaluate(problem.theta);
        CHECK_AT_MOST(std::abs(norm - known), 1e-14 * known);
        CHECK(at.value == plain.value && at.gradient == plain.gradient && at.curvature == plain.curvature);
        CHECK_AT_MOST(distance(at.gradient, e.gradient), at.floor);
        CHECK_AT_MOST(J.rounding_floor(problem.theta), (1.0 + 1e-13) * at.floor);
        CHECK_AT_MOST(at.floor, (1.0 + 1e-13) * J.evaluate(problem.theta, norm).floor);
    });
}

TEST("a largest norm that overflows is infinite, and bounds no floor") {
    RowMatrix X = RowMatrix::Ones(300, 2);
    const Vector y = Vector::Ones(300), penalty = Vector::Ones(2);
    for (const double entry : {1e200, std::numeric_limits<double>::quiet_NaN()}) {
        X(290, 1) = entry;
        const Objective J({{rows_of(X), y.data(), nullptr}}, Logistic{}, penalty, false);
        double norm = std::numeric_limits<double>::quiet_NaN();
        const Evaluation at = J.evaluate(Vector::Zero(2), norm);
        CHECK(norm == std::numeric_limits<double>::infinity());
        CHECK(at.floor == std::numeric_limits<double>::infinity());
    }
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

TEST("a few entries of many columns are summed in longer panels, within the rounding floor") {
    for (const bool fit_intercept : {false, true}) {
        for (const Loss& loss : {Loss(Squared{}), Loss(Logistic{})}) {
            const Problem problem = make_problem("mostly zeros", 900, 40, loss, fit_intercept);
            const Exact e = exact(problem, problem.theta);
            Runs filled;
            std::vector<Index> coordinates;
            for (Index j = 0; j < 40; ++j) coordinates.push_back(5 * j + 2);
            for (const Index column : coordinates) append(filled, column);
            const auto few = csr<double, std::int32_t>(problem.X, 200, filled);
            bool between = false;
            Index longest = 0;
            for (Index width = 200; width < 200000; width *= 2) {  // the same entries
                about = problem.name + ", " + std::to_string(width) + " columns";
                const RowsView X = RowsView::csr(few.data.data(), few.indices.data(), few.indptr.data(), 900,
                                                 width, all_columns(width));
                longest = X.panel_rows();
                between = between || (longest > max_panel_rows && longest < 900);

                std::vector<Index> at_hand = coordinates;
                Vector theta = Vector::Constant(width + fit_intercept, 0.5);
                Vector penalty = Vector::Constant(width + fit_intercept, 0.75);
                if (fit_intercept) {
                    at_hand.push_back(width);
                    penalty(width) = 0.0;
                }
                theta(at_hand) = problem.theta;
                const Objective J({{X, problem.y.data(), problem.s.data()}}, loss, penalty, fit_intercept,
                                  X.largest_norm());
                const Evaluation at = J.evaluate(theta);
                const double floor = J.rounding_floor(theta);
                CHECK_AT_MOST(distance(at.gradient(at_hand), e.gradient), floor);
                CHECK_AT_MOST(floor, (1.0 + 1e-13) * at.floor);
                Vector elsewhere = at.gradient;
                elsewhere(at_hand).setConstant(0.375);
                CHECK((elsewhere.array() == 0.375).all());
            }
            CHECK(between && longest == 900);
        }
    }
    about.clear();
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

// Rows of integers that long double adds without rounding, and double does not.
Problem cancelling_problem(double size, bool fit_intercept) {
    const double k = std::floor(size * 0x1p-53) + 1.0;  // of which size + k makes twice as much
    RowMatrix X{{size, k, -size, -k, 1.0}, {k, size, -size, -k, 2.0}, {-size, -k, size, k, 3.0}};
    Problem problem{"cancelling " + text_of(size),
                    X,
                    Vector{{1.0, 1.0, 0.0}},
                    Vector{{1.0, 0.5, 2.0}},
                    Vector::Ones(5),
                    Vector::Ones(5),
                    Logistic{},
                    fit_intercept};
    if (fit_intercept) {
        problem.theta.conservativeResize(6);
        problem.penalty.conservativeResize(6);
        problem.theta(5) = 1.0;
        problem.penalty(5) = 0.0;
    }
    return problem;
}

TEST("the floor and its bound from the largest row cover an eta that is all rounding") {
    Index beyond = 0;
    for (const bool fit_intercept : {false, true}) {
        for (double size = 1.0; size < 0x1p60; size *= 2.0) {
            const Problem problem = cancelling_problem(size, fit_intercept);
            const Exact e = exact(problem, problem.theta);
            for (const Stored& layout : layouts(problem.X)) {
                about = problem.name + ", " + layout.name;
                if (layout.name.find("32") != std::string::npos && size > 0x1p23) continue;
                const Objective J = problem.on(layout.rows);
                double largest_norm = std::numeric_limits<double>::quiet_NaN();  // to be found
                const Evaluation at = J.evaluate(problem.theta, largest_norm);
                const Objective known({{layout.rows, problem.y.data(), problem.s.data()}}, problem.loss,
                                      problem.penalty, fit_intercept, largest_norm);
                const Evaluation bounded = known.evaluate(problem.theta);
                const double floor = J.rounding_floor(problem.theta);
                const Real error = distance(at.gradient, e.gradient);
                CHECK_AT_MOST(error, floor);
                CHECK_AT_MOST(floor, (1.0 + 1e-13) * at.floor);
                CHECK_AT_MOST(at.floor, (1.0 + 1e-13) * bounded.floor);
                CHECK(std::isfinite(bounded.floor));
                // The bound from the largest row that takes |d1| of the computed eta for d2
                const Vector eta = J.predict(problem.theta);
                const double R = std::hypot(largest_norm, double(fit_intercept));
                double before = 0.0;
                for (Index i = 0; i < 3; ++i) {
                    const double d1 = std::abs(Logistic::d1(problem.y(i), eta(i)));
                    before += problem.s(i) * (7.0 * d1 + std::min(0.25, d1) * 8.0 * R * problem.theta.norm());
                }
                beyond += error > roundoff * R * before + 4.0 * roundoff * problem.theta.norm();
            }
        }
    }
    CHECK(beyond > 0);
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
