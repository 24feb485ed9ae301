#pragma once
// A row view: how the core sees a matrix X (n, d) in any storage. It is a value, and owns no memory.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <type_traits>
#include <vector>

#include "expunge/columns.hpp"
#include "expunge/function_ref.hpp"
#include "expunge/types.hpp"

namespace expunge {

// Throws the error that a status stands for. `canonical`: whether the indices of X were checked before.
[[noreturn]] EXPUNGE_COLD void fail(Status status, bool canonical);
inline void require_fine(Status status, bool canonical) {
    if (status != Status::fine) fail(status, canonical);
}

// m rows of f(X), where f is one of Read.
struct RowPanel {
    // X and the list of columns must outlive it. Vectors have an entry for each of width() columns.
    PanelView view;

    // The same rows with another f.
    RowPanel map(Read read) const {
        RowPanel mapped(*this);
        mapped.view.read = read;
        return mapped;
    }

    // eta (m,) = f(X) theta + offset
    void multiply(const VectorRef& theta, Eigen::Ref<Vector> eta, double offset = 0.0) const {
        require_fine(kernels().multiply(view, theta.data(), offset, eta.data()));
    }
    // eta (m,) = X theta + offset, x_v (m,) = X v + v_offset; `both` is RowsView::spread(theta, v).
    void multiply(const VectorRef& both, Eigen::Ref<Vector> eta, Eigen::Ref<Vector> x_v, double offset = 0.0,
                  double v_offset = 0.0) const {
        require_fine(kernels().multiply_two(view, both.data(), offset, v_offset, eta.data(), x_v.data()));
    }
    // g (width,) += f(X)^T r
    void add_transposed(const VectorRef& r, Eigen::Ref<Vector> g) const {
        require_fine(kernels().add_transposed(view, r.data(), g.data()));
    }
    // eta (m, K) = X Theta and g += X^T r, r (m, K), for K vectors as RowsView::spread_many has them.
    void multiply_many(const VectorRef& thetas, Index K, double* eta) const;
    void add_transposed_many(const double* r, Index K, Eigen::Ref<Vector> g) const;
    // g (width,) += X^T r, r = w (X theta + offset); returns the sum of r. The products of all rows come
    // first: row by row, each addition would wait for a product.
    double add_product(const VectorRef& w, const VectorRef& theta, double offset, Eigen::Ref<Vector> g) const;

private:
    void require_fine(Status status) const { expunge::require_fine(status, view.X.canonical); }
};

// The largest index of type I, at most. Kernels read indices as unsigned: negative ones exceed this.
template <class I>
std::size_t at_most_an_index(Index count) {
    return static_cast<std::size_t>(std::min<Index>(count, std::numeric_limits<I>::max()));
}

class RowsView {
public:
    // Entries of row i and column j at i row_stride + j column_stride.
    template <class T>
    static RowsView dense(const T* data, Index n, Index row_stride, Index column_stride, Runs columns) {
        Storage X;
        X.scalar = scalar_of<T>();
        X.data = data;
        X.row_stride = row_stride;
        X.column_stride = column_stride;
        return {X, n, count(columns), std::move(columns)};
    }
    // canonical: whether indices are known to be within X and to ascend in every row; otherwise panels check.
    // stored: the length of data and indices; by default where the last row ends.
    template <class T, class I>
    static RowsView csr(const T* data, const I* indices, const I* indptr, Index n, Index width, Runs columns,
                        bool canonical = true, std::optional<Index> stored = std::nullopt) {
        Storage X;
        X.kind = Kind::csr;
        X.scalar = scalar_of<T>();
        X.index_type = sizeof(I) == 4 ? IndexType::int32 : IndexType::int64;
        X.canonical = canonical;
        X.data = data;
        X.indices = indices;
        X.indptr = indptr;
        X.entries = at_most_an_index<I>(stored.value_or(static_cast<Index>(indptr[n])));
        X.width = width > 0 ? at_most_an_index<I>(width - 1) + 1 : 0;  // its last column has an index
        return {X, n, width, std::move(columns)};
    }

    // X - c is seen from here on, 1 c^T taken off the stored entries, c over the columns as stored; null: X.
    // It must outlive the view. Of CSR rows, columns with another c than 0 must be stored in every row.
    RowsView less(const double* c) const;
    bool shifted() const { return X_.shift != nullptr; }
    // What taking c off rounds, in the product of two entries at most, in units of u (E19).
    double entry_roundings() const { return shifted() ? 2.0 : 0.0; }

    bool dense() const { return X_.kind == Kind::dense; }
    Index rows() const { return n_; }
    Index columns() const { return d_; }  // that are seen
    // The length of the vectors that panels take. spread(theta) widens theta (d,) to it; collect(sums)
    // narrows sums over rows back to (d,).
    Index width() const { return width_; }
    double entries() const { return entries_; }  // stored
    // What add_gram costs where multiply and add_transposed together cost entries().
    double gram_work() const;
    bool same_rows(const RowsView& other) const {
        return X_ == other.X_ && n_ == other.n_ && columns_ == other.columns_;
    }
    RowsView select(const std::vector<Index>& kept) const;  // fewer columns
    RowsView slice(Index first, Index m) const;             // m rows of them
    // X^T: of dense rows only, and where the columns that are seen are one run.
    bool has_transpose() const { return dense() && columns_.size() == 1; }
    RowsView transposed() const;

