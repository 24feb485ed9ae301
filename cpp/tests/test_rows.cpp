// Row views: every layout of X gives the same operations.
#include <array>

#include "problems.hpp"

using namespace expunge;
using namespace expunge::testing;

namespace {

// Calls visit(X, view, layout) for a few shapes, some of them mostly zeros, in every layout.
template <class Visit>
void for_each_layout(Visit&& visit) {
    Random random(1);
    struct Shape {
        Index n, d;
        bool zeros;
    };
    for (const auto& [n, d, zeros] : {Shape{1, 1, false},
                                      {3, 7, false},
                                      {40, 1, false},
                                      {70, 6, false},
                                      {70, 6, true},
                                      {600, 13, false},
                                      {600, 13, true}}) {
        RowMatrix X = random.matrix(n, d);
        if (zeros) X = mostly_zeros(X);
        for (const Stored& layout : layouts(X)) {
            about =
                layout.name + " " + std::to_string(n) + " x " + std::to_string(d) + (zeros ? " zeros" : "");
            visit(X, layout.rows, layout);
        }
    }
    about.clear();
}

// Whether the view holds X, and nothing else is seen.
bool holds(const RowsView& rows, const RowMatrix& X) {
    Workspace packed, wide;
    bool equal = rows.rows() == X.rows() && rows.columns() == X.cols();
    for (Index j = 0; equal && j < X.cols(); ++j) {
        Vector column(X.rows());
        rows.panel(0, X.rows(), packed).multiply(rows.spread(Vector::Unit(X.cols(), j), wide), column);
        equal = column == X.col(j);
    }
    return equal;
}

std::vector<Index> every_other(Index d) {
    std::vector<Index> kept;
    for (Index j = d > 1; j < d; j += 2) kept.push_back(j);
    return kept;
}

// Whole numbers, so that sums are exact in any order.
Vector whole_numbers(Index n, unsigned seed) {
    return (8.0 * Random(seed).vector(n)).array().round().matrix();
}

}  // namespace

// ---- Lists of columns ----

TEST("columns appended one by one make the fewest runs") {
    Runs runs;
    for (const Index column : {2, 3, 4, 7, 9, 10}) append(runs, column);
    CHECK((runs == Runs{{2, 3}, {7, 1}, {9, 2}}));
    CHECK(count(runs) == 6 && count({}) == 0);
}

TEST("a selection of columns counts positions among those that are seen") {
    const Runs runs{{2, 3}, {7, 1}, {9, 2}};  // 2 3 4 7 9 10
    CHECK((select(runs, {0, 1, 2, 3, 4, 5}) == runs));
    CHECK((select(runs, {1, 2, 3, 5}) == Runs{{3, 2}, {7, 1}, {10, 1}}));
    CHECK((select(runs, {3}) == Runs{{7, 1}}));
    CHECK(select(runs, {}).empty());
    CHECK((select({{0, 2}, {2, 2}}, {1, 2}) == Runs{{1, 2}}));
}

// ---- Every layout ----

TEST("a panel of any layout holds exactly the rows of X") {
    for_each_layout([](const RowMatrix& X, const RowsView& rows, const Stored&) {
        Workspace packed, wide;
        CHECK(rows.rows() == X.rows() && rows.columns() == X.cols());
        for (const Index first : {Index(0), X.rows() / 3, X.rows() - 1}) {
            const Index m = std::min<Index>(X.rows() - first, 50);
            const auto panel = rows.panel(first, m, packed);
            for (Index j = 0; j < X.cols(); ++j) {
                Vector column(m);
                panel.multiply(rows.spread(Vector::Unit(X.cols(), j), wide), column);
                CHECK(column == X.col(j).segment(first, m));
            }
        }
    });
}

TEST("add_transposed and collect add X^T r") {
    for_each_layout([](const RowMatrix& X, const RowsView& rows, const Stored&) {
        Workspace workspace;
        const Vector r = Random(2).vector(X.rows());
        for (const double sign : {1.0, -1.0}) {
            Vector sums = Vector::Ones(rows.width()), g = Vector::Constant(X.cols(), 3.0);
            rows.panel(0, X.rows(), workspace).add_transposed(r, sums);
            rows.collect(sums, sign, g);
            for (Index j = 0; j < X.cols(); ++j) {
                Real expected = 3.0 + sign, scale = 4.0;
                for (Index i = 0; i < X.rows(); ++i) {
                    expected += sign * Real(X(i, j)) * r(i);
                    scale += std::abs(X(i, j) * r(i));
                }
                CHECK_AT_MOST(std::abs(g(j) - expected), roundoff * double(X.rows() + 3) * scale);
            }
        }
    });
}

