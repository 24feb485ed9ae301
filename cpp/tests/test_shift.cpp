// Rows less a shift of their columns, and factors from rows, where a Hessian has no digits left (E43).
#include <Eigen/QR>
#include <optional>

#include "expunge/errors.hpp"
#include "expunge/newton.hpp"
#include "expunge/statistics.hpp"
#include "problems.hpp"

using namespace expunge;
using namespace expunge::testing;

namespace {

// A shift of whole numbers, and X + it: both are exact, and nothing of X is 0, so that CSR stores all of it.
Vector whole_shift(Index d) {
    return Vector::NullaryExpr(d, [](Index j) { return double(j % 3 == 0 ? 1024 * (j + 1) : 0); });
}
RowMatrix on_a_grid(const RowMatrix& X) {
    return X.unaryExpr([](double x) { return x == 0.0 ? 0.25 : std::round(4.0 * x) / 4.0 + 0.125; });
}

// X + c in memory, in some layout, seen less c.
struct Moved {
    std::string name;
    RowMatrix by_rows;
    Matrix by_columns;
    Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> floats;
    std::vector<std::int32_t> indices, indptr;
    Vector c;
    std::optional<RowsView> rows;
};

std::vector<std::shared_ptr<const Moved>> moved_layouts(const RowMatrix& X, const Vector& c) {
    std::vector<std::shared_ptr<const Moved>> all;
    const Index n = X.rows(), d = X.cols();
    const RowMatrix moved = X.rowwise() + c.transpose();
    const auto add = [&](const char* name, auto&& view) {
        const auto held = std::make_shared<Moved>();
        held->name = name;
        held->c = c;
        RowsView rows = view(*held);
        held->rows = rows.less(held->c.data());
        all.push_back(held);
    };
    add("by rows", [&](Moved& held) {
        held.by_rows = moved;
        return rows_of(held.by_rows);
    });
    add("by columns", [&](Moved& held) {
        held.by_columns = moved;
        return RowsView::dense<double>(held.by_columns.data(), n, 1, n, all_columns(d));
    });
    add("float32", [&](Moved& held) {
        held.floats = moved.cast<float>();
        return RowsView::dense<float>(held.floats.data(), n, d, 1, all_columns(d));
    });
    add("among other columns", [&](Moved& held) {
        held.by_rows = RowMatrix::Constant(n, d + 5, poison);
        held.by_rows.middleCols(2, d) = moved;
        held.c = Vector::Constant(d + 5, poison);
        held.c.segment(2, d) = c;
        return RowsView::dense<double>(held.by_rows.data(), n, d + 5, 1, {{2, d}});
    });
    add("CSR", [&](Moved& held) {
        held.by_rows = moved;
        for (Index i = 0; i <= n; ++i) held.indptr.push_back(static_cast<std::int32_t>(i * d));
        for (Index k = 0; k < n * d; ++k) held.indices.push_back(static_cast<std::int32_t>(k % d));
        return RowsView::csr(held.by_rows.data(), held.indices.data(), held.indptr.data(), n, d,
                             all_columns(d));
    });
    return all;
}

template <class Visit>
void for_each_problem_on_a_grid(Visit&& visit) {
    for_each_problem([&](const Problem& given) {
        Problem problem = given;
        problem.X = on_a_grid(given.X);
        if (problem.X.cwiseAbs().maxCoeff() < 1e3) visit(problem);
    });
}

}  // namespace

