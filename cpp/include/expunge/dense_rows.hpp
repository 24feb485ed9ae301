#pragma once
// X of float32 or float64 in C or F order, or any other two strides.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <type_traits>
#include <utility>

#include "expunge/packed.hpp"

namespace expunge {

// Lines of numbers, `stride` apart: rows of X, or its columns. F: what is read of each.
template <class T, class F = Entry>
struct Lines {
    static constexpr Index together = 8;         // lines: what they share is read once for all
    static constexpr Index soon = 2 * together;  // lines from here to those that are fetched from memory
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

    // Lines that are fetched from memory while others are read: each of the first `lines` fetches the one so
    // many `ahead`.
    struct Fetched {
        Index lines = 0, ahead = 0;
    };

    // sums (count,) += lines v, v (size,). Every second line fetches, from the first on. near: whether the
    // next lines are fetched into the first cache, too.
    void add_products(const double* __restrict v, double* __restrict sums, Fetched fetched, bool near) const {
        const TileColumn last = size < tile ? unseen() : unseen() * tile_at(v + size - tile);
        const Index rest = count - count % together;
        if (near)
            products_of<together, true>(0, rest, v, last, sums, fetched);
        else
            products_of<together, false>(0, rest, v, last, sums, fetched);
        products_of<1, false>(rest, count, v, last, sums, fetched);
    }

    // sums (size,) += lines^T c, c (count,). Every `step`-th line fetches, to the last.
    template <int step>
    void add_combination(const double* __restrict c, double* __restrict sums, Fetched fetched) const {
        const TileColumn last = unseen();
        const Index rest = count - count % together;
        combination_of<together, step>(0, rest, c, last, sums, fetched);
        combination_of<1, 1>(rest, count, c, last, sums, fetched);
    }

private:
    // What is left of a line after whole tiles is read as one more tile, that ends with the line: 1 where it
    // has what the others had not, 0 where it has what they had.
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

// m rows, of which the columns in `runs` are seen: f(X) (m, d). One of the two strides is 1.
template <class T, class F = Entry>
class DensePanel {
public:
    // `runs` must outlive the panel. `following` rows of the same layout come after these.
    DensePanel(const T* data, Index m, Index row_stride, Index column_stride, const Runs& runs,
               Index following = 0)
        : data_(data), m_(m), row_stride_(row_stride), column_stride_(column_stride), runs_(runs),
          following_(following) {}

    // The same rows, of which f is read.
    template <class G>
    DensePanel<T, G> map(G) const {
        return {data_, m_, row_stride_, column_stride_, runs_, following_};
    }

    // eta (m,) = X theta. This and add_transposed fetch half each of the panel that follows: memory is busy
    // all the time.
    void multiply(const VectorRef& theta, Eigen::Ref<Vector> eta) const {
        eta.setZero();
        each_run([&](const Run& run, Index j) {
            if (by_rows())
                rows_of(run).add_products(theta.data() + j, eta.data(), {following_, m_},
                                          following_ > 0 && run.count <= near_columns);
            else
                columns_of(run).template add_combination<1>(theta.data() + j, eta.data(),
                                                            {run.count, Lines<T, F>::soon});
        });
    }

    // eta (m,) = X theta, x_v (m,) = X v, where `both` holds one after the other.
    void multiply(const VectorRef& both, Eigen::Ref<Vector> eta, Eigen::Ref<Vector> x_v) const {
        multiply(both.head(both.size() / 2), eta);
        multiply(both.tail(both.size() / 2), x_v);
    }

    // g (d,) += X^T r
    void add_transposed(const VectorRef& r, Eigen::Ref<Vector> g) const {
        each_run([&](const Run& run, Index j) {
            if (by_rows())
                rows_of(run).template add_combination<2>(r.data(), g.data() + j, {following_, m_});
            else
                columns_of(run).add_products(r.data(), g.data() + j, {}, true);
        });
    }

