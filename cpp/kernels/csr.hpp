#pragma once
// X in compressed sparse rows (CSR): entries data[k] in columns indices[k] for k in [indptr[i], indptr[i+1])
// of row i, each row's columns ascending and none twice.
#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "gather.hpp"
#include "tile.hpp"

namespace expunge::kernel {

// Loops throw these. The functions of the table catch them and return a Status.
struct Outside {};     // an index is outside of X, or rows do not follow each other within its entries
struct Disordered {};  // the columns of a row do not ascend, or one comes twice
[[noreturn]] EXPUNGE_COLD inline void points_outside() { throw Outside(); }
[[noreturn]] EXPUNGE_COLD inline void disordered_rows() { throw Disordered(); }

// Reads an index once, since others may change it meanwhile. A negative one exceeds every bound.
template <class I>
std::size_t read_once(const I& index) {
#if defined(__GNUC__) || defined(__clang__)
    std::size_t value = static_cast<std::make_unsigned_t<I>>(index);
    asm("" : "+r"(value));  // the compiler must not read it from memory again
    return value;
#else
    return static_cast<std::make_unsigned_t<I>>(*static_cast<const volatile I*>(&index));
#endif
}

// The arrays of a CSR matrix, not owned. Their owner may write to them while rows are read. So an index that
// becomes an address is read once and checked where it is used: such a write makes wrong numbers or an error,
// but no access outside of the arrays.
template <class T, class I>
struct CsrArrays {
    const T* data;
    const I *indices, *indptr;
    std::size_t entries;  // the length of data and indices
    std::size_t width;
    bool canonical;  // whether indices are known to be within X and to ascend in every row

    explicit CsrArrays(const Storage& X)
        : data(static_cast<const T*>(X.data)), indices(static_cast<const I*>(X.indices)),
          indptr(static_cast<const I*>(X.indptr)), entries(X.entries), width(X.width),
          canonical(X.canonical) {}

    struct Range {
        Index first, stop;
        Index size() const { return stop - first; }
    };
    Range row(Index i) const {
        const std::size_t first = read_once(indptr[i]), stop = read_once(indptr[i + 1]);
        if (first > stop || stop > entries) points_outside();
        return {static_cast<Index>(first), static_cast<Index>(stop)};
    }
    // Of entry k of some row.
    Index column(Index k) const {
        const std::size_t j = read_once(indices[k]);
        if (j >= width) points_outside();
        return static_cast<Index>(j);
    }
    double value(Index k) const { return static_cast<double>(data[k]); }
};

// Throws unless the n rows follow each other within the entries.
template <class T, class I>
EXPUNGE_LOOP void require_order(const CsrArrays<T, I>& X, Index n) {
    bool rows_follow = X.indptr[0] == 0 && read_once(X.indptr[n]) <= X.entries;
    for (Index i = 0; i < n; ++i) rows_follow &= X.indptr[i] <= X.indptr[i + 1];
    if (!rows_follow) points_outside();
}

// What one pass over the indices of some rows finds.
struct Indices {
    bool inside;     // of [0, width)
    bool ascending;  // in every row, none twice
};
template <class T, class I>
EXPUNGE_LOOP Indices look_through(const CsrArrays<T, I>& X, Index rows) {
    const I* const indices = X.indices;
    const std::size_t from = read_once(X.indptr[0]), to = read_once(X.indptr[rows]);
    if (from > to || to > X.entries) return {false, false};
    const auto begin = static_cast<Index>(from), end = static_cast<Index>(to);
    // Counts indices that do not exceed the one before; only the first of a row may do that. Stretches are so
    // short that their counts fit an index: the compiler then compares many at once.
    Index descents = 0;
    for (Index first = begin + 1; first < end; first += 4096) {
        const Index stop = std::min<Index>(first + 4096, end);
        I down = 0;
        for (Index k = first; k < stop; ++k) down += static_cast<I>(indices[k] <= indices[k - 1]);
        descents += static_cast<Index>(down);
    }
    // Indices that ascend are inside if the first and the last are.
    bool inside = true;
    for (Index i = 0; i < rows; ++i) {
        const auto first = static_cast<Index>(read_once(X.indptr[i])),
                   stop = static_cast<Index>(read_once(X.indptr[i + 1]));
        if (first < begin || first >= stop || stop > end) continue;
        if (first > begin) descents -= indices[first] <= indices[first - 1];
        inside &= indices[first] >= 0 && static_cast<std::size_t>(indices[stop - 1]) < X.width;
    }
    if (descents != 0)
        inside = std::all_of(indices + begin, indices + end,
                             [&](const I& index) { return read_once(index) < X.width; });
    return {inside, descents == 0};
}

// Kernels::copy_csr_shifted. What others write meanwhile is read once, and where rows begin and end is the
// copy's from here on.
template <class T, class I>
EXPUNGE_LOOP void copy_shifted(const CsrArrays<T, I>& X, Index m, const double* shift, double* entries,
                               Index room, I* indptr) {
    const std::size_t begin = read_once(X.indptr[0]);
    Index at = 0;
    indptr[0] = 0;
    for (Index i = 0; i < m; ++i) {
        const auto [first, stop] = X.row(i);
        if (first != static_cast<Index>(begin) + at || stop - first > room - at) points_outside();
        for (Index k = first; k < stop; ++k, ++at) entries[at] = X.value(k) - shift[X.column(k)];
        indptr[i + 1] = static_cast<I>(at);
    }
}

// ---- Counts over n rows ----

template <class T, class I>
Index largest_row(const CsrArrays<T, I>& X, Index n) {
    Index largest = 0;
    for (Index i = 0; i < n; ++i) largest = std::max(largest, X.row(i).size());
    return largest;
}

// counts (width,) += the entries of each column
template <class T, class I>
void count_columns(const CsrArrays<T, I>& X, Index n, double* counts) {
    for (Index i = 0; i < n; ++i) {
        const auto [first, stop] = X.row(i);
        for (Index e = first; e < stop; ++e) counts[X.column(e)] += 1.0;
    }
}

// found (n,): whether a row holds anything but 0 in the columns that are `wanted` (width,). Returns the
// number of such entries.
template <class T, class I>
Index find_rows(const CsrArrays<T, I>& X, Index n, const std::vector<char>& wanted, bool* found) {
    Index total = 0;
    for (Index i = 0; i < n; ++i) {
        Index entries = 0;
        const auto [first, stop] = X.row(i);
        for (Index k = first; k < stop; ++k)
            entries += Index(wanted[static_cast<std::size_t>(X.column(k))]) & Index(X.data[k] != T(0));
        found[i] = entries > 0;
        total += entries;
    }
    return total;
}

// m rows of f(X) over all columns as stored. For columns that are not seen theta is 0, and their sums are not
// collected, so the loops over entries take all.
template <class T, class I, class F = Entry>
class CsrPanel {
public:
    // Rows that are not known to be canonical are checked by their first product, which must come first.
    explicit CsrPanel(const PanelView& view) : X_(view.X), m_(view.m), gathers_(view.gathers) {}