TEST("in every layout, rows less a shift are the rows that it was added to") {
    for_each_problem_on_a_grid([](const Problem& problem) {
        const Vector c = whole_shift(problem.X.cols());
        const Objective J = problem.objective();
        const Evaluation at = J.evaluate(problem.theta);
        const Matrix H = J.hessian(problem.theta);
        const Vector v = Random(3).vector(problem.theta.size());
        for (const auto& layout : moved_layouts(problem.X, c)) {
            about = problem.name + " " + layout->name;
            const Objective K = problem.on(*layout->rows);
            const Evaluation found = K.evaluate(problem.theta);
            CHECK_AT_MOST((found.gradient - at.gradient).norm(), 1e-10 * (1.0 + at.gradient.norm()));
            CHECK_AT_MOST(std::abs(found.value - at.value), 1e-10 * (1.0 + std::abs(at.value)));
            CHECK_AT_MOST((K.hessian(problem.theta) - H).norm(), 1e-10 * (1.0 + H.norm()));
            CHECK_AT_MOST((K.hvp_at(problem.theta, v) - J.hvp_at(problem.theta, v)).norm(),
                          1e-10 * (1.0 + H.norm() * v.norm()));
            CHECK_AT_MOST(std::abs(K.gram_norm_bound() - J.gram_norm_bound()),
                          1e-10 * (1.0 + J.gram_norm_bound()));
            const double floor = K.rounding_floor(problem.theta);
            CHECK(floor >= 0.3 * J.rounding_floor(problem.theta));
            CHECK_AT_MOST((found.gradient - at.gradient).norm(), floor + J.rounding_floor(problem.theta));
        }
    });
    about.clear();
}

TEST("slices, selections and the transpose keep their shift") {
    const RowMatrix X = on_a_grid(Random(2).matrix(9, 20));
    const Vector c = whole_shift(20);
    Workspace packed, wide;
    for (const auto& layout : moved_layouts(X, c)) {
        about = layout->name;
        const RowsView& less = *layout->rows;
        const RowsView part = slice(less, 3, 4).select({0, 3, 4, 19});
        const Vector v = Random(5).vector(4);
        Vector eta(4);
        part.panel(0, 4, packed).multiply(part.spread(v, wide), eta);
        const Vector expected = X.middleRows(3, 4)(Eigen::all, std::vector<Index>{0, 3, 4, 19}) * v;
        CHECK_AT_MOST((eta - expected).norm(), 1e-12 * (1.0 + expected.norm()));
        CHECK_AT_MOST(std::abs(less.largest_norm() - X.rowwise().norm().maxCoeff()), 1e-12);
        if (!less.has_transpose()) continue;
        Matrix K = Matrix::Zero(9, 9);
        const Vector ones = Vector::Ones(20);
        less.transposed().add_gram(ones.data(), K);
        CHECK_AT_MOST((symmetric(K) - X * X.transpose()).norm(), 1e-10);
    }
    about.clear();
}

TEST("a ridge in the dual takes the shift too") {
    const RowMatrix X = on_a_grid(Random(7).matrix(12, 40));
    const Vector c = whole_shift(40), y = Random(8).vector(12);
    const RowMatrix moved = X.rowwise() + c.transpose();
    Vector penalty = Vector::Ones(41);
    penalty(40) = 0.0;
    const auto fit = [&](const RowsView& rows) {
        const Objective J({{rows, y.data(), nullptr}}, Squared{}, penalty, true);
        return minimize(
                   J, Vector::Zero(41), 1e-9, 20, nullptr, std::nullopt, [] {}, all_coordinates, true)
            .theta;
    };
    const Vector plain = fit(rows_of(X));
    CHECK_AT_MOST((fit(rows_of(moved).less(c.data())) - plain).norm(), 1e-9 * (1.0 + plain.norm()));
}

