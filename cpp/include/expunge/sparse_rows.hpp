#pragma once
// X in compressed sparse rows (CSR): entries data[k] in columns indices[k] for k in [indptr[i], indptr[i+1])
// of row i, each row's columns ascending and none twice.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <type_traits>
#include <utility>

#include "expunge/columns.hpp"
#include "expunge/errors.hpp"
#include "expunge/gather.hpp"

namespace expunge {

// As many columns as indices can name, at most.
template <class I>
I width_of_indices(Index width) {
    return static_cast<I>(std::min<Index>(width, std::numeric_limits<I>::max()));
}

constexpr const char* outside_of_X = "the indices of X point outside of it";

// Throws: some index of X is outside of it, or rows do not follow each other within its entries. `known`:
// whether that was looked at before.
[[noreturn]] EXPUNGE_COLD void indices_point_outside(bool known);

// An index that others may change meanwhile, read once and no more. Negative ones exceed every bound.
template <class I>
std::size_t read_once(const I& index) {
#if defined(__GNUC__) || defined(__clang__)
    std::size_t value = static_cast<std::make_unsigned_t<I>>(index);
    asm("" : "+r"(value));  // for all that the compiler knows, it is another number now
    return value;
#else
    return static_cast<std::make_unsigned_t<I>>(*static_cast<const volatile I*>(&index));
#endif
}

// The arrays of a CSR matrix, which are looked into and not owned. Whoever owns them may write to them at any
// time, as rows are read: what becomes an address is read once and bounded where it is used. What is written
// so makes wrong numbers or an error, but no access elsewhere.
template <class T, class I>
struct CsrArrays {
    const T* data;
    const I *indices, *indptr;
    std::size_t entries;  // that there is room for in data and indices
    std::size_t width;
    bool canonical;  // whether indices are known to be within X and to ascend in every row

    CsrArrays(const T* data, const I* indices, const I* indptr, Index entries, Index width, bool canonical)
        : data(data), indices(indices), indptr(indptr),
          entries(static_cast<std::size_t>(width_of_indices<I>(entries))),
          width(static_cast<std::size_t>(width_of_indices<I>(width))), canonical(canonical) {}

    struct Range {
        Index first, stop;
        Index size() const { return stop - first; }
    };
    Range row(Index i) const {
        const std::size_t first = read_once(indptr[i]), stop = read_once(indptr[i + 1]);
        if (first > stop || stop > entries) indices_point_outside(canonical);
        return {static_cast<Index>(first), static_cast<Index>(stop)};
    }
    // Of entry k of some row.
    Index column(Index k) const {
        const std::size_t j = read_once(indices[k]);
        if (j >= width) indices_point_outside(canonical);
        return static_cast<Index>(j);
    }
    double value(Index k) const { return static_cast<double>(data[k]); }

    CsrArrays from_row(Index first) const {
        CsrArrays rest(*this);
        rest.indptr += first;
        return rest;
    }
    bool operator==(const CsrArrays&) const = default;
};

// Throws unless the n rows follow each other within the entries.
template <class T, class I>
EXPUNGE_LOOP void require_order(const CsrArrays<T, I>& X, Index n) {
    bool rows_follow = X.indptr[0] == 0 && read_once(X.indptr[n]) <= X.entries;
    for (Index i = 0; i < n; ++i) rows_follow &= X.indptr[i] <= X.indptr[i + 1];
    if (!rows_follow) indices_point_outside(false);
}

// What the indices of some rows of a CSR matrix are, by one pass over them.
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
    // Columns that do not follow the one before: right at the start of a row only. In stretches whose counts
    // fit an index: the compiler then compares many at once.
    Index descents = 0;
    for (Index first = begin + 1; first < end; first += 4096) {
        const Index stop = std::min<Index>(first + 4096, end);
        I down = 0;
        for (Index k = first; k < stop; ++k) down += static_cast<I>(indices[k] <= indices[k - 1]);
        descents += static_cast<Index>(down);
    }
    // What ascends is inside if its ends are.
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

// m rows over all columns of f(X) as stored. A column that is not seen meets a 0 in theta, and its sum is not
// collected: the loops over entries need not know.
template <class T, class I, class F = Entry>
class SparsePanel {
public:
    // Rows not known to be canonical are looked through as they are multiplied, which must come first.
    SparsePanel(const CsrArrays<T, I>& X, Index m) : X_(X), m_(m) {}