    // eta (m,) = X theta
    void multiply(const double* theta, double* eta) const {
        each_product<1>(theta, [&](Index i, const auto& product) { eta[i] = product(0); });
    }

    // eta (m,) = X theta, x_v (m,) = X v. `both` holds theta_j and v_j side by side, so one read gets both.
    void multiply_two(const double* both, double* eta, double* x_v) const {
        each_product<2>(both, [&](Index i, const auto& products) {
            eta[i] = products(0);
            x_v[i] = products(1);
        });
    }

    // g (width,) += X^T r
    EXPUNGE_LOOP void add_transposed(const double* r, double* g) const {
        for (Index i = 0; i < m_; ++i) add_row(i, r[i], g);
    }

    // eta (m, K) = X Theta; of Theta the entries for a column lie side by side, `stride` apart.
    void multiply_many(Index K, Index stride, const double* thetas, double* eta) const {
        if (!X_.canonical) require_canonical();
        for (Index k = 0; k < K; k += 4 * most_fours)
            with_fours(K - k, [&]<int fours>() { multiply_fours<fours>(K, k, stride, thetas + k, eta); });
    }

    // G, which lies like Theta, += X^T r, r (m, K)
    void add_transposed_many(Index K, Index stride, const double* r, double* g) const {
        for (Index k = 0; k < K; k += 4 * most_fours)
            with_fours(K - k, [&]<int fours>() { add_fours<fours>(K, k, stride, r, g + k); });
    }

private:
    using Four = Eigen::Array<double, 4, 1>;
    static constexpr Index most_fours = 4;  // that stay in registers

    template <class F_>
    static void with_fours(Index left, F_&& f) {
        if (left > 12) return f.template operator()<4>();
        if (left > 8) return f.template operator()<3>();
        if (left > 4) return f.template operator()<2>();
        f.template operator()<1>();
    }

    template <int fours>
    EXPUNGE_LOOP void multiply_fours(Index K, Index from, Index stride, const double* thetas,
                                     double* eta) const {
        for (Index i = 0; i < m_; ++i) {
            Four sums[fours];
            for (Four& sum : sums) sum.setZero();
            const auto [first, stop] = X_.row(i);
            for (Index e = first; e < stop; ++e) {
                const double* theta = thetas + stride * X_.column(e);
                for (int q = 0; q < fours; ++q) sums[q] += x(e) * Four::Map(theta + 4 * q);
            }
            for (int c = 0; c < 4 * fours && from + c < K; ++c) eta[(from + c) * m_ + i] = sums[c / 4](c % 4);
        }
    }