TEST("a factor from rows is that of their Gram matrix, and keeps digits that it loses") {
    for (const Index p : {1, 3, 40}) {
        const Matrix A = Random(4).matrix(3 * p + 300, p);
        Index row = 0;
        const auto fill = [&](Eigen::Ref<Matrix> room) {
            const Index m = std::min(room.rows(), A.rows() - row);
            room.setZero();
            room.topRows(m) = A.middleRows(row, m);
            row += m;
            return m;
        };
        const CholeskyFactor factor = CholeskyFactor::of_rows(p, fill);
        const Matrix L = factor.lower().triangularView<Eigen::Lower>();
        CHECK_AT_MOST((L * L.transpose() - A.transpose() * A).norm(), 1e-12 * (A.transpose() * A).norm());
    }
    RowMatrix X = Random(6).matrix(50, 3);
    X.row(17) *= 1e10;
    const Vector y = Random(9).vector(50), penalty = Vector::Ones(3);
    const Objective J({{rows_of(X), y.data(), nullptr}}, Squared{}, penalty, false);
    const Matrix H = J.hessian(Vector::Zero(3));
    CHECK(thrown<NotPositiveDefinite>([&] { CholeskyFactor whole(H); }) != "nothing was thrown");
    const Anchor anchor(J, Vector::Zero(3));
    CHECK(anchor.factored_from_rows());
    RealMatrix A(53, 3);
    A << X.cast<Real>(), RealMatrix::Identity(3, 3);
    const RealMatrix R = Eigen::HouseholderQR<RealMatrix>(A).matrixQR().topRows(3);
    const Vector b = Vector::Ones(3);
    RealVector x = b.cast<Real>();
    R.triangularView<Eigen::Upper>().transpose().solveInPlace(x);
    R.triangularView<Eigen::Upper>().solveInPlace(x);
    CHECK_AT_MOST((anchor.solve(b) - x.cast<double>()).norm(), 1e-3 * double(x.norm()));
}

TEST("what columns cannot tell apart has no factor from rows either, and the cause is said") {
    RowMatrix X = RowMatrix::Ones(16, 2);  // the second pivot of H is 0
    const Objective repeated({{rows_of(X), nullptr, nullptr}}, Squared{}, Vector::Zero(2), false);
    CHECK(thrown<NotPositiveDefinite>([&] { Anchor anchor(repeated, Vector::Zero(2)); }) ==
          not_positive_definite(1));
    X = 1e200 * Random(6).matrix(16, 2);
    const Objective large({{rows_of(X), nullptr, nullptr}}, Squared{}, Vector::Ones(2), false);
    CHECK(thrown<NotPositiveDefinite>([&] {
              Anchor anchor(large, Vector::Zero(2));
          }).find("squares of X overflow") != std::string::npos);
}

TEST("statistics take what was measured as their anchor, and forget what edits have rounded") {
    const Problem problem = make_problem("plain", 60, 5, Squared{}, true);
    const Objective J = problem.objective();
    const double longest = problem.X.rowwise().norm().maxCoeff();
    AnchoredStatistics edited(J, std::make_shared<const Anchor>(J, problem.theta), J.evaluate(problem.theta),
                              J.rounding_floor(problem.theta), longest);
    const Objective one({{slice(rows_of(problem.X), 0, 1), problem.y.data(), problem.s.data()}}, Squared{},
                        Vector::Zero(6), true);
    for (int k = 0; k < 50; ++k) edited = edited.edit(&one, nullptr).edit(nullptr, &one);
    const double before = edited.gradient_error();
    const auto step = edited.step();
    const double floor = J.rounding_floor(step.theta);
    const AnchoredStatistics measured = edited.measure(step.theta, J.evaluate(step.theta), floor);
    CHECK(measured.gradient_error() == floor && floor < before);
    CHECK_AT_MOST(measured.step().bound, step.bound);
    CHECK_AT_MOST(J.evaluate(measured.step().theta).residual(), measured.step().bound + floor);
    const Problem curved = make_problem("plain", 60, 5, Logistic{}, true);
    const Objective K = curved.objective();
    const AnchoredStatistics there(K, std::make_shared<const Anchor>(K, curved.theta),
                                   K.evaluate(curved.theta), 1e-9, longest);
    CHECK(!thrown<std::invalid_argument>([&] {
               there.measure(2.0 * curved.theta, K.evaluate(curved.theta), 1e-9);
           }).empty());
    CHECK(there.measure(curved.theta, K.evaluate(curved.theta), 1e-12).gradient_error() == 1e-12);
}