    Index panel_rows() const;     // rows summed before they join the total: p of E19
    Index rows_in_cache() const;  // how many rows a panel should have, at most max_panel_rows
    // Rows [first, first + m): X itself where its layout allows, else packed into the workspace.
    RowPanel panel(Index first, Index m, Workspace& workspace, Read read = Read::entry) const;

    // How many entries of each row of a panel are stored, of columns that are seen where it is dense (m,).
    void count_stored(const RowPanel& panel, Eigen::Ref<Vector> counts) const;

    VectorRef spread(const VectorRef& theta, Workspace& workspace) const;
    void spread_to(const VectorRef& theta, Eigen::Ref<Vector> wide) const;
    // For panels that multiply two vectors at once.
    VectorRef spread(const VectorRef& theta, const VectorRef& v, Workspace& workspace) const;
    void collect(const VectorRef& sums, double sign, Eigen::Ref<Vector> g) const;
    // The same for K vectors, each `stride` after the one before, in room for together(K): one after the
    // other, but for the entries of CSR rows those for a column side by side, so that one read gets all.
    static Index together(Index K) { return (K + 3) / 4 * 4; }
    void spread_many(const double* theta, Index stride, Index K, Read read, Eigen::Ref<Vector> wide) const;
    void collect_many(const VectorRef& sums, Index K, Read read, double sign, double* g, Index stride) const;

    // k (d,) += how many additions a term of each column's sum takes part in (E19).
    void add_additions(Eigen::Ref<Vector> k) const;
    Index largest_row() const;  // how many entries the fullest row stores

    // Called before rows [first, first + m) of `part`, a slice of X, are read. Each part is one thread's.
    using BeforePanel = FunctionRef<void(Index part, Index first, Index m)>;
    // H (d, d), lower triangle, += X^T diag(w) X for weights of either sign; rows of weight 0 cost nothing.
    // `before` may set the weights of the rows that it is called for.
    void add_gram(const double* w, Eigen::Ref<Matrix> H) const;
    void add_gram(const double* w, Eigen::Ref<Matrix> H, BeforePanel before) const;
    bool gram_by_panels() const { return dense(); }  // whether `before` sees panels, or all rows at once
    Index gram_parts() const;  // into how many slices threads best split that, however many threads there are

    // The largest Euclidean norm of a row; infinity where a square overflows, also in a column not seen.
    double largest_norm() const;
    // The largest sums over columns of w_j (x_j - m_j)^2 and of w_j x_j^2 of rows with positive weight s;
    // null: of any. w >= 0.
    std::pair<double, double> largest_norms2(const VectorRef& w, const VectorRef& m, const double* s) const;

    // ---- CSR only ----
    // Throws unless rows follow each other within the entries.
    void require_order() const;
    // Throws unless indices are within X. Returns whether they ascend in every row, none twice.
    bool is_canonical() const;
    // found[i] (n,) becomes whether row i holds anything but 0 in some of these columns of X as stored.
    // Returns how many entries do.
    Index find_rows(const std::vector<Index>& columns, bool* found) const;

private:
    RowsView(const Storage& X, Index n, Index width, Runs columns);

    template <class T>
    static Scalar scalar_of() {
        static_assert(std::is_same_v<T, double> || std::is_same_v<T, float>);
        return std::is_same_v<T, double> ? Scalar::float64 : Scalar::float32;
    }
    Index index_item() const { return X_.index_type == IndexType::int32 ? 4 : 8; }
    Index item() const { return X_.scalar == Scalar::float64 ? sizeof(double) : sizeof(float); }
    const void* row_at(Index first) const;
    PanelView panel_as_it_lies(Index first, Index m, Read read = Read::entry) const;
    PanelView whole_panel(Index first, Index m, Read read) const;
    PanelView packed_panel(Index first, Index m, Workspace& workspace, Read read = Read::entry) const;
    PanelView csr_panel(Index first, Index m, Read read) const;
    PanelView shifted_csr_panel(Index first, Index m, Workspace& workspace, Read read = Read::entry) const;
    void add_dense_gram(const double* w, Eigen::Ref<Matrix> H, FunctionRef<void(Index, Index)> before) const;
    void add_csr_gram(const double* w, Eigen::Ref<Matrix> H) const;

    Storage X_;
    Index n_, width_, d_;
    Runs columns_;
    Run whole_;       // all d columns of a packed panel
    Run read_;        // all columns that panels read where they lie
    double entries_;  // counted once, so that panels keep one size while others write to X
};

// m rows of X; throws where there are not so many.
RowsView slice(const RowsView& X, Index first, Index m);

// The maximum of `largest` and some squared norms; infinity for NaN, since what overflows has no known bound.
double larger_norm2(double largest, const VectorRef& norm2);

}  // namespace expunge