    template <int fours>
    EXPUNGE_LOOP void add_fours(Index K, Index from, Index stride, const double* r, double* sums) const {
        for (Index i = 0; i < m_; ++i) {
            alignas(64) double of_row[4 * fours] = {};
            for (int c = 0; c < 4 * fours && from + c < K; ++c) of_row[c] = r[(from + c) * m_ + i];
            const auto [first, stop] = X_.row(i);
            for (Index e = first; e < stop; ++e) {
                double* sum = sums + stride * X_.column(e);
                for (int q = 0; q < fours; ++q) Four::Map(sum + 4 * q) += x(e) * Four::Map(of_row + 4 * q);
            }
        }
    }

    // visit(i, row i times each of several vectors, whose entries for a column lie side by side)
    template <int vectors, class Visit>
    EXPUNGE_LOOP void each_product(const double* theta, Visit&& visit) const {
#ifdef EXPUNGE_GATHERS
        if constexpr (std::is_same_v<F, Entry>)
            if (gathers_)
                return X_.canonical ? each_gathered<vectors, false>(theta, visit)
                                    : each_gathered<vectors, true>(theta, visit);
#endif
        if (!X_.canonical) require_canonical();
        for (Index i = 0; i < m_; ++i) visit(i, row_times<vectors>(i, theta));
    }

#ifdef EXPUNGE_GATHERS
    template <int vectors, bool order, class Visit>
    void each_gathered(const double* theta, Visit&& visit) const {
        const I width = static_cast<I>(X_.width);
        bool outside = false, disordered = false;
        for (Index i = 0; i < m_; ++i) {
            const auto [first, stop] = X_.row(i);
            visit(i, gathered_products<vectors, order>(
                         X_.data + first, X_.indices + first, stop - first, theta, width, outside, disordered,
                         [&, first = first](Index k) { fetch_entries(first + k); }));
        }
        if (outside) points_outside();
        if (disordered) disordered_rows();
    }
#endif

    void require_canonical() const {
        const Indices found = look_through(X_, m_);
        if (!found.inside) points_outside();
        if (!found.ascending) disordered_rows();
    }

    // Row i times each of several vectors. Four chains of additions need not wait for each other. A separate
    // loop for the last three entries would end with a branch that is often mispredicted.
    template <int vectors>
    Eigen::Array<double, vectors, 1> row_times(Index i, const double* theta) const {
        using Products = Eigen::Array<double, vectors, 1>;
        Products a = Products::Zero(), b = a, c = a, d = a;
        const auto [first, stop] = X_.row(i);
        const auto add = [&, stop = stop](Index k, Products& sum) {
            if (k < stop) sum += x(k) * Products::Map(theta + vectors * X_.column(k));
        };
        for (Index k = first; k < stop; k += 4) {
            fetch_entries(k);
            add(k, a);
            add(k + 1, b);
            add(k + 2, c);
            add(k + 3, d);
        }
        return (a + b) + (c + d);
    }

    // g (width,) += r times row i. The columns of a row differ, so four sums are read before one is written:
    // a read would wait for earlier writes that may be to the same place.
    void add_row(Index i, double r, double* __restrict g) const {
        auto [k, stop] = X_.row(i);
        for (; k + 4 <= stop; k += 4) {
            fetch_entries(k);
            const Index at[] = {X_.column(k), X_.column(k + 1), X_.column(k + 2), X_.column(k + 3)};
            const double a = g[at[0]] + r * x(k), b = g[at[1]] + r * x(k + 1), c = g[at[2]] + r * x(k + 2),
                         d = g[at[3]] + r * x(k + 3);
            g[at[0]] = a;
            g[at[1]] = b;
            g[at[2]] = c;
            g[at[3]] = d;
        }
        for (; k < stop; ++k) {
            const Index j = X_.column(k);  // before the product, so that product and sum are rounded together
            g[j] += r * x(k);
        }
    }

    // Fetches entries that come some rows after entry k.
    void fetch_entries(Index k) const {
        constexpr Index soon = 512;
        fetch<Near::first>(X_.data + k + soon);
        fetch<Near::first>(X_.indices + k + soon);
    }

    double x(Index k) const { return F()(X_.value(k)); }

    CsrArrays<T, I> X_;
    Index m_;
    bool gathers_;
};

// The Gram matrix of the columns that are seen, H (d, d) += X^T diag(w) X.
template <class T, class I>
class CsrGram {
public:
    CsrGram(const Storage& X, Index n, const Run* runs, Index run_count, const double* w, double* H,
            Index stride)
        : X_(X), n_(n), runs_(runs), run_count_(run_count), d_(count(runs, run_count)), w_(w), H_(H),
          stride_(stride) {}

