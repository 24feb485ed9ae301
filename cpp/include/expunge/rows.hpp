#pragma once
// A row view: how kernels see a matrix X, whatever its storage. A view gives panels, a panel gives
// four operations (multiply, add_transposed, add_gram, row_sizes); the kernels know nothing else.
// Another storage (CSR) joins as another view with its own panel.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "expunge/types.hpp"

namespace expunge {

constexpr Index panel_rows = 256;  // rows summed before they join the total: p of E19

// Columns [first, first + count) that are kept, side by side.
struct Run {
    Index first, count;
    bool operator==(const Run&) const = default;
};
using Runs = std::vector<Run>;

inline Runs all_columns(Index d) { return {{0, d}}; }

// Scratch memory that grows and is kept: one per thread, so that a kernel allocates once.
class Workspace {
public:
    double* take(Index size) {
        if (size > size_) {
            memory_.reset(new double[static_cast<std::size_t>(size)]);
            size_ = size;
        }
        return memory_.get();
    }

private:
    std::unique_ptr<double[]> memory_;
    Index size_ = 0;
};

// m rows in float64, row-major, of which the columns in `runs` are seen: (m, d).
class DensePanel {
public:
    DensePanel(const double* data, Index m, Index width, Index stride, const Runs& runs, Index d)
        : x_(data, m, width, Eigen::OuterStride<>(stride)), runs_(runs), d_(d) {}

    // eta (m,) = X theta
    void multiply(const VectorRef& theta, Eigen::Ref<Vector> eta) const {
        eta.setZero();
        each_run([&](auto x, Index j) { eta.noalias() += x * theta.segment(j, x.cols()); });
    }

    // g (d,) += X^T r
    void add_transposed(const VectorRef& r, Eigen::Ref<Vector> g) const {
        each_run([&](auto x, Index j) { g.segment(j, x.cols()).noalias() += x.transpose() * r; });
    }

    // H (d, d), lower triangle, += X^T diag(w) X for weights of either sign: one rank update for each
    // sign, over rows scaled by sqrt|w|. Rows of weight 0 cost nothing.
    void add_gram(const VectorRef& w, Eigen::Ref<Matrix> H, Workspace& workspace) const {
        if (d_ == 0) return;
        const Index m = x_.rows();
        Eigen::Map<RowMatrix> scaled(workspace.take(m * d_), m, d_);
        Index positive = 0, negative = m;
        for (Index i = 0; i < m; ++i) {
            if (w(i) == 0.0) continue;
            auto row = scaled.row(w(i) > 0.0 ? positive++ : --negative);
            const double scale = std::sqrt(std::abs(w(i)));
            each_run([&](auto x, Index j) { row.segment(j, x.cols()) = scale * x.row(i); });
        }
        auto lower = H.selfadjointView<Eigen::Lower>();
        if (positive > 0) lower.rankUpdate(scaled.topRows(positive).transpose(), 1.0);
        if (negative < m) lower.rankUpdate(scaled.bottomRows(m - negative).transpose(), -1.0);
    }

    // Squared norms, |x_i|^T |theta| and the number of stored entries of each row, for E19.
    void row_sizes(const VectorRef& theta, Eigen::Ref<Vector> norm2, Eigen::Ref<Vector> x_theta,
                   Eigen::Ref<Vector> stored) const {
        norm2.setZero();
        x_theta.setZero();
        each_run([&](auto x, Index j) {
            norm2 += x.rowwise().squaredNorm();
            x_theta.noalias() += x.cwiseAbs() * theta.segment(j, x.cols()).cwiseAbs();
        });
        stored.setConstant(static_cast<double>(d_));
    }

private:
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
    const Runs& runs_;
    Index d_;
};

// X (n, width) of float32 or float64, C or F order, restricted to `columns`; nothing is owned.
template <class T>
class DenseRows {
public:
    DenseRows(const T* data, Index n, Index row_stride, Index column_stride, Runs columns)
        : data_(data), n_(n), row_stride_(row_stride), column_stride_(column_stride),
          columns_(std::move(columns)) {
        for (const Run& run : columns_) d_ += run.count;
        packed_ = all_columns(d_);
    }

    Index rows() const { return n_; }
    Index columns() const { return d_; }
    bool same_rows(const DenseRows& other) const {
        return data_ == other.data_ && n_ == other.n_ && row_stride_ == other.row_stride_ &&
               column_stride_ == other.column_stride_ && columns_ == other.columns_;
    }

    // Rows that fit the second-level cache together, so that a panel is read from memory once.
    Index rows_in_cache() const {
        return std::max<Index>(8, std::min<Index>(panel_rows, 32768 / std::max<Index>(1, d_)));
    }

    // Rows [first, first + m): X itself where its layout allows, else packed into the workspace.
    DensePanel panel(Index first, Index m, Workspace& workspace) const {
        const T* rows = data_ + first * row_stride_;
        if constexpr (std::is_same_v<T, double>) {
            constexpr Index worthwhile = 8;  // columns in a run, below which packing pays
            const auto runs = static_cast<Index>(columns_.size());
            if (column_stride_ == 1 && d_ > 0 && runs * worthwhile <= d_ + worthwhile)
                return {rows, m, columns_.back().first + columns_.back().count, row_stride_, columns_, d_};
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
        return {packed, m, d_, d_, packed_, d_};
    }

private:
    const T* data_;
    Index n_, row_stride_, column_stride_;
    Runs columns_;  // ascending and apart
    Runs packed_;   // all of a packed panel
    Index d_ = 0;
};

using Rows = std::variant<DenseRows<double>, DenseRows<float>>;

// H (d, d), lower triangle, += X^T diag(w) X.
void add_gram(const Rows& X, const double* w, Eigen::Ref<Matrix> H);

}  // namespace expunge
