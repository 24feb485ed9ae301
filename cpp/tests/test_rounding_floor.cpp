// The rounding floor of a gradient (E19): exact errors stay below it, whatever cancels.
#include "problems.hpp"

using namespace expunge;
using namespace expunge::testing;

namespace {

// What rounding in eta leaves in d1 of row i, in units of u.
double d1_rounding(const Problem& problem, const Exact& e, Index i, double eta_rounding) {
    const double d1 = static_cast<double>(e.d1(i)), y = problem.y(i);
    return std::visit([&](auto loss) { return loss.d1_rounding(d1, eta_rounding, y); }, problem.loss);
}

// E19 by its formula.
Real floor_by_columns(const Problem& problem, const Exact& e, const Stored& layout) {
    const Index n = problem.X.rows(), d = problem.X.cols(), p = problem.penalty.size();
    const double most = double(layout.rows.panel_rows()), panels = std::ceil(double(n) / most);
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
    const double most = double(layout.rows.panel_rows());
    const double k = std::min(double(n), most) + std::ceil(double(n) / most) + 3.0;
    const double norm = std::hypot(problem.X.rowwise().norm().maxCoeff(), double(problem.fit_intercept));
    const double eta_rounding = (layout.row_entries.maxCoeff() + 3.0) * norm * problem.theta.norm();
    Real sum = 0;
    for (Index i = 0; i < n; ++i)
        sum += problem.s(i) * (k * std::abs(e.d1(i)) + d1_rounding(problem, e, i, eta_rounding));
    return roundoff * (norm * sum + 4.0 * problem.penalty.cwiseProduct(problem.theta).norm());
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

}  // namespace

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