TEST("add_product adds X^T w (X theta + offset), and returns the sum of its terms") {
    for_each_layout([](const RowMatrix& X, const RowsView& rows, const Stored&) {
        Workspace packed, wide;
        const Index m = std::min<Index>(X.rows(), max_panel_rows);
        const Vector theta = Random(9).vector(X.cols()), w = Random(10).vector(m);
        for (const double offset : {0.0, -2.0}) {
            Vector sums = Vector::Zero(rows.width()), g = Vector::Zero(X.cols());
            const double sum =
                rows.panel(0, m, packed).add_product(w, rows.spread(theta, wide), offset, sums);
            rows.collect(sums, 1.0, g);
            const Vector r = w.array() * ((X.topRows(m) * theta).array() + offset);
            const Vector scale = X.topRows(m).cwiseAbs().transpose() * r.cwiseAbs();
            CHECK_AT_MOST((g - X.topRows(m).transpose() * r).norm(), 1e-13 * (1.0 + scale.norm()));
            CHECK_AT_MOST(std::abs(sum - r.sum()), 1e-13 * r.cwiseAbs().sum());
        }
    });
}

TEST("two vectors multiplied at once give what each gives") {
    for_each_layout([](const RowMatrix& X, const RowsView& rows, const Stored&) {
        Workspace packed, wide, memory;
        const Index m = std::min<Index>(X.rows(), max_panel_rows);
        const Vector theta = Random(9).vector(X.cols()), v = Random(10).vector(X.cols());
        const auto panel = rows.panel(0, m, packed);
        Vector x_theta(m), x_v(m), first(m), second(m);
        panel.multiply(rows.spread(theta, wide), x_theta);
        panel.multiply(rows.spread(v, wide), x_v);
        panel.multiply(rows.spread(theta, v, memory), first, second);
        CHECK_AT_MOST((first - x_theta).norm(), 1e-14 * X.norm() * theta.norm());
        CHECK_AT_MOST((second - x_v).norm(), 1e-14 * X.norm() * v.norm());
    });
}

TEST("a panel mapped holds the function of every entry") {
    for_each_layout([](const RowMatrix& X, const RowsView& rows, const Stored&) {
        const auto check_map = [&](Read read, auto f) {
            Workspace packed, wide;
            for (const Index first : {Index(0), X.rows() / 2, X.rows() - 1}) {
                const Index m = std::min<Index>(X.rows() - first, 50);
                const auto mapped = rows.panel(first, m, packed).map(read);
                for (Index j = 0; j < X.cols(); ++j) {
                    const Vector expected = X.col(j).segment(first, m).unaryExpr(f);
                    Vector column(m);
                    mapped.multiply(rows.spread(Vector::Unit(X.cols(), j), wide), column);
                    CHECK(column == expected);
                }
                Vector sums = Vector::Zero(rows.width()), row = Vector::Zero(X.cols());
                mapped.add_transposed(Vector::Unit(m, m - 1), sums);
                rows.collect(sums, 1.0, row);
                CHECK(row == X.row(first + m - 1).transpose().unaryExpr(f));
            }
        };
        check_map(Read::magnitude, [](double x) { return std::abs(x); });
        check_map(Read::square, [](double x) { return x * x; });
    });
}

TEST("a panel without entries can be mapped") {
    RowMatrix X = RowMatrix::Ones(4, 3);
    X.bottomRows(2).setZero();
    for (const Stored& layout : layouts(X)) {
        about = layout.name;
        const RowsView& rows = layout.rows;
        Workspace packed;
        Vector x_theta = Vector::Ones(2);
        const Vector theta = Vector::Zero(rows.width());
        rows.panel(2, 2, packed).map(Read::square).multiply(theta, x_theta);
        CHECK(x_theta.isZero(0.0));
    }
    about.clear();
}

TEST("spread and collect are each other's transpose, and touch only what is seen") {
    for_each_layout([](const RowMatrix& X, const RowsView& rows, const Stored&) {
        Workspace workspace;
        const Vector theta = whole_numbers(X.cols(), 3), sums = whole_numbers(rows.width(), 4);
        Vector g = Vector::Zero(X.cols()), again = g;
        rows.collect(sums, 1.0, g);
        const Vector wide = rows.spread(theta, workspace);
        CHECK(wide.size() == rows.width());
        CHECK(wide.dot(sums) == theta.dot(g));
        CHECK((wide.array() != 0.0).count() == (theta.array() != 0.0).count());
        rows.collect(wide, -1.0, again);
        CHECK(again == -theta);
    });
}

