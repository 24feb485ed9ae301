#pragma once
// X of float32 or float64 in C or F order, or any other two strides.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <type_traits>
#include <utility>

#include "expunge/packed.hpp"

namespace expunge {

// m rows in float64, row-major, of which the columns in `runs` are seen: (m, d).
class DensePanel {
public:
    // `runs` and `whole`, all of d columns, must outlive the panel.
    DensePanel(const double* data, Index m, Index width, Index stride, const Runs& runs, const Runs& whole)
        : x_(data, m, width, Eigen::OuterStride<>(stride)), runs_(runs), whole_(whole) {}

    // eta (m,) = X theta
    void multiply(const VectorRef& theta, Eigen::Ref<Vector> eta) const {
        eta.setZero();
        each_run([&](auto x, Index j) { eta.noalias() += x * theta.segment(j, x.cols()); });
    }

    // g (d,) += X^T r
    void add_transposed(const VectorRef& r, Eigen::Ref<Vector> g) const {
        each_run([&](auto x, Index j) { g.segment(j, x.cols()).noalias() += x.transpose() * r; });
    }

    // g (d,) += X^T r, r = w (X theta + offset); returns the sum of r.
    double add_product(const VectorRef& w, const VectorRef& theta, double offset,
                       Eigen::Ref<Vector> g) const {
        double memory[max_panel_rows];
        Eigen::Map<Vector> r(memory, x_.rows());
        multiply(theta, r);
        r = w.cwiseProduct((r.array() + offset).matrix());
        add_transposed(r, g);
        return r.sum();
    }

    // norm2 (m,) = |x_i|^2, sums (m,) = |x_i|^T sizes. `ones` (d,) is what says where a column is seen.
    void measure(const VectorRef&, const VectorRef& sizes, Eigen::Ref<Vector> norm2,
                 Eigen::Ref<Vector> sums) const {
        norm2.setZero();
        sums.setZero();
        each_run([&](auto x, Index j) {
            const auto of_run = sizes.segment(j, x.cols());
            for (Index i = 0; i < x.rows(); ++i) {
                norm2(i) += x.row(i).squaredNorm();
                sums(i) += x.row(i).cwiseAbs().dot(of_run);
            }
        });
    }

    // The panel of f(x_ij), in the workspace.
    template <class F>
    DensePanel map(F f, Workspace& workspace) const {
        const Index m = x_.rows(), d = columns();
        Eigen::Map<RowMatrix> mapped(workspace.take(m * d), m, d);
        each_run([&](auto x, Index j) { mapped.middleCols(j, x.cols()) = x.unaryExpr(f); });
        return {mapped.data(), m, d, d, whole_, whole_};
    }

    // Stored entries of row i.
    Index stored(Index) const { return columns(); }

    // Terms of a Gram matrix: rows of weight w != 0, times sqrt|w|, the positive ones from the first on, the
    // others from the last back. Returns how many of each.
    std::pair<Index, Index> pack(const double* w, const Packed& terms, Workspace& workspace) const {
        Index positive = 0, negative = 0;
        double* memory = runs_.size() > 1 ? workspace.take(columns()) : nullptr;
        for (Index i = 0; i < x_.rows(); ++i) {
            if (w[i] == 0.0) continue;
            const double* row = x_.data() + i * x_.outerStride() + runs_[0].first;
            if (memory) {
                each_run([&](auto x, Index j) { Eigen::Map<Vector>(memory + j, x.cols()) = x.row(i); });
                row = memory;
            }
            terms.set(w[i] > 0.0 ? positive++ : Packed::max_terms - ++negative, row,
                      std::sqrt(std::abs(w[i])));
        }
        return {positive, negative};
    }

private:
    Index columns() const { return whole_.front().count; }

    // visit(the columns of one run, the position of the first of them among all seen)
    template <class Visit>
    void each_run(Visit&& visit) const {
        Index j = 0;
        for (const Run& run : runs_) {
            visit(x_.middleCols(run.first, run.count), j);
            j += run.count;
        }
    }

    Eigen::Map<const RowMatrix, 0, Eigen::OuterStride<>> x_;
    const Runs &runs_, &whole_;
};

template <class T>
class DenseRows {
public:
    DenseRows(const T* data, Index n, Index row_stride, Index column_stride, Runs columns)
        : data_(data), n_(n), row_stride_(row_stride), column_stride_(column_stride),
          columns_(std::move(columns)), d_(count(columns_)), whole_(all_columns(d_)) {}