    void add_by_rows() const {
        const std::vector<I> position = positions();
        const Index largest = largest_row(X_, n_);
        std::vector<I> columns(static_cast<std::size_t>(largest));
        std::vector<double> values(static_cast<std::size_t>(largest));
        for (Index i = 0; i < n_; ++i) {
            if (w_[i] == 0.0) continue;
            const auto [first, stop] = X_.row(i);
            if (stop - first > largest) points_outside();
            Index m = 0;
            for (Index k = first; k < stop; ++k) {
                const I j = position[static_cast<std::size_t>(X_.column(k))];
                columns[static_cast<std::size_t>(m)] = j;
                values[static_cast<std::size_t>(m)] = X_.value(k);
                m += j >= 0;
            }
            add_row(m, columns.data(), values.data(), w_[i]);
        }
    }

    // Column by column of H. Every row is in the list of the column of its next entry. When it is that
    // column's turn, the rest of the row is added to the column of H, and the row goes to the list of its
    // following entry. Entries are read many times, so their columns are copied and checked once.
    void add_by_columns() const {
        const std::vector<I> position = positions();
        const auto at = [](Index k) { return static_cast<std::size_t>(k); };
        std::vector<I> starts(at(n_ + 1)), columns(X_.entries);
        if (n_ > 0) starts[0] = static_cast<I>(X_.row(0).first);
        for (Index i = 0; i < n_; ++i) {
            const auto [first, stop] = X_.row(i);
            if (first != starts[at(i)]) points_outside();
            starts[at(i + 1)] = static_cast<I>(stop);
            for (Index k = first; k < stop; ++k) columns[at(k)] = static_cast<I>(X_.column(k));
        }
        std::vector<I> next_entry(at(n_)), first_row(at(d_), I(-1)), next_row(at(n_));
        // Row i goes to the list of its first column seen from entry k on.
        const auto wait = [&](I i, Index k) {
            for (const Index stop = starts[at(i + 1)]; k < stop; ++k) {
                const I j = position[at(columns[at(k)])];
                if (j < 0) continue;
                next_entry[at(i)] = static_cast<I>(k);
                next_row[at(i)] = std::exchange(first_row[at(j)], i);
                return;
            }
        };
        for (Index i = n_; i-- > 0;)  // so that lists ascend at first
            if (w_[i] != 0.0) wait(static_cast<I>(i), starts[at(i)]);
        std::vector<double> sums(width());
        const bool whole = static_cast<std::size_t>(d_) == width();
        for (Index j = 0; j < d_; ++j) {
            I i = first_row[at(j)];
            if (i < 0) continue;
            double* __restrict column = whole ? H_ + j * stride_ : sums.data();
            if (!whole) std::fill(sums.begin(), sums.end(), 0.0);
            while (i >= 0) {
                const I following = next_row[at(i)];
                const Index k = next_entry[at(i)], stop = starts[at(i + 1)];
                const double scale = w_[i] * X_.value(k);
                for (Index e = k; e < stop; ++e) column[columns[at(e)]] += scale * X_.value(e);
                wait(i, k + 1);
                i = following;
            }
            if (!whole) collect_below(sums.data(), j);
        }
    }

private:
    // H += w x x^T, of a row of m entries. Its columns ascend.
    EXPUNGE_LOOP void add_row(Index m, const I* columns, const double* values, double w) const {
        for (Index a = 0; a < m; ++a) {
            const double scale = w * values[a];
            double* column = H_ + columns[a] * stride_;
            for (Index b = a; b < m; ++b) column[columns[b]] += scale * values[b];
        }
    }

    // The number of columns stored or seen: the type of indices may be too small to name the last ones.
    std::size_t width() const {
        if (run_count_ == 0) return X_.width;
        const Run& last = runs_[run_count_ - 1];
        return std::max(X_.width, static_cast<std::size_t>(last.first + last.count));
    }

    // Where each stored column is among those seen; -1 where it is not.
    std::vector<I> positions() const {
        std::vector<I> position(width(), I(-1));
        each_run(runs_, run_count_, [&](const Run& run, Index j) {
            for (Index k = 0; k < run.count; ++k)
                position[static_cast<std::size_t>(run.first + k)] = static_cast<I>(j + k);
        });
        return position;
    }

    // H(j:, j) += the sums of the columns seen from the j-th on.
    void collect_below(const double* sums, Index j) const {
        each_run(runs_, run_count_, [&](const Run& run, Index at) {
            const Index skip = std::clamp<Index>(j - at, 0, run.count), size = run.count - skip;
            vector(H_ + j * stride_ + at + skip, size) += vector(sums + run.first + skip, size);
        });
    }

    CsrArrays<T, I> X_;
    Index n_;
    const Run* runs_;
    Index run_count_, d_;
    const double* w_;
    double* H_;
    Index stride_;
};

}  // namespace expunge::kernel