    // g (d,) += X^T r, r = w (X theta + offset); returns the sum of r.
    double add_product(const VectorRef& w, const VectorRef& theta, double offset,
                       Eigen::Ref<Vector> g) const {
        double memory[max_panel_rows];
        Eigen::Map<Vector> r(memory, m_);
        multiply(theta, r);
        for (Index i = 0; i < m_; ++i) r(i) = weighted(w(i), r(i) + offset);
        add_transposed(r, g);
        return r.sum();
    }

    // Stored entries of row i.
    Index stored(Index) const { return count(runs_); }

    // Terms of a Gram matrix: rows of weight w != 0, times sqrt|w|, the positive ones from the first on, the
    // others from the last back. Returns how many of each. Rows, if not columns, must be in one piece.
    std::pair<Index, Index> pack(const double* w, const Packed& terms) const {
        Index positive = 0, negative = 0, at[max_panel_rows];
        double scale[max_panel_rows];
        for (Index i = 0; i < m_; ++i) {
            scale[i] = std::sqrt(std::abs(w[i]));
            at[i] = w[i] == 0.0  ? Packed::max_terms
                    : w[i] > 0.0 ? positive++
                                 : Packed::max_terms - ++negative;
        }
        if (by_rows()) {
            for (Index i = 0; i < m_; ++i)
                if (w[i] != 0.0) terms.set(at[i], rows_of(runs_[0]).line(i), scale[i]);
            return {positive, negative};
        }
        each_run([&](const Run& run, Index j) {
            for (Index k = 0; k < run.count; ++k)
                terms.set_column(j + k, m_, columns_of(run).line(k), scale, at);
        });
        for (Index j = terms.columns(); j < terms.groups() * tile; ++j)
            terms.set_column(j, m_, static_cast<const T*>(nullptr), scale, at);
        return {positive, negative};
    }

private:
    // Of rows that go into the first cache together with those that come next.
    static constexpr Index near_columns = 16384 / (2 * Lines<T>::together * sizeof(T));

    bool by_rows() const { return column_stride_ == 1; }
    Lines<T, F> rows_of(const Run& run) const { return {data_ + run.first, m_, run.count, row_stride_}; }
    Lines<T, F> columns_of(const Run& run) const {
        return {data_ + run.first * column_stride_, run.count, m_, column_stride_};
    }

    // visit(a run, the position of the first of its columns among all seen)
    template <class Visit>
    void each_run(Visit&& visit) const {
        Index j = 0;
        for (const Run& run : runs_) {
            visit(run, j);
            j += run.count;
        }
    }

    const T* data_;
    Index m_, row_stride_, column_stride_;
    const Runs& runs_;
    Index following_;
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

    // X^T, where the columns that are seen are one run.
    bool has_transpose() const { return columns_.size() == 1; }
    DenseRows transposed() const {
        return {data_ + columns_[0].first * column_stride_, d_, column_stride_, row_stride_, all_columns(n_)};
    }

    Index panel_rows() const { return max_panel_rows; }
    static constexpr bool gram_by_panels = true;

    // So many rows that a panel, when it is read again, is in the first cache, or else some in the second;
    // whole groups. Columns are best long, even where they are read again from memory.
    Index rows_in_cache() const {
        if (column_stride_ != 1) return max_panel_rows;
        constexpr Index group = Lines<T>::together, some = 4 * group, first = 25600 / sizeof(T),
                        second = 32768;
        const Index d = std::max<Index>(1, d_);
        const Index fit = first / d >= group ? first / d : std::min(some, second / d);
        return std::max(group, std::min(max_panel_rows, fit) / group * group);
    }