TEST("what is stored is counted, by rows and in all") {
    for_each_layout([](const RowMatrix& X, const RowsView& rows, const Stored& layout) {
        Workspace workspace;
        const Index half = X.rows() / 2;
        const auto panel = rows.panel(half, X.rows() - half, workspace);
        Vector stored(X.rows() - half);
        rows.count_stored(panel, stored);
        for (Index i = half; i < X.rows(); ++i) CHECK(stored(i - half) == layout.row_entries(i));
        CHECK(static_cast<double>(rows.largest_row()) == layout.row_entries.maxCoeff());
        CHECK(rows.entries() == layout.row_entries.sum());
        CHECK(rows.gram_work() >= 0.0);
    });
}

TEST(
    "a term of a column goes through its panel's additions and one for each panel, and never through more "
    "than the column has terms") {
    for_each_layout([](const RowMatrix& X, const RowsView& rows, const Stored& layout) {
        Vector k = Vector::Constant(X.cols(), 0.5);
        rows.add_additions(k);
        const auto p = static_cast<double>(rows.panel_rows());
        for (Index j = 0; j < X.cols(); ++j) {
            const double terms = layout.column_entries(j);
            CHECK(k(j) ==
                  0.5 + std::min(terms, p) + std::min(terms, std::ceil(static_cast<double>(X.rows()) / p)));
        }
    });
}

TEST("a selection of a selection holds the columns at both") {
    for_each_layout([](const RowMatrix& X, const RowsView& rows, const Stored&) {
        const std::vector<Index> kept = every_other(X.cols()), again = every_other(Index(kept.size()));
        std::vector<Index> both;
        for (const Index position : again) both.push_back(kept[static_cast<std::size_t>(position)]);
        CHECK(holds(rows.select(kept), X(Eigen::all, kept)));
        CHECK(holds(rows.select(kept).select(again), X(Eigen::all, both)));
        CHECK(rows.select(kept).select(again).same_rows(rows.select(both)));
        CHECK(!rows.same_rows(rows.select({})));
        CHECK(holds(rows.select({}), RowMatrix(X.rows(), 0)));
    });
}

TEST("a slice holds consecutive rows, of all columns and of some") {
    for_each_layout([](const RowMatrix& X, const RowsView& rows, const Stored&) {
        const std::vector<Index> kept = every_other(X.cols());
        for (const Index first : {Index(0), X.rows() / 2, X.rows() - 1}) {
            const Index m = std::min<Index>(3, X.rows() - first);
            CHECK(holds(rows.slice(first, m), X.middleRows(first, m)));
            const RowMatrix some = X(Eigen::seqN(first, m), kept);
            CHECK(holds(rows.select(kept).slice(first, m), some));
        }
        CHECK(rows.slice(0, X.rows()).same_rows(rows));
        CHECK(holds(rows.slice(0, 0), RowMatrix(0, X.cols())));
    });
}

TEST("the largest norm is that of the longest row") {
    for_each_layout([](const RowMatrix& X, const RowsView&, const Stored& layout) {
        const double longest = X.rowwise().norm().maxCoeff();
        CHECK_AT_MOST(std::abs(layout.rows.largest_norm() - longest), 1e-15 * double(X.cols()) * longest);
    });
    CHECK(RowsView::dense<double>(nullptr, 0, 3, 1, all_columns(3)).largest_norm() == 0.0);
}

TEST("where squares overflow no largest norm is known, even in columns that are not seen") {
    const RowMatrix X = RowMatrix::Constant(9, 2, 3.0);
    const auto matrix = csr<double, std::int32_t>(X, 5, {{1, 1}, {3, 1}}, 1e200);
    CHECK(std::isinf(matrix.rows({{1, 1}, {3, 1}}).largest_norm()));
}

TEST("add_gram adds X^T diag(w) X for weights of either sign and zero, in the lower triangle only") {
    for_each_layout([](const RowMatrix& X, const RowsView&, const Stored& layout) {
        const Index n = X.rows(), d = X.cols();
        Vector w = Random(4).vector(n);
        for (Index i = 0; i < n; i += 3) w(i) = 0.0;
        Matrix H = Matrix::Constant(d, d, 2.0);
        layout.rows.add_gram(w.data(), H);
        for (Index j = 0; j < d; ++j) {
            for (Index k = 0; k <= j; ++k) {
                Real expected = 2.0, scale = 2.0;
                for (Index i = 0; i < n; ++i) {
                    expected += Real(w(i)) * X(i, j) * X(i, k);
                    scale += std::abs(w(i) * X(i, j) * X(i, k));
                }
                CHECK_AT_MOST(std::abs(H(j, k) - expected), roundoff * double(n + 4) * scale);
            }
        }
        for (Index j = 0; j < d; ++j) CHECK((H.col(j).head(j).array() == 2.0).all());
    });
}