    // The same rows, of which f is read.
    template <class G>
    SparsePanel<T, I, G> map(G) const {
        return {X_, m_};
    }

    // eta (m,) = X theta
    void multiply(const VectorRef& theta, Eigen::Ref<Vector> eta) const {
        each_product<1>(theta.data(), [&](Index i, const auto& product) { eta(i) = product(0); });
    }

    // eta (m,) = X theta, x_v (m,) = X v, where `both` holds theta_j and v_j side by side: they are one read.
    void multiply(const VectorRef& both, Eigen::Ref<Vector> eta, Eigen::Ref<Vector> x_v) const {
        each_product<2>(both.data(), [&](Index i, const auto& products) {
            eta(i) = products(0);
            x_v(i) = products(1);
        });
    }

    // g (width,) += X^T r
    EXPUNGE_LOOP void add_transposed(const VectorRef& r, Eigen::Ref<Vector> g) const {
        for (Index i = 0; i < m_; ++i) add_row(i, r(i), g.data());
    }

    // g (width,) += X^T r, r = w (X theta + offset); returns the sum of r. Row by row, additions would wait
    // for the row's product.
    double add_product(const VectorRef& w, const VectorRef& theta, double offset,
                       Eigen::Ref<Vector> g) const {
        double memory[max_panel_rows];
        Eigen::Map<Vector> r(memory, m_);
        multiply(theta, r);
        for (Index i = 0; i < m_; ++i) r(i) = weighted(w(i), r(i) + offset);
        add_transposed(r, g);
        return r.sum();
    }

    Index stored(Index i) const { return X_.row(i).size(); }

private:
    // visit(i, row i times each of several vectors, whose entries for a column lie side by side)
    template <int vectors, class Visit>
    EXPUNGE_LOOP void each_product(const double* theta, Visit&& visit) const {
#ifdef EXPUNGE_GATHERS
        if constexpr (std::is_same_v<F, Entry>)
            if (gathers())
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
        if (outside) indices_point_outside(X_.canonical);
        if (disordered) throw NotCanonical();
    }
#endif

    void require_canonical() const {
        const Indices found = look_through(X_, m_);
        if (!found.inside) indices_point_outside(false);
        if (!found.ascending) throw NotCanonical();
    }

    // Row i times each of several vectors, in four chains, so that additions need not wait for each other. A
    // loop of its own for the last three would end unforeseen.
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

    // g (width,) += r times row i. Its columns differ: the sums of four are read before one is written, as a
    // read waits for writes that may be to its place.
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
            const Index j = X_.column(k);  // ahead of the product, which else is rounded by itself
            g[j] += r * x(k);
        }
    }

    // Entries that follow those from k on, some rows later.
    void fetch_entries(Index k) const {
        constexpr Index soon = 512;
        fetch<Near::first>(X_.data + k + soon);
        fetch<Near::first>(X_.indices + k + soon);
    }

    double x(Index k) const { return F()(X_.value(k)); }

    CsrArrays<T, I> X_;
    Index m_;
};

template <class T, class I>
class SparseRows {
public:
    // canonical: whether indices are known to be within X and to ascend in every row; else panels find out.
    // stored: how long data and indices are; by default as the last row says.
    SparseRows(const T* data, const I* indices, const I* indptr, Index n, Index width, Runs columns,
               bool canonical = true, std::optional<Index> stored = std::nullopt)
        : SparseRows(CsrArrays<T, I>(data, indices, indptr, stored.value_or(static_cast<Index>(indptr[n])),
                                     width, canonical),
                     n, width, std::move(columns)) {}
    SparseRows(const CsrArrays<T, I>& X, Index n, Index width, Runs columns)
        : X_(X), n_(n), width_(width), columns_(std::move(columns)), d_(count(columns_)),
          entries_(std::max(0.0, static_cast<double>(X.indptr[n]) - static_cast<double>(X.indptr[0]))) {}