    VectorRef spread(const VectorRef& theta, Workspace&) const { return theta; }
    // As panels multiply two vectors at once.
    VectorRef spread(const VectorRef& theta, const VectorRef& v, Workspace& workspace) const {
        Eigen::Map<Vector> both(workspace.take(2 * d_), 2 * d_);
        both << theta, v;
        return both;
    }
    void collect(const VectorRef& sums, double sign, Eigen::Ref<Vector> g) const { g += sign * sums; }
    void add_additions(Eigen::Ref<Vector> k) const {
        const Index p = panel_rows();
        k.array() += static_cast<double>(std::min(n_, p) + (n_ + p - 1) / p);
    }
    Index largest_row() const { return d_; }

    // Rows [first, first + m): X itself where its layout allows, else packed into the workspace.
    DensePanel<T> panel(Index first, Index m, Workspace& workspace) const {
        constexpr Index worthwhile = 8;  // columns in a run, below which packing pays
        const bool few_runs = static_cast<Index>(columns_.size()) * worthwhile <= d_ + worthwhile;
        if (d_ > 0 && few_runs && (column_stride_ == 1 || row_stride_ == 1))
            return panel_as_it_lies(first, m);
        return packed_panel(first, m, workspace);
    }

    // Each slice takes a matrix (d, d) of its own: little beside X, and beside the cache.
    Index gram_parts() const {
        constexpr Index most = 8, least_rows = 512, memory = Index(1) << 22;
        return std::max<Index>(1, std::min({most, n_ / least_rows, memory / std::max<Index>(1, d_ * d_)}));
    }

    // Rows of weight 0 cost nothing. before(first, m) is called ahead of each panel, and may set its weights.
    template <class Before>
    void add_gram(const double* w, Eigen::Ref<Matrix> H, Before&& before) const {
        thread_local Workspace rows, memory;
        const bool by_rows = column_stride_ == 1, in_one_piece = columns_.size() == 1;
        const Packed terms(memory, d_);
        for (Index first = 0; first < n_; first += max_panel_rows) {
            const Index m = std::min(max_panel_rows, n_ - first), next = first + m;
            before(first, m);
            if (d_ == 0) continue;
            const bool as_it_lies = by_rows ? in_one_piece : row_stride_ == 1;
            const auto [positive, negative] =
                (as_it_lies ? panel_as_it_lies(first, m) : packed_panel(first, m, rows))
                    .pack(w + first, terms);
            Ahead ahead;
            if (by_rows && in_one_piece && row_stride_ == d_)
                ahead = {rows_from(next), std::min(max_panel_rows, n_ - next) * d_ * Index(sizeof(T))};
            expunge::add_gram(H, terms, 0, positive, 1.0, ahead);
            if (negative > 0) expunge::add_gram(H, terms, Packed::max_terms - negative, negative, -1.0);
        }
    }

private:
    const T* rows_from(Index first) const { return data_ + first * row_stride_; }

    DensePanel<T> panel_as_it_lies(Index first, Index m) const {
        constexpr double in_cache = 1048576.0;  // bytes, which need not be fetched
        const Index following = entries() * sizeof(T) > in_cache ? n_ - first - m : 0;
        return {rows_from(first), m, row_stride_, column_stride_, columns_, following};
    }

    // The columns that are seen, side by side, row by row.
    DensePanel<T> packed_panel(Index first, Index m, Workspace& workspace) const {
        const T* rows = rows_from(first);
        T* packed = workspace.take<T>(m * d_);
        Index to = 0;
        for (const Run& run : columns_) {
            const T* from = rows + run.first * column_stride_;
            if (column_stride_ == 1) {
                for (Index i = 0; i < m; ++i)
                    std::copy_n(from + i * row_stride_, run.count, packed + i * d_ + to);
            } else {
                for (Index j = 0; j < run.count; ++j)
                    for (Index i = 0; i < m; ++i)
                        packed[i * d_ + to + j] = from[i * row_stride_ + j * column_stride_];
            }
            to += run.count;
        }
        return {packed, m, d_, 1, whole_};
    }

    const T* data_;
    Index n_, row_stride_, column_stride_;
    Runs columns_;
    Index d_;
    Runs whole_;  // all d columns of a packed panel
};

}  // namespace expunge