TEST("a gram matrix of more columns than the cache holds is that of the others") {
    constexpr Index n = 12, d = 2600;
    RowMatrix X = RowMatrix::Zero(n, d);
    Random random(12);
    for (Index i = 0; i < n; ++i)
        for (Index k = 0; i != 5 && k < 40; ++k)
            X(i, Index(random.uniform() * d)) = std::round(20.0 * random.normal());
    X.col(d - 1).setConstant(2.0);
    Vector w = whole_numbers(n, 13);
    w(3) = 0.0;
    Matrix expected = Matrix::Zero(d, d);
    for (Index i = 0; i < n; ++i)
        for (Index j = 0; j < d; ++j)
            for (Index k = j; X(i, j) != 0.0 && k < d; ++k) expected(k, j) += w(i) * X(i, j) * X(i, k);
    const Runs several{{1, 1000}, {1003, d - 1000}};
    for (const Stored& layout :
         {stored_csr<double, std::int32_t>("CSR", X, d, all_columns(d)),
          stored_csr<float, std::int64_t>("CSR, runs of columns", X, d + 5, several),
          stored_csr<double, std::int64_t>("CSR, zeros stored", X, d, all_columns(d), true)}) {
        about = layout.name;
        Matrix H = Matrix::Zero(d, d);
        layout.rows.add_gram(w.data(), H);
        CHECK(H == expected);
    }
    about.clear();
}

TEST("weights of one sign only, and none at all, are gram matrices too") {
    const RowMatrix X = Random(5).matrix(30, 4);
    const Stored sparse = masked_csr(X);
    for (const RowsView& rows : {rows_of(X), sparse.rows}) {
        for (const double w : {-1.0, 0.0, 1.0}) {
            Matrix H = Matrix::Zero(4, 4);
            rows.add_gram(Vector::Constant(30, w).eval().data(), H);
            CHECK_AT_MOST((symmetric(H) - w * X.transpose() * X).norm(), 1e-13);
        }
    }
}

TEST("rows of weight 0 do not enter a gram matrix, whatever they hold") {
    for (const Index d : {3, 2600}) {
        RowMatrix X = RowMatrix::Zero(20, d);
        X.rightCols(3) = Random(6).matrix(20, 3);
        Vector w = Vector::Ones(20);
        Matrix without = Matrix::Zero(d, d);
        rows_of(X.bottomRows(19)).add_gram(w.data(), without);
        X.row(0).tail(3).setConstant(poison);
        w(0) = 0.0;
        const auto sparse = csr<double, std::int32_t>(X, d, all_columns(d));
        for (const RowsView& rows : std::vector<RowsView>{rows_of(X), sparse.rows(all_columns(d))}) {
            Matrix with = Matrix::Zero(d, d);
            rows.add_gram(w.data(), with);
            CHECK_AT_MOST((with - without).bottomRightCorner(3, 3).norm(), 1e-14);
        }
    }
}

TEST("a gram matrix is added into a block of a larger matrix") {
    const RowMatrix X = Random(7).matrix(9, 3);
    const Vector w = Vector::Ones(9);
    for (const Stored& layout : layouts(X)) {
        about = layout.name;
        Matrix H = Matrix::Zero(5, 5), alone = Matrix::Zero(3, 3);
        layout.rows.add_gram(w.data(), H.topLeftCorner(3, 3));
        layout.rows.add_gram(w.data(), alone);
        CHECK_AT_MOST((H.topLeftCorner(3, 3) - alone).norm(), 1e-15 * alone.norm());
        CHECK(H.bottomRows(2).isZero(0.0) && H.rightCols(2).isZero(0.0));
    }
    about.clear();
}

