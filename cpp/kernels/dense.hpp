#pragma once
// Panels of dense X, float32 or float64, whose rows or columns are contiguous.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <type_traits>
#include <utility>

#include "packed.hpp"

namespace expunge::kernel {

// Lines of numbers, `stride` apart: rows of X, or its columns. F: the function of an entry.
template <class T, class F = Entry>
struct Lines {
    static constexpr Index together = 8;         // lines at a time: the vector is read once for all
    static constexpr Index soon = 2 * together;  // how many lines ahead memory is fetched
    static constexpr Index fetched_at_once = std::max<Index>(tile, 64 / sizeof(T));  // numbers: whole tiles

    const T* first;
    Index count, size, stride;

    const T* line(Index i) const { return first + i * stride; }

    static auto tile_of(const T* x) {
        if constexpr (std::is_same_v<F, Entry>)
            return tile_at(x);
        else
            return TileColumn(F()(tile_at(x)));
    }
    static double number(T x) { return F()(static_cast<double>(x)); }

    // Which lines are fetched while others are read: each of the first `lines` fetches the line `ahead` of
    // it.
    struct Fetched {
        Index lines = 0, ahead = 0;
    };

    // sums (count,) += lines v, v (size,). Every second line fetches, the first one included. near: whether
    // the next lines are also fetched into the first cache.
    void add_products(const double* __restrict v, double* __restrict sums, Fetched fetched, bool near) const {
        const TileColumn last = size < tile ? unseen() : unseen() * tile_at(v + size - tile);
        const Index rest = count - count % together;
        if (near)
            products_of<together, true>(0, rest, v, last, sums, fetched);
        else
            products_of<together, false>(0, rest, v, last, sums, fetched);
        products_of<1, false>(rest, count, v, last, sums, fetched);
    }

    // sums (size,) += lines^T c, c (count,). Every `step`-th line fetches, the last one included.
    template <int step>
    void add_combination(const double* __restrict c, double* __restrict sums, Fetched fetched) const {
        const TileColumn last = unseen();
        const Index rest = count - count % together;
        combination_of<together, step>(0, rest, c, last, sums, fetched);
        combination_of<1, 1>(rest, count, c, last, sums, fetched);
    }

private:
    // The rest of a line after whole tiles is read as one more tile, which ends with the line. The mask is 1
    // for numbers that no tile before had, and 0 for those that one had.
    TileColumn unseen() const {
        TileColumn is;
        for (Index l = 0; l < tile; ++l) is(l) = l >= tile - size % tile ? 1.0 : 0.0;
        return is;
    }

    template <int lines, bool near>
    EXPUNGE_LOOP void products_of(Index begin, Index end, const double* __restrict v, const TileColumn& last,
                                  double* __restrict sums, Fetched fetched) const {
        for (Index i = begin; i < end; i += lines) {
            const Index ahead = i + lines <= fetched.lines ? fetched.ahead : 0;
            TileColumn products[lines];
            for (TileColumn& product : products) product.setZero();
            const T* at[lines];
            for (int k = 0; k < lines; ++k) at[k] = line(i + k);
            const auto add_tile = [&](Index j) {
                const TileColumn shared = tile_at(v + j);
                for (int k = 0; k < lines; ++k) products[k] += tile_of(at[k] + j) * shared;
            };
            Index j = 0;
            for (; j + fetched_at_once <= size; j += fetched_at_once) {
                for (Index t = 0; t < fetched_at_once; t += tile) add_tile(j + t);
                if constexpr (near)
                    for (int k = 0; k < lines; ++k) fetch<Near::first>(at[k] + together * stride + j);
                if (ahead > 0)
                    for (int k = 0; k < lines; k += 2) fetch(at[k] + ahead * stride + j);
            }
            for (; j + tile <= size; j += tile) add_tile(j);
            if (j == size) {
                for (int k = 0; k < lines; ++k) sums[i + k] += products[k].sum();
            } else if (size > tile) {
                for (int k = 0; k < lines; ++k)
                    sums[i + k] += (products[k] + tile_of(line(i + k) + size - tile) * last).sum();
            } else {
                for (int k = 0; k < lines; ++k)
                    for (Index l = 0; l < size; ++l) sums[i + k] += number(line(i + k)[l]) * v[l];
            }
        }
    }

