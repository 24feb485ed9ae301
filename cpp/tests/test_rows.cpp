// Row views: every layout of X gives the same four operations.
#include "problems.hpp"

using namespace expunge;
using namespace expunge::testing;

namespace {

// Calls visit(X, view, layout's name) for a few shapes in every layout.
template <class Visit>
void for_each_layout(Visit&& visit) {
    Random random(1);
    for (const auto& [n, d] : {std::pair<Index, Index>{1, 1}, {3, 7}, {40, 1}, {70, 6}, {600, 13}}) {
        const RowMatrix X = random.matrix(n, d);
        for (const Stored& layout : layouts(X)) {
            about = layout.name + " " + std::to_string(n) + " x " + std::to_string(d);
            std::visit([&](const auto& rows) { visit(X, rows, layout); }, layout.rows);
        }
    }
}

}  // namespace

TEST("a panel of any layout holds exactly the rows of X") {
    for_each_layout([](const RowMatrix& X, const auto& rows, const Stored&) {
        Workspace workspace;
        CHECK(rows.rows() == X.rows() && rows.columns() == X.cols());
        for (const Index first : {Index(0), X.rows() / 3, X.rows() - 1}) {
            const Index m = std::min<Index>(X.rows() - first, 50);
            const auto panel = rows.panel(first, m, workspace);
            for (Index j = 0; j < X.cols(); ++j) {
                Vector column(m);
                panel.multiply(Vector::Unit(X.cols(), j), column);
                CHECK(column == X.col(j).segment(first, m));
            }
        }
    });
}

TEST("add_transposed adds X^T r") {
    for_each_layout([](const RowMatrix& X, const auto& rows, const Stored&) {
        Workspace workspace;
        const Vector r = Random(2).vector(X.rows());
        Vector g = Vector::Ones(X.cols());
        rows.panel(0, X.rows(), workspace).add_transposed(r, g);
        for (Index j = 0; j < X.cols(); ++j) {
            Real expected = 1.0, scale = 1.0;
            for (Index i = 0; i < X.rows(); ++i) {
                expected += Real(X(i, j)) * r(i);
                scale += std::abs(X(i, j) * r(i));
            }
            CHECK_AT_MOST(std::abs(g(j) - expected), u * double(X.rows() + 2) * scale);
        }
    });
}

TEST("row_sizes are the squared norms, |x|^T |theta| and the numbers of entries") {
    for_each_layout([](const RowMatrix& X, const auto& rows, const Stored&) {
        Workspace workspace;
        const Vector theta = Random(3).vector(X.cols());
        Vector norm2(X.rows()), x_theta(X.rows()), stored(X.rows());
        rows.panel(0, X.rows(), workspace).row_sizes(theta, norm2, x_theta, stored);
        const Vector sizes = X.cwiseAbs() * theta.cwiseAbs();
        CHECK_AT_MOST((norm2 - X.rowwise().squaredNorm()).norm(), 1e-15 * double(X.cols()) * norm2.norm());
        CHECK_AT_MOST((x_theta - sizes).norm(), 1e-15 * double(X.cols()) * sizes.norm());
        CHECK((stored.array() == double(X.cols())).all());
    });
}

TEST("add_gram adds X^T diag(w) X for weights of either sign and zero, in the lower triangle only") {
    for_each_layout([](const RowMatrix& X, const auto&, const Stored& layout) {
        const Index n = X.rows(), d = X.cols();
        Vector w = Random(4).vector(n);
        for (Index i = 0; i < n; i += 3) w(i) = 0.0;
        Matrix H = Matrix::Constant(d, d, 2.0);
        add_gram(layout.rows, w.data(), H);
        for (Index j = 0; j < d; ++j) {
            for (Index k = 0; k <= j; ++k) {
                Real expected = 2.0, scale = 2.0;
                for (Index i = 0; i < n; ++i) {
                    expected += Real(w(i)) * X(i, j) * X(i, k);
                    scale += std::abs(w(i) * X(i, j) * X(i, k));
                }
                CHECK_AT_MOST(std::abs(H(j, k) - expected), u * double(n + 4) * scale);
            }
        }
        for (Index j = 0; j < d; ++j) CHECK((H.col(j).head(j).array() == 2.0).all());
    });
}

TEST("weights of one sign only, and none at all, are gram matrices too") {
    const RowMatrix X = Random(5).matrix(30, 4);
    const Rows rows = rows_of(X);
    for (const double w : {-1.0, 0.0, 1.0}) {
        Matrix H = Matrix::Zero(4, 4);
        add_gram(rows, Vector::Constant(30, w).eval().data(), H);
        CHECK_AT_MOST((symmetric(H) - w * X.transpose() * X).norm(), 1e-13);
    }
}

TEST("rows of weight 0 do not enter a gram matrix, whatever they hold") {
    RowMatrix X = Random(6).matrix(20, 3);
    Vector w = Vector::Ones(20);
    Matrix without = Matrix::Zero(3, 3), with = without;
    add_gram(rows_of(X.bottomRows(19)), w.data(), without);
    X.row(0).setConstant(poison);
    w(0) = 0.0;
    add_gram(rows_of(X), w.data(), with);
    CHECK(symmetric(with) == symmetric(without));
}

TEST("a gram matrix is added into a block of a larger matrix") {
    const RowMatrix X = Random(7).matrix(9, 3);
    Matrix H = Matrix::Zero(5, 5), alone = Matrix::Zero(3, 3);
    const Vector w = Vector::Ones(9);
    add_gram(rows_of(X), w.data(), H.topLeftCorner(3, 3));
    add_gram(rows_of(X), w.data(), alone);
    CHECK_AT_MOST((H.topLeftCorner(3, 3) - alone).norm(), 1e-15 * alone.norm());
    CHECK(H.bottomRows(2).isZero(0.0) && H.rightCols(2).isZero(0.0));
}

TEST("rows are the same where they are the same memory, seen in the same way") {
    const RowMatrix X = Random(8).matrix(6, 6), copy = X;
    const auto view = [](const RowMatrix& from, Index n, Index row_stride, Index column_stride) {
        return DenseRows<double>(from.data(), n, row_stride, column_stride, all_columns(6));
    };
    const auto rows = view(X, 6, 6, 1);
    CHECK(rows.same_rows(view(X, 6, 6, 1)));
    CHECK(!rows.same_rows(view(copy, 6, 6, 1)));
    CHECK(!rows.same_rows(view(X, 5, 6, 1)));
    CHECK(!rows.same_rows(view(X, 6, 5, 1)));
    CHECK(!rows.same_rows(view(X, 6, 6, 2)));
}

TEST("a workspace grows and is kept") {
    Workspace workspace;
    double* small = workspace.take(10);
    CHECK(workspace.take(5) == small);
    double* large = workspace.take(100000);
    large[99999] = 1.0;
    CHECK(workspace.take(10) == large);
}

TEST("rows that share the cache are at least 8 and at most a panel") {
    const auto rows_in_cache = [](Index d) {
        return DenseRows<double>(nullptr, 0, d, 1, all_columns(d)).rows_in_cache();
    };
    CHECK(rows_in_cache(0) == panel_rows);
    CHECK(rows_in_cache(1) == panel_rows);
    CHECK(rows_in_cache(1000) == 32);
    CHECK(rows_in_cache(1000000) == 8);
}