TEST("rows are the same where they are the same memory, seen in the same way") {
    const RowMatrix X = Random(8).matrix(6, 6), copy = X;
    const auto view = [](const RowMatrix& from, Index n, Index row_stride, Index column_stride) {
        return RowsView::dense<double>(from.data(), n, row_stride, column_stride, all_columns(6));
    };
    const auto rows = view(X, 6, 6, 1);
    CHECK(rows.same_rows(view(X, 6, 6, 1)));
    CHECK(!rows.same_rows(view(copy, 6, 6, 1)));
    CHECK(!rows.same_rows(view(X, 5, 6, 1)));
    CHECK(!rows.same_rows(view(X, 6, 5, 1)));
    CHECK(!rows.same_rows(view(X, 6, 6, 2)));

    const auto sparse = csr<float, std::int64_t>(X, 6, all_columns(6)), other = sparse;
    const auto seen = sparse.rows(all_columns(6));
    CHECK(seen.same_rows(sparse.rows(all_columns(6))));
    CHECK(!seen.same_rows(other.rows(all_columns(6))));
    CHECK(!seen.same_rows(sparse.rows({{0, 5}})));
    CHECK(!seen.same_rows(RowsView::csr(sparse.data.data(), sparse.indices.data(), sparse.indptr.data(), 5, 6,
                                        all_columns(6))));
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
    const auto dense = [](Index d) {
        return RowsView::dense<double>(nullptr, 0, d, 1, all_columns(d)).rows_in_cache();
    };
    CHECK(dense(0) == max_panel_rows);
    CHECK(dense(1) == max_panel_rows);
    CHECK(dense(1000) == 32);
    CHECK(dense(1000000) == 8);
    const auto sparse = [](std::int64_t entries) {  // of 1000 rows; only the last row's end is read
        std::vector<std::int64_t> indptr(1001, 0);
        indptr.back() = entries;
        return RowsView::csr<double, std::int64_t>(nullptr, nullptr, indptr.data(), 1000, 100000000,
                                                   all_columns(100000000))
            .rows_in_cache();
    };
    CHECK(sparse(0) == max_panel_rows);
    CHECK(sparse(1000) == max_panel_rows);
    CHECK(sparse(1000000) == 32);
    CHECK(sparse(1000000000) == 8);
}

TEST("panels grow where rows have few entries of many columns, up to all rows") {
    const auto panel_rows = [](Index width, std::int32_t entries) {  // of 3000 rows
        std::vector<std::int32_t> indptr(3001, 0);
        indptr.back() = entries;
        return RowsView::csr<double, std::int32_t>(nullptr, nullptr, indptr.data(), 3000, width,
                                                   all_columns(width))
            .panel_rows();
    };
    CHECK(panel_rows(100, 300000) == max_panel_rows);
    CHECK(panel_rows(1000000, 15000) == 3000);
    CHECK(panel_rows(100, 0) == 3000);
    Index before = 0;
    for (Index width = 10; width < 1000000; width *= 2) {
        const Index rows = panel_rows(width, 30000);
        CHECK(before <= rows && rows <= 3000);
        if (rows > max_panel_rows && rows < 3000) CHECK(10 * rows >= width);  // entries beside sums
        before = rows;
    }
    CHECK(before == 3000);
}

TEST("rows that hold something in columns of a sparse matrix are found and their entries counted") {
    const RowMatrix X{{1, 0, 2, 0}, {0, 0, 0, 3}, {0, 0, 0, 0}, {4, 5, 6, 7}};
    const auto matrix = csr<float, std::int64_t>(X, 4, all_columns(4), 0.0, true);  // zeros do not count
    const auto find = [&](const std::vector<Index>& columns, const Runs& seen) {
        std::array<bool, 4> found{true, true, true, true};
        return std::pair(matrix.rows(seen).find_rows(columns, found.data()), found);
    };
    using Found = std::pair<Index, std::array<bool, 4>>;
    for (const Runs& seen : {all_columns(4), Runs{{1, 1}}}) {
        CHECK((find({0, 2}, seen) == Found{4, {true, false, false, true}}));
        CHECK((find({3}, seen) == Found{2, {false, true, false, true}}));
        CHECK((find({}, seen) == Found{0, {false, false, false, false}}));
    }
}

TEST("indices are within X up to the largest of their type, and negative ones never are") {
    constexpr std::int32_t last = std::numeric_limits<std::int32_t>::max();
    const double x[] = {1.0, 2.0};
    const std::int32_t indptr[] = {0, 2};
    for (const Index width : {Index(last), Index(last) + 1, 4 * Index(last)}) {
        const auto is_canonical = [&](std::int32_t first, std::int32_t second) {
            const std::int32_t indices[] = {first, second};
            return RowsView::csr(x, indices, indptr, 1, width, all_columns(width), false).is_canonical();
        };
        CHECK(is_canonical(0, last - 1));
        CHECK(!is_canonical(last - 1, 0));
        const std::string outside = "the indices of X point outside of it";
        if (width > last)
            CHECK(is_canonical(0, last));
        else
            CHECK(thrown<std::invalid_argument>([&] { is_canonical(0, last); }) == outside);
        CHECK(thrown<std::invalid_argument>([&] { is_canonical(-1, 0); }) == outside);
        CHECK(thrown<std::invalid_argument>(
                  [&] { is_canonical(0, std::numeric_limits<std::int32_t>::min()); }) == outside);
    }
}