    template <int lines, int step>
    EXPUNGE_LOOP void combination_of(Index begin, Index end, const double* __restrict c,
                                     const TileColumn& last, double* __restrict sums, Fetched fetched) const {
        for (Index i = begin; i < end; i += lines) {
            const Index ahead = i + lines <= fetched.lines ? fetched.ahead : 0;
            const T* at[lines];
            for (int k = 0; k < lines; ++k) at[k] = line(i + k);
            const auto sum_at = [&](Index j, TileColumn sum) {
                TileColumn other = TileColumn::Zero();
                for (int k = 0; k < lines; ++k) (k % 2 ? other : sum) += tile_of(at[k] + j) * c[i + k];
                return TileColumn(sum + other);
            };
            const auto add_tile = [&](Index j) { tile_at(sums + j) = sum_at(j, tile_at(sums + j)); };
            Index j = 0;
            for (; j + fetched_at_once <= size; j += fetched_at_once) {
                for (Index t = 0; t < fetched_at_once; t += tile) add_tile(j + t);
                if (ahead > 0)
                    for (int k = step - 1; k < lines; k += step) fetch(at[k] + ahead * stride + j);
            }
            for (; j + tile <= size; j += tile) add_tile(j);
            if (j == size) continue;
            if (size > tile) {
                tile_at(sums + size - tile) += last * sum_at(size - tile, TileColumn::Zero());
            } else {
                for (; j < size; ++j)
                    for (int k = 0; k < lines; ++k) sums[j] += number(line(i + k)[j]) * c[i + k];
            }
        }
    }
};

// f(X) (m, d) of the columns that are seen.
template <class T, class F = Entry>
class DensePanel {
public:
    explicit DensePanel(const PanelView& view)
        : data_(static_cast<const T*>(view.X.data)), m_(view.m), row_stride_(view.X.row_stride),
          column_stride_(view.X.column_stride), runs_(view.runs), run_count_(view.run_count),
          following_(view.following) {}

    // eta (m,) = X theta. This fetches one half of the next panel, and add_transposed the other, so that
    // memory is always busy.
    void multiply(const double* theta, double* eta) const {
        std::fill_n(eta, m_, 0.0);
        each_run(runs_, run_count_, [&](const Run& run, Index j) {
            if (by_rows())
                rows_of(run).add_products(theta + j, eta, {following_, m_},
                                          following_ > 0 && run.count <= near_columns);
            else
                columns_of(run).template add_combination<1>(theta + j, eta, {run.count, Lines<T, F>::soon});
        });
    }

    // g (d,) += X^T r
    void add_transposed(const double* r, double* g) const {
        each_run(runs_, run_count_, [&](const Run& run, Index j) {
            if (by_rows())
                rows_of(run).template add_combination<2>(r, g + j, {following_, m_});
            else
                columns_of(run).add_products(r, g + j, {}, true);
        });
    }

    // Kernels::pack. Rows or columns must be contiguous.
    void pack(const double* w, const PackedColumns& terms, Index& positive, Index& negative) const {
        Index at[max_panel_rows];
        double scale[max_panel_rows];
        positive = negative = 0;
        for (Index i = 0; i < m_; ++i) {
            scale[i] = std::sqrt(std::abs(w[i]));
            at[i] = w[i] == 0.0 ? max_terms : w[i] > 0.0 ? positive++ : max_terms - ++negative;
        }
        if (by_rows()) {
            for (Index i = 0; i < m_; ++i)
                if (w[i] != 0.0) terms.set(at[i], rows_of(runs_[0]).line(i), scale[i]);
            return;
        }
        each_run(runs_, run_count_, [&](const Run& run, Index j) {
            for (Index k = 0; k < run.count; ++k)
                terms.set_column(j + k, m_, columns_of(run).line(k), scale, at);
        });
        for (Index j = terms.columns(); j < terms.groups() * tile; ++j)
            terms.set_column(j, m_, static_cast<const T*>(nullptr), scale, at);
    }

    // Kernels::copy_seen; the strides may be any.
    void copy_seen(T* to) const {
        const Index d = count(runs_, run_count_);
        each_run(runs_, run_count_, [&](const Run& run, Index at) {
            const T* from = data_ + run.first * column_stride_;
            if (by_rows()) {
                for (Index i = 0; i < m_; ++i)
                    std::copy_n(from + i * row_stride_, run.count, to + i * d + at);
            } else {
                for (Index j = 0; j < run.count; ++j)
                    for (Index i = 0; i < m_; ++i)
                        to[i * d + at + j] = from[i * row_stride_ + j * column_stride_];
            }
        });
    }

    // Kernels::copy_shifted; the strides may be any.
    EXPUNGE_LOOP void copy_shifted(const Storage& X, double* to) const {
        const Index d = count(runs_, run_count_);
        const bool side_by_side = by_rows() && X.shift_column_stride == 1;
        each_run(runs_, run_count_, [&](const Run& run, Index at) {
            for (Index i = 0; i < m_; ++i) {
                const T* x = data_ + i * row_stride_ + run.first * column_stride_;
                const double* c = X.shift + i * X.shift_row_stride + run.first * X.shift_column_stride;
                double* row = to + i * d + at;
                if (side_by_side)
                    for (Index j = 0; j < run.count; ++j) row[j] = static_cast<double>(x[j]) - c[j];
                else
                    for (Index j = 0; j < run.count; ++j)
                        row[j] = static_cast<double>(x[j * column_stride_]) - c[j * X.shift_column_stride];
            }
        });
    }

private:
    // For rows that fit the first cache together with the next ones.
    static constexpr Index near_columns = 16384 / (2 * Lines<T>::together * sizeof(T));

    bool by_rows() const { return column_stride_ == 1; }
    Lines<T, F> rows_of(const Run& run) const { return {data_ + run.first, m_, run.count, row_stride_}; }
    Lines<T, F> columns_of(const Run& run) const {
        return {data_ + run.first * column_stride_, run.count, m_, column_stride_};
    }

    const T* data_;
    Index m_, row_stride_, column_stride_;
    const Run* runs_;
    Index run_count_, following_;
};

}  // namespace expunge::kernel
