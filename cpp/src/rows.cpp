#include "expunge/rows.hpp"

#include <atomic>
#include <cmath>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "expunge/errors.hpp"
#include "expunge/packed.hpp"
#include "expunge/parallel.hpp"

namespace expunge {

namespace {

// Calls visit(a run, the position of the first of its columns among all seen).
template <class Visit>
void each_run(const Runs& runs, Visit&& visit) {
    Index j = 0;
    for (const Run& run : runs) {
        visit(run, j);
        j += run.count;
    }
}

// One of them, as others may write to it at any time.
std::int64_t integer_at(const void* indices, IndexType type, Index k) {
    return type == IndexType::int32 ? static_cast<const volatile std::int32_t*>(indices)[k]
                                    : static_cast<const volatile std::int64_t*>(indices)[k];
}

}  // namespace

void fail(Status status, bool canonical) {
    if (status == Status::no_memory) throw std::bad_alloc();
    if (status == Status::disordered) throw NotCanonical();
    std::string message = "the indices of X point outside of it";
    if (canonical) message += ": X was changed after it was handed over, and has to stay as it was";
    throw std::invalid_argument(message);
}

void RowPanel::multiply_many(const VectorRef& thetas, Index K, double* eta) const {
    if (view.X.kind == Kind::csr && view.read == Read::entry) {
        require_fine(kernels().multiply_many(view, K, RowsView::together(K), thetas.data(), eta));
        return;
    }
    const Index width = thetas.size() / RowsView::together(K);
    for (Index k = 0; k < K; ++k)
        multiply(thetas.segment(k * width, width), Eigen::Map<Vector>(eta + k * view.m, view.m));
}

void RowPanel::add_transposed_many(const double* r, Index K, Eigen::Ref<Vector> g) const {
    if (view.X.kind == Kind::csr && view.read == Read::entry) {
        require_fine(kernels().add_transposed_many(view, K, RowsView::together(K), r, g.data()));
        return;
    }
    const Index width = g.size() / RowsView::together(K);
    for (Index k = 0; k < K; ++k)
        add_transposed(Eigen::Map<const Vector>(r + k * view.m, view.m), g.segment(k * width, width));
}

double RowPanel::add_product(const VectorRef& w, const VectorRef& theta, double offset,
                             Eigen::Ref<Vector> g) const {
    alignas(64) double memory[max_panel_rows];
    Eigen::Map<Vector> r(memory, view.m);
    multiply(theta, r);
    const double sum = kernels().weigh(view.m, w.data(), offset, memory);
    add_transposed(r, g);
    return sum;
}

namespace {

// Dense rows that lie row by row with a few columns hidden are read whole, as CSR rows are: that is faster
// than to pack them, or to read them in many runs.
Index width_of(const Storage& X, const Runs& columns) {
    const Index d = count(columns);
    if (columns.size() < 2 || X.column_stride != 1 || X.shift) return d;
    const Index last = columns.back().first + columns.back().count;
    return 3 * last <= 4 * d ? last : d;
}

}  // namespace

RowsView::RowsView(const Storage& X, Index n, Index width, Runs columns)
    : X_(X), n_(n), width_(dense() ? width_of(X, columns) : width), d_(count(columns)),
      columns_(std::move(columns)), whole_{0, d_}, read_{0, width_},
      entries_(static_cast<double>(n_) * static_cast<double>(d_)) {
    if (!dense())
        entries_ = std::max(0.0, static_cast<double>(integer_at(X.indptr, X.index_type, n)) -
                                     static_cast<double>(integer_at(X.indptr, X.index_type, 0)));
}

double RowsView::gram_work() const {
    if (dense()) return entries_ * static_cast<double>(d_) / 32.0;
    const double seen = entries_ * static_cast<double>(d_) / static_cast<double>(width_ + 1);
    return entries_ * seen / static_cast<double>(n_ + 1) / 3.0;
}

RowsView RowsView::select(const std::vector<Index>& kept) const {
    return {X_, n_, width_, expunge::select(columns_, kept)};
}

// Where row `first` begins: its numbers, or for CSR its entry of indptr.
const void* RowsView::row_at(Index first) const {
    if (dense()) return static_cast<const char*>(X_.data) + first * X_.row_stride * item();
    return static_cast<const char*>(X_.indptr) + first * index_item();
}

RowsView RowsView::less(const double* c) const {
    Storage X = X_;
    X.shift = c;
    return {X, n_, width_, columns_};
}

RowsView RowsView::slice(Index first, Index m) const {
    Storage rows = X_;
    (dense() ? rows.data : rows.indptr) = row_at(first);
    if (rows.shift) rows.shift += first * rows.shift_row_stride;
    return {rows, m, width_, columns_};
}

RowsView slice(const RowsView& X, Index first, Index m) {
    if (first < 0 || m < 0 || first > X.rows() - m)
        throw std::invalid_argument("rows " + std::to_string(first) + " to " + std::to_string(first + m) +
                                    " are asked for, of " + std::to_string(X.rows()));
    return X.slice(first, m);
}

RowsView RowsView::transposed() const {
    if (!has_transpose()) throw std::logic_error("these rows have no transpose");
    Storage X = X_;
    X.data = static_cast<const char*>(X_.data) + columns_[0].first * X_.column_stride * item();
    std::swap(X.row_stride, X.column_stride);
    if (X.shift) X.shift += columns_[0].first * X.shift_column_stride;
    std::swap(X.shift_row_stride, X.shift_column_stride);
    return {X, d_, n_, all_columns(n_)};
}

// For CSR so many rows that adding a panel's sums to the total costs little beside the panel itself.
Index RowsView::panel_rows() const {
    if (dense()) return max_panel_rows;
    constexpr double entries_per_column = 8.0;
    const double wanted =
        entries_per_column * static_cast<double>(width_) * static_cast<double>(n_) / (entries_ + 1.0);
    return wanted < static_cast<double>(n_) ? std::max<Index>(max_panel_rows, static_cast<Index>(wanted))
                                            : std::max<Index>(max_panel_rows, n_);
}

// So many rows that a panel which is read again is still in the first cache, or in the second; for dense rows
// a multiple of a group. In column order long panels are best, even if they are read again from memory.
Index RowsView::rows_in_cache() const {
    if (!dense()) {
        const double fit = 32768.0 * static_cast<double>(n_) / (entries_ + 1.0);
        return fit < max_panel_rows ? std::max<Index>(8, static_cast<Index>(fit)) : max_panel_rows;
    }
    if (X_.column_stride != 1 && !shifted()) return max_panel_rows;
    constexpr Index group = 8, some = 4 * group, second = 32768;
    const Index first = 25600 / (shifted() ? Index(sizeof(double)) : item()), d = std::max<Index>(1, width_);
    const Index fit = first / d >= group ? first / d : std::min(some, second / d);
    return std::max(group, std::min(max_panel_rows, fit) / group * group);
}

// Views are made where they stay: a copy would wait for what has just been written.
RowPanel RowsView::panel(Index first, Index m, Workspace& workspace, Read read) const {
    constexpr Index worthwhile = 8;  // columns in a run: with fewer, packing pays
    if (!dense())
        return shifted() ? RowPanel{shifted_csr_panel(first, m, workspace, read)}
                         : RowPanel{csr_panel(first, m, read)};
    const bool few_runs = static_cast<Index>(columns_.size()) * worthwhile <= d_ + worthwhile;
    const bool lines = X_.column_stride == 1 || X_.row_stride == 1;
    if (d_ < width_) return {whole_panel(first, m, read)};
    if (d_ > 0 && few_runs && lines && !shifted()) return {panel_as_it_lies(first, m, read)};
    return {packed_panel(first, m, workspace, read)};
}

PanelView RowsView::csr_panel(Index first, Index m, Read read) const {
    PanelView view;
    view.X = X_;
    view.X.indptr = row_at(first);
    view.read = read;
    view.gathers = gathers();
    view.m = m;
    return view;
}

PanelView RowsView::panel_as_it_lies(Index first, Index m, Read read) const {
    constexpr double in_cache = 1048576.0;  // bytes that stay in the cache
    PanelView view;
    view.read = read;
    view.X = X_;
    view.X.data = row_at(first);
    view.m = m;
    view.following = entries_ * static_cast<double>(item()) > in_cache ? n_ - first - m : 0;
    view.runs = columns_.data();
    view.run_count = static_cast<Index>(columns_.size());
    return view;
}

PanelView RowsView::whole_panel(Index first, Index m, Read read) const {
    PanelView view = panel_as_it_lies(first, m, read);
    view.runs = &read_;
    view.run_count = 1;
    return view;
}

// The columns that are seen, side by side, row by row, less the shift.
PanelView RowsView::packed_panel(Index first, Index m, Workspace& workspace, Read read) const {
    char* packed = workspace.take<char>(m * d_ * (shifted() ? Index(sizeof(double)) : item()));
    PanelView view = panel_as_it_lies(first, m, read);
    if (shifted()) {
        view.X.shift += first * view.X.shift_row_stride;
        kernels().copy_shifted(view, reinterpret_cast<double*>(packed));
        view.X.scalar = Scalar::float64;
        view.X.shift = nullptr;
    } else {
        kernels().copy_seen(view, packed);
    }
    view.X.data = packed;
    view.X.row_stride = d_;
    view.X.column_stride = 1;
    view.following = 0;
    view.runs = &whole_;
    view.run_count = 1;
    return view;
}

// Their indices stay where they are.
PanelView RowsView::shifted_csr_panel(Index first, Index m, Workspace& workspace, Read read) const {
    Storage rows = X_;
    rows.indptr = row_at(first);
    const std::int64_t begin = integer_at(rows.indptr, X_.index_type, 0),
                       room = integer_at(rows.indptr, X_.index_type, m) - begin;
    if (begin < 0 || room < 0 || static_cast<std::size_t>(begin + room) > X_.entries)
        fail(Status::outside, X_.canonical);
    double* entries = workspace.take(room + m + 1);  // and places, which are not larger
    void* indptr = entries + room;
    require_fine(kernels().copy_csr_shifted(rows, m, entries, room, indptr), X_.canonical);
    PanelView view;
    view.X = X_;
    view.X.scalar = Scalar::float64;
    view.X.data = entries;
    view.X.indices = static_cast<const char*>(X_.indices) + begin * index_item();
    view.X.indptr = indptr;
    view.X.entries = static_cast<std::size_t>(room);
    view.X.shift = nullptr;
    view.read = read;
    view.gathers = gathers();
    view.m = m;
    return view;
}

void RowsView::count_stored(const RowPanel& panel, Eigen::Ref<Vector> counts) const {
    if (dense())
        counts.setConstant(static_cast<double>(d_));
    else
        require_fine(kernels().count_stored(panel.view, counts.data()), X_.canonical);
}

VectorRef RowsView::spread(const VectorRef& theta, Workspace& workspace) const {
    if (d_ == width_) return theta;
    Eigen::Map<Vector> wide(workspace.take(width_), width_);
    spread_to(theta, wide);
    return wide;
}

void RowsView::spread_to(const VectorRef& theta, Eigen::Ref<Vector> wide) const {
    if (d_ == width_) {
        wide = theta;
        return;
    }
    wide.setZero();
    each_run(columns_, [&](const Run& run, Index j) {
        wide.segment(run.first, run.count) = theta.segment(j, run.count);
    });
}

// For dense rows one vector after the other; for CSR rows the two entries for a column side by side.
VectorRef RowsView::spread(const VectorRef& theta, const VectorRef& v, Workspace& workspace) const {
    Eigen::Map<Vector> all(workspace.take(2 * width_), 2 * width_);
    if (dense()) {
        spread_to(theta, all.head(width_));
        spread_to(v, all.tail(width_));
        return all;
    }
    if (d_ < width_) all.setZero();
    each_run(columns_, [&](const Run& run, Index j) {
        double* to = all.data() + 2 * run.first;
        for (Index k = 0; k < run.count; ++k) {
            to[2 * k] = theta(j + k);
            to[2 * k + 1] = v(j + k);
        }
    });
    return all;
}

void RowsView::collect(const VectorRef& sums, double sign, Eigen::Ref<Vector> g) const {
    if (d_ == width_) {
        kernels().add_scaled(d_, sign, sums.data(), g.data());
        return;
    }
    each_run(columns_, [&](const Run& run, Index j) {
        kernels().add_scaled(run.count, sign, sums.data() + run.first, g.data() + j);
    });
}

void RowsView::spread_many(const double* theta, Index stride, Index K, Read read,
                           Eigen::Ref<Vector> wide) const {
    if (dense() || read != Read::entry) {
        for (Index k = 0; k < K; ++k)
            spread_to(Eigen::Map<const Vector>(theta + k * stride, d_), wide.segment(k * width_, width_));
        return;
    }
    const Index all = together(K);
    wide.setZero();
    each_run(columns_, [&](const Run& run, Index j) {
        for (Index c = 0; c < run.count; ++c)
            for (Index k = 0; k < K; ++k) wide((run.first + c) * all + k) = theta[k * stride + j + c];
    });
}

void RowsView::collect_many(const VectorRef& sums, Index K, Read read, double sign, double* g,
                            Index stride) const {
    if (dense() || read != Read::entry) {
        for (Index k = 0; k < K; ++k)
            collect(sums.segment(k * width_, width_), sign, Eigen::Map<Vector>(g + k * stride, d_));
        return;
    }
    const Index all = together(K);
    each_run(columns_, [&](const Run& run, Index j) {
        for (Index c = 0; c < run.count; ++c)
            for (Index k = 0; k < K; ++k) g[k * stride + j + c] += sign * sums((run.first + c) * all + k);
    });
}

// For CSR rows the sum of a column has as many terms as the column has entries.
void RowsView::add_additions(Eigen::Ref<Vector> k) const {
    const Index p = panel_rows();
    if (dense()) {
        k.array() += static_cast<double>(std::min(n_, p) + (n_ + p - 1) / p) + entry_roundings();
        return;
    }
    Vector entries = Vector::Zero(width_);
    require_fine(kernels().count_columns(X_, n_, entries.data()), X_.canonical);
    const auto rows = static_cast<double>(p);
    const double panels = std::ceil(static_cast<double>(n_) / rows);
    entries = (entries.array().min(rows) + entries.array().min(panels) + entry_roundings()).matrix();
    collect(entries, 1.0, k);
}

Index RowsView::largest_row() const {
    if (dense()) return d_;
    Index largest = 0;
    require_fine(kernels().largest_row(X_, n_, &largest), X_.canonical);
    return largest;
}

// Each slice has a matrix (d, d) of its own, which must be small beside X and beside the cache.
Index RowsView::gram_parts() const {
    if (!dense()) return 1;
    constexpr Index most = 8, least_rows = 512, memory = Index(1) << 22;
    return std::max<Index>(1, std::min({most, n_ / least_rows, memory / std::max<Index>(1, d_ * d_)}));
}

void RowsView::add_gram(const double* w, Eigen::Ref<Matrix> H) const {
    add_gram(w, H, [](Index, Index, Index) {});
}

void RowsView::add_gram(const double* w, Eigen::Ref<Matrix> H, BeforePanel before) const {
    thread_local Workspace memory;
    const Index parts = gram_parts(), n = n_, d = d_;
    require_size("H", H.size(), d * d);
    if (!dense()) {
        before(0, 0, n);
        add_csr_gram(w, H);
        return;
    }
    if (parts == 1) {
        add_dense_gram(w, H, [&](Index first, Index m) { before(0, first, m); });
        return;
    }
    double* sums = memory.take(parts * d * d);
    const auto of_part = [&](Index k) { return Eigen::Map<Matrix>(sums + k * d * d, d, d); };
    in_parallel(parts, [&](Index k) {
        const Index begin = n * k / parts, end = n * (k + 1) / parts;
        of_part(k).setZero();
        slice(begin, end - begin).add_dense_gram(w + begin, of_part(k), [&](Index first, Index m) {
            before(k, begin + first, m);
        });
    });
    for (Index k = 0; k < parts; ++k)
        for (Index j = 0; j < d; ++j) kernels().add_scaled(d - j, 1.0, &of_part(k)(j, j), &H(j, j));
}

void RowsView::add_dense_gram(const double* w, Eigen::Ref<Matrix> H,
                              FunctionRef<void(Index, Index)> before) const {
    thread_local Workspace rows, memory;
    const bool by_rows = X_.column_stride == 1, in_one_piece = columns_.size() == 1;
    const Packed terms{memory.take(packed_size(d_)), d_};
    for (Index first = 0; first < n_; first += max_panel_rows) {
        const Index m = std::min(max_panel_rows, n_ - first), next = first + m;
        before(first, m);
        if (d_ == 0) continue;
        const bool as_it_lies = !shifted() && (by_rows ? in_one_piece : X_.row_stride == 1);
        const PanelView panel = as_it_lies ? panel_as_it_lies(first, m) : packed_panel(first, m, rows);
        Index positive = 0, negative = 0;
        kernels().pack(panel, w + first, terms, &positive, &negative);
        Ahead ahead;
        if (by_rows && in_one_piece && X_.row_stride == d_)
            ahead = {row_at(next), std::min(max_panel_rows, n_ - next) * d_ * item()};
        expunge::add_gram(H, terms, 0, positive, 1.0, ahead);
        if (negative > 0) expunge::add_gram(H, terms, max_terms - negative, negative, -1.0);
    }
}

// Row by row of X where H fits the last cache; otherwise column by column of H, since one column fits.
void RowsView::add_csr_gram(const double* w, Eigen::Ref<Matrix> H) const {
    constexpr Index in_cache = 2500;
    if (d_ == 0 || n_ == 0) return;
    const auto add = [&](const Storage& X, Index m, const double* weights) {
        require_fine(kernels().csr_gram(X, m, columns_.data(), static_cast<Index>(columns_.size()), weights,
                                        H.data(), H.outerStride(), d_ > in_cache),
                     X_.canonical);
    };
    if (!shifted()) {
        add(X_, n_, w);
        return;
    }
    thread_local Workspace memory;
    constexpr double entries = 1 << 20;  // that are copied at a time
    const Index together = std::max<Index>(
        1, static_cast<Index>(entries * static_cast<double>(n_) / std::max(entries, entries_)));
    for (Index first = 0; first < n_; first += together) {
        const Index m = std::min(together, n_ - first);
        add(shifted_csr_panel(first, m, memory).X, m, w + first);
    }
}

double larger_norm2(double largest, const VectorRef& norm2) {
    for (const double x : norm2)
        if (!(x <= largest)) largest = std::isnan(x) ? std::numeric_limits<double>::infinity() : x;
    return largest;
}

double RowsView::largest_norm() const {
    thread_local Workspace packed, wide;
    const Vector ones = Vector::Ones(d_);
    const auto every = spread(ones, wide);
    Vector norm2(rows_in_cache());
    double largest = 0.0;
    for (Index first = 0; first < n_; first += rows_in_cache()) {
        const Index m = std::min(rows_in_cache(), n_ - first);
        panel(first, m, packed).map(Read::square).multiply(every, norm2.head(m));
        largest = larger_norm2(largest, norm2.head(m));
    }
    return std::sqrt(largest);
}

// Of the products, which cancel where m is far from 0, what rounding may hide is added.
std::pair<double, double> RowsView::largest_norms2(const VectorRef& w, const VectorRef& m,
                                                   const double* s) const {
    require_size("w", w.size(), d_);
    require_size("m", m.size(), d_);
    const Vector pull = w.cwiseProduct(m);
    const double own = pull.dot(m), lost = 8.0 * roundoff * static_cast<double>(d_ + 8);
    constexpr double entries_in_part = 1 << 17;
    const Index parts = std::min<Index>(n_, 1 + static_cast<Index>(entries_ / entries_in_part));
    Vector about_m = Vector::Zero(parts), about_0 = Vector::Zero(parts);
    in_parallel(parts, [&](Index part) {
        thread_local Workspace packed, of_squares, of_entries;
        const auto squares = spread(w, of_squares), entries = spread(pull, of_entries);
        const Index end = n_ * (part + 1) / parts, together = rows_in_cache();
        Vector norm2(together), along(together);
        for (Index first = n_ * part / parts; first < end; first += together) {
            const Index k = std::min(together, end - first);
            const RowPanel rows = panel(first, k, packed);
            rows.map(Read::square).multiply(squares, norm2.head(k));
            if (own > 0.0)
                rows.multiply(entries, along.head(k));
            else
                along.setZero();
            for (Index i = 0; i < k; ++i) {
                const bool there = !s || s[first + i] > 0.0;
                along(i) = there ? norm2(i) + own - 2.0 * along(i) + lost * (norm2(i) + own) : 0.0;
                if (!there) norm2(i) = 0.0;
            }
            about_m(part) = larger_norm2(about_m(part), along.head(k));
            about_0(part) = larger_norm2(about_0(part), norm2.head(k));
        }
    });
    return {larger_norm2(0.0, about_m), larger_norm2(0.0, about_0)};
}

void RowsView::require_order() const { require_fine(kernels().rows_follow(X_, n_), false); }

bool RowsView::is_canonical() const {
    std::atomic<bool> inside = true, ascending = true;
    constexpr Index entries_in_part = 1 << 17;
    const Index parts = std::min<Index>(n_, 1 + static_cast<Index>(X_.entries) / entries_in_part);
    in_parallel(parts, [&](Index part) {
        const Index first = n_ * part / parts, stop = n_ * (part + 1) / parts;
        Storage rows = X_;
        rows.indptr = row_at(first);
        const Status found = kernels().look_through(rows, stop - first);
        if (found == Status::outside) inside = false;
        if (found != Status::fine) ascending = false;
    });
    if (!inside) fail(Status::outside, false);
    return ascending;
}

Index RowsView::find_rows(const std::vector<Index>& columns, bool* found) const {
    Index total = 0;
    require_fine(
        kernels().find_rows(X_, n_, columns.data(), static_cast<Index>(columns.size()), found, &total),
        X_.canonical);
    return total;
}

}  // namespace expunge