    Index rows() const { return n_; }
    Index columns() const { return d_; }
    Index width() const { return width_; }
    double entries() const { return entries_; }
    double gram_work() const {
        const double seen = entries() * static_cast<double>(d_) / static_cast<double>(width_ + 1);
        return entries() * seen / static_cast<double>(n_ + 1) / 3.0;
    }
    bool same_rows(const SparseRows& other) const {
        return X_ == other.X_ && n_ == other.n_ && width_ == other.width_ && columns_ == other.columns_;
    }
    SparseRows select(const std::vector<Index>& kept) const {
        return {X_, n_, width_, expunge::select(columns_, kept)};
    }
    SparseRows slice(Index first, Index m) const { return {X_.from_row(first), m, width_, columns_}; }

    // So many that adding a panel's sums to the total costs little beside the panel.
    Index panel_rows() const {
        constexpr double entries_per_column = 8.0;
        const double wanted =
            entries_per_column * static_cast<double>(width_) * static_cast<double>(n_) / (entries() + 1.0);
        return wanted < static_cast<double>(n_) ? std::max<Index>(max_panel_rows, static_cast<Index>(wanted))
                                                : std::max<Index>(max_panel_rows, n_);
    }
    Index rows_in_cache() const {
        const double fit = 32768.0 * static_cast<double>(n_) / (entries() + 1.0);
        return fit < max_panel_rows ? std::max<Index>(8, static_cast<Index>(fit)) : max_panel_rows;
    }

    VectorRef spread(const VectorRef& theta, Workspace& workspace) const {
        if (d_ == width_) return theta;
        Eigen::Map<Vector> wide(workspace.take(width_), width_);
        wide.setZero();
        each_run([&](const Run& run, Index j) {
            wide.segment(run.first, run.count) = theta.segment(j, run.count);
        });
        return wide;
    }
    // As panels multiply two vectors at once.
    VectorRef spread(const VectorRef& theta, const VectorRef& v, Workspace& workspace) const {
        Eigen::Map<Eigen::Matrix2Xd> both(workspace.take(2 * width_), 2, width_);
        if (d_ < width_) both.setZero();
        each_run([&](const Run& run, Index j) {
            both.row(0).segment(run.first, run.count) = theta.segment(j, run.count);
            both.row(1).segment(run.first, run.count) = v.segment(j, run.count);
        });
        return Eigen::Map<const Vector>(both.data(), both.size());
    }
    void collect(const VectorRef& sums, double sign, Eigen::Ref<Vector> g) const {
        each_run([&](const Run& run, Index j) {
            g.segment(j, run.count) += sign * sums.segment(run.first, run.count);
        });
    }

    // A column's sum has as many terms as the column has entries.
    void add_additions(Eigen::Ref<Vector> k) const {
        Vector entries = Vector::Zero(width_);
        for (Index i = 0; i < n_; ++i) {
            const auto [first, stop] = X_.row(i);
            for (Index e = first; e < stop; ++e) entries(X_.column(e)) += 1.0;
        }
        const auto p = static_cast<double>(panel_rows());
        const double panels = std::ceil(static_cast<double>(n_) / p);
        entries = (entries.array().min(p) + entries.array().min(panels)).matrix();
        collect(entries, 1.0, k);
    }
    Index largest_row() const {
        Index largest = 0;
        for (Index i = 0; i < n_; ++i) largest = std::max(largest, X_.row(i).size());
        return largest;
    }

    // found[i] (n,) becomes whether row i holds anything but 0 in some of these columns of X as stored.
    // Returns how many entries do.
    Index find_rows(const std::vector<Index>& columns, bool* found) const {
        std::vector<char> wanted(static_cast<std::size_t>(width_), 0);
        for (const Index j : columns) wanted[static_cast<std::size_t>(j)] = 1;
        Index total = 0;
        for (Index i = 0; i < n_; ++i) {
            Index entries = 0;
            const auto [first, stop] = X_.row(i);
            for (Index k = first; k < stop; ++k)
                entries += wanted[static_cast<std::size_t>(X_.column(k))] && X_.data[k] != T(0);
            found[i] = entries > 0;
            total += entries;
        }
        return total;
    }

    SparsePanel<T, I> panel(Index first, Index m, Workspace&) const { return {X_.from_row(first), m}; }

    static constexpr bool gram_by_panels = false;
    Index gram_parts() const { return 1; }