    Index rows() const { return n_; }
    Index columns() const { return d_; }
    Index width() const { return d_; }
    double entries() const { return static_cast<double>(n_) * static_cast<double>(d_); }
    double gram_work() const { return entries() * static_cast<double>(d_) / 32.0; }
    bool same_rows(const DenseRows& other) const {
        return data_ == other.data_ && n_ == other.n_ && row_stride_ == other.row_stride_ &&
               column_stride_ == other.column_stride_ && columns_ == other.columns_;
    }
    DenseRows select(const std::vector<Index>& kept) const {
        return {data_, n_, row_stride_, column_stride_, expunge::select(columns_, kept)};
    }
    DenseRows slice(Index first, Index m) const {
        return {data_ + first * row_stride_, m, row_stride_, column_stride_, columns_};
    }

    Index panel_rows() const { return max_panel_rows; }

    // So many that they fit the second-level cache together: a panel is read from memory once.
    Index rows_in_cache() const {
        return std::max<Index>(8, std::min<Index>(max_panel_rows, 32768 / std::max<Index>(1, d_)));
    }

    VectorRef spread(const VectorRef& theta, Workspace&) const { return theta; }
    void collect(const VectorRef& sums, double sign, Eigen::Ref<Vector> g) const { g += sign * sums; }
    void add_additions(Eigen::Ref<Vector> k) const {
        const Index p = panel_rows();
        k.array() += static_cast<double>(std::min(n_, p) + (n_ + p - 1) / p);
    }
    Index largest_row() const { return d_; }

    // Rows [first, first + m): X itself where its layout allows, else packed into the workspace.
    DensePanel panel(Index first, Index m, Workspace& workspace) const {
        const T* rows = data_ + first * row_stride_;
        if constexpr (std::is_same_v<T, double>) {
            constexpr Index worthwhile = 8;  // columns in a run, below which packing pays
            const auto runs = static_cast<Index>(columns_.size());
            if (column_stride_ == 1 && d_ > 0 && runs * worthwhile <= d_ + worthwhile)
                return {rows,        m,        columns_.back().first + columns_.back().count,
                        row_stride_, columns_, whole_};
        }
        double* packed = workspace.take(m * d_);
        Index to = 0;
        for (const Run& run : columns_) {
            const T* from = rows + run.first * column_stride_;
            if (column_stride_ == 1) {
                for (Index i = 0; i < m; ++i)
                    for (Index j = 0; j < run.count; ++j)
                        packed[i * d_ + to + j] = static_cast<double>(from[i * row_stride_ + j]);
            } else {
                for (Index j = 0; j < run.count; ++j)
                    for (Index i = 0; i < m; ++i)
                        packed[i * d_ + to + j] =
                            static_cast<double>(from[i * row_stride_ + j * column_stride_]);
            }
            to += run.count;
        }
        return {packed, m, d_, d_, whole_, whole_};
    }

    // Each slice takes a matrix (d, d) of its own: little beside X, and beside the cache.
    Index gram_parts() const {
        constexpr Index most = 8, least_rows = 512, memory = Index(1) << 22;
        return std::max<Index>(1, std::min({most, n_ / least_rows, memory / std::max<Index>(1, d_ * d_)}));
    }

    // Rows of weight 0 cost nothing.
    void add_gram(const double* w, Eigen::Ref<Matrix> H) const {
        thread_local Workspace packed, row, memory;
        if (d_ == 0) return;
        const Packed terms(memory, d_);
        for (Index first = 0; first < n_; first += max_panel_rows) {
            const Index m = std::min(max_panel_rows, n_ - first);
            const auto [positive, negative] = panel(first, m, packed).pack(w + first, terms, row);
            expunge::add_gram(H, terms, 0, positive, 1.0, rows_at(first + m));
            if (negative > 0) expunge::add_gram(H, terms, Packed::max_terms - negative, negative, -1.0);
        }
    }

private:
    // The next panel, if it is one piece of memory.
    Ahead rows_at(Index first) const {
        if constexpr (std::is_same_v<T, double>)
            if (column_stride_ == 1 && row_stride_ == d_ && columns_.size() == 1)
                return {data_ + first * d_, std::min(max_panel_rows, n_ - first) * d_};
        return {};
    }

    const T* data_;
    Index n_, row_stride_, column_stride_;
    Runs columns_;
    Index d_;
    Runs whole_;  // all d columns of a packed panel
};

}  // namespace expunge