    // Row by row where H stays in the last cache; else column by column of H, so that one column does.
    template <class Before>
    void add_gram(const double* w, Eigen::Ref<Matrix> H, Before&& before) const {
        before(0, n_);
        if (d_ == 0 || n_ == 0) return;
        constexpr Index in_cache = 2500;
        if (d_ <= in_cache)
            add_gram_by_rows(w, H);
        else
            add_gram_by_columns(w, H);
    }

private:
    void add_gram_by_rows(const double* w, Eigen::Ref<Matrix> H) const {
        const std::vector<I> position = positions();
        std::vector<std::pair<Index, double>> row(static_cast<std::size_t>(largest_row()));
        for (Index i = 0; i < n_; ++i) {
            if (w[i] == 0.0) continue;
            const auto [first, stop] = X_.row(i);
            if (static_cast<std::size_t>(stop - first) > row.size()) indices_point_outside(X_.canonical);
            std::size_t m = 0;
            for (Index k = first; k < stop; ++k)
                if (const I j = position[static_cast<std::size_t>(X_.column(k))]; j >= 0)
                    row[m++] = {j, X_.value(k)};
            for (std::size_t a = 0; a < m; ++a) {
                const double scale = w[i] * row[a].second;
                double* column = &H(0, row[a].first);
                for (std::size_t b = a; b < m; ++b) column[row[b].first] += scale * row[b].second;
            }
        }
    }

    // Every row waits in the list of the column that its next entry is in; when that column's turn has come,
    // the rest of the row is added to it, and the row moves on to the list of its following entry.
    void add_gram_by_columns(const double* w, Eigen::Ref<Matrix> H) const {
        const std::vector<I> position = positions();
        std::vector<I> next_entry(static_cast<std::size_t>(n_));
        std::vector<I> first_row(static_cast<std::size_t>(d_), I(-1)), next_row(static_cast<std::size_t>(n_));
        // Row i goes to the list of its first column seen from entry k on.
        const auto wait = [&](I i, Index k, Index stop) {
            for (; k < stop; ++k) {
                const I j = position[static_cast<std::size_t>(X_.column(k))];
                if (j < 0) continue;
                next_entry[static_cast<std::size_t>(i)] = static_cast<I>(k);
                next_row[static_cast<std::size_t>(i)] =
                    std::exchange(first_row[static_cast<std::size_t>(j)], i);
                return;
            }
        };
        for (Index i = n_; i-- > 0;) {  // so that lists ascend at first
            const auto [first, stop] = X_.row(i);
            if (w[i] != 0.0) wait(static_cast<I>(i), first, stop);
        }
        Vector sums(width_);
        const bool whole = d_ == width_;
        for (Index j = 0; j < d_; ++j) {
            I i = first_row[static_cast<std::size_t>(j)];
            if (i < 0) continue;
            double* __restrict column = whole ? &H(0, j) : sums.data();
            if (!whole) sums.setZero();
            while (i >= 0) {
                const I following = next_row[static_cast<std::size_t>(i)];
                const Index k = next_entry[static_cast<std::size_t>(i)], stop = X_.row(i).stop;
                const double scale = w[i] * X_.value(k);
                for (Index e = k; e < stop; ++e) {
                    const Index to = X_.column(e);
                    column[to] += scale * X_.value(e);
                }
                wait(i, k + 1, stop);
                i = following;
            }
            if (!whole) collect_below(sums, j, H);
        }
    }

    // Where each stored column is among those seen; -1 where it is not.
    std::vector<I> positions() const {
        std::vector<I> position(static_cast<std::size_t>(width_), I(-1));
        each_run([&](const Run& run, Index j) {
            std::iota(position.begin() + run.first, position.begin() + run.first + run.count,
                      static_cast<I>(j));
        });
        return position;
    }

    // H(j:, j) += the sums of the columns seen from the j-th on.
    void collect_below(const Vector& sums, Index j, Eigen::Ref<Matrix> H) const {
        each_run([&](const Run& run, Index at) {
            const Index skip = std::clamp<Index>(j - at, 0, run.count), size = run.count - skip;
            H.col(j).segment(at + skip, size) += sums.segment(run.first + skip, size);
        });
    }

    template <class Visit>
    void each_run(Visit&& visit) const {
        Index j = 0;
        for (const Run& run : columns_) {
            visit(run, j);
            j += run.count;
        }
    }

    CsrArrays<T, I> X_;
    Index n_, width_;
    Runs columns_;
    Index d_;
    double entries_;  // as they were: panels are to stay of one size
};

}  // namespace expunge
