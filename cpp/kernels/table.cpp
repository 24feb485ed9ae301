// The table of one instruction set.
#include "table.hpp"

#include <new>

#include "csr.hpp"
#include "dense.hpp"
#include "losses.hpp"
#include "packed.hpp"
#include "softmax.hpp"
#include "symmetric.hpp"
#include "triangle.hpp"

namespace expunge::kernel {

namespace {

template <class F>
Status guarded(F&& f) {
    try {
        f();
        return Status::fine;
    } catch (const Outside&) {
        return Status::outside;
    } catch (const Disordered&) {
        return Status::disordered;
    } catch (const std::bad_alloc&) {
        return Status::no_memory;
    }
}

// Calls f(CsrArrays<T, I>(X)) for the types of X.
template <class F>
decltype(auto) with_csr(const Storage& X, F&& f) {
    return with_scalar(X.scalar, [&]<class T>(T) {
        return X.index_type == IndexType::int32 ? f(CsrArrays<T, std::int32_t>(X))
                                                : f(CsrArrays<T, std::int64_t>(X));
    });
}

template <class T, class I>
CsrPanel<T, I> entries_of(const CsrArrays<T, I>&, const PanelView& X) {
    return CsrPanel<T, I>(X);
}

// Calls f(panel) for the storage of X and the function of its entries.
template <class F>
void with_panel(const PanelView& X, F&& f) {
    with_read(X.read, [&]<class R>(R) {
        if (X.X.kind == Kind::csr)
            with_csr(X.X, [&]<class T, class I>(const CsrArrays<T, I>&) { f(CsrPanel<T, I, R>(X)); });
        else
            with_scalar(X.X.scalar, [&]<class T>(T) { f(DensePanel<T, R>(X)); });
    });
}

void add_offset(Index m, double offset, double* eta) {
    if (offset != 0.0) vector(eta, m).array() += offset;
}

Status multiply(const PanelView& X, const double* theta, double offset, double* eta) {
    return guarded([&] {
        with_panel(X, [&](const auto& panel) { panel.multiply(theta, eta); });
        add_offset(X.m, offset, eta);
    });
}

Status multiply_two(const PanelView& X, const double* both, double offset, double v_offset, double* eta,
                    double* x_v) {
    return guarded([&] {
        if (X.X.kind == Kind::csr)
            with_csr(X.X, [&](const auto& arrays) { entries_of(arrays, X).multiply_two(both, eta, x_v); });
        else
            with_scalar(X.X.scalar, [&]<class T>(T) {
                const DensePanel<T> panel(X);
                panel.multiply(both, eta);
                panel.multiply(both + count(X.runs, X.run_count), x_v);
            });
        add_offset(X.m, offset, eta);
        add_offset(X.m, v_offset, x_v);
    });
}

Status add_transposed(const PanelView& X, const double* r, double* g) {
    return guarded([&] { with_panel(X, [&](const auto& panel) { panel.add_transposed(r, g); }); });
}

Status multiply_many(const PanelView& X, Index K, Index stride, const double* thetas, double* eta) {
    return guarded([&] {
        with_csr(X.X,
                 [&](const auto& arrays) { entries_of(arrays, X).multiply_many(K, stride, thetas, eta); });
    });
}

Status add_transposed_many(const PanelView& X, Index K, Index stride, const double* r, double* g) {
    return guarded([&] {
        with_csr(X.X,
                 [&](const auto& arrays) { entries_of(arrays, X).add_transposed_many(K, stride, r, g); });
    });
}

Status count_stored(const PanelView& X, double* counts) {
    return guarded([&] {
        with_csr(X.X, [&](const auto& arrays) {
            for (Index i = 0; i < X.m; ++i) counts[i] = static_cast<double>(arrays.row(i).size());
        });
    });
}

void copy_seen(const PanelView& X, void* to) {
    with_scalar(X.X.scalar, [&]<class T>(T) { DensePanel<T>(X).copy_seen(static_cast<T*>(to)); });
}

void copy_shifted(const PanelView& X, double* to) {
    with_scalar(X.X.scalar, [&]<class T>(T) { DensePanel<T>(X).copy_shifted(X.X, to); });
}

Status copy_csr_shifted(const Storage& X, Index m, double* entries, Index room, void* indptr) {
    return guarded([&] {
        with_csr(X, [&]<class T, class I>(const CsrArrays<T, I>& arrays) {
            copy_shifted(arrays, m, X.shift, entries, room, static_cast<I*>(indptr));
        });
    });
}

Status rows_follow(const Storage& X, Index n) {
    return guarded([&] { with_csr(X, [&](const auto& arrays) { require_order(arrays, n); }); });
}

Status look_through(const Storage& X, Index n) {
    const Indices found = with_csr(X, [&](const auto& arrays) { return look_through(arrays, n); });
    return !found.inside ? Status::outside : !found.ascending ? Status::disordered : Status::fine;
}

Status largest_row(const Storage& X, Index n, Index* largest) {
    return guarded(
        [&] { *largest = with_csr(X, [&](const auto& arrays) { return largest_row(arrays, n); }); });
}

Status count_columns(const Storage& X, Index n, double* counts) {
    return guarded([&] { with_csr(X, [&](const auto& arrays) { count_columns(arrays, n, counts); }); });
}

Status find_rows(const Storage& X, Index n, const Index* columns, Index count, bool* found, Index* total) {
    return guarded([&] {
        std::vector<char> wanted(X.width, 0);
        for (Index k = 0; k < count; ++k)
            if (const auto j = static_cast<std::size_t>(columns[k]); j < X.width) wanted[j] = 1;
        *total = with_csr(X, [&](const auto& arrays) { return find_rows(arrays, n, wanted, found); });
    });
}

Status csr_gram(const Storage& X, Index n, const Run* runs, Index run_count, const double* w, double* H,
                Index stride, bool by_columns) {
    return guarded([&] {
        with_csr(X, [&]<class T, class I>(const CsrArrays<T, I>&) {
            const CsrGram<T, I> gram(X, n, runs, run_count, w, H, stride);
            if (by_columns)
                gram.add_by_columns();
            else
                gram.add_by_rows();
        });
    });
}

bool are_targets(LossKey loss, Index n, const double* y) {
    return with_loss(loss, [&](const auto& L) { return L.are_targets(n, y); });
}

bool are_weights(Index n, const double* s) {
    constexpr double most = std::numeric_limits<double>::max();
    return all_of(n, s, [](double w) { return (w >= 0.0) & (w <= most); });
}

double weighted_loss(LossKey loss, Index m, const double* eta, const double* y, const double* s,
                     double* value, double* r, double* w) {
    with_loss(loss, [&](const auto& L) { L.weighted_loss(m, eta, y, s, value, r, w); });
    return vector(value, m).sum();
}

void weighted_d1(LossKey loss, Index m, const double* eta, const double* y, const double* s, bool weighted,
                 double* r) {
    with_loss(loss, [&](const auto& L) { L.weighted_d1(m, eta, y, s, weighted, r); });
}

void weighted_d2(LossKey loss, Index m, const double* eta, const double* y, const double* s, bool weighted,
                 double* w) {
    with_loss(loss, [&](const auto& L) { L.weighted_d2(m, eta, y, s, weighted, w); });
}

void rounding_of(LossKey loss, Index m, const double* r, const double* y, const double* s, double additions,
                 const double* eta_rounding, double* rounding) {
    with_loss(loss, [&](const auto& L) { L.rounding_of(m, r, y, s, additions, eta_rounding, rounding); });
}

double sum_of_rounding(LossKey loss, Index m, const double* r, const double* y, const double* s,
                       double additions, double for_each_norm, double one, double* norm2) {
    return with_loss(loss, [&](const auto& L) {
        return L.sum_of_rounding(m, r, y, s, additions, for_each_norm, one, norm2);
    });
}

void slope_and_rounding(LossKey loss, Index m, const double* d1, const double* y, const double* s,
                        bool weighted, const double* eta_rounding, double* slope, double* rounding) {
    with_loss(loss, [&](const auto& L) {
        L.slope_and_rounding(m, d1, y, s, weighted, eta_rounding, slope, rounding);
    });
}

double summed_softmax_loss(Index m, Index K, const double* eta, const double* y, const double* s,
                           double* value, double* r, double* c, Index stride) {
    softmax_loss(m, K, eta, y, s, value, r, c, stride);
    return vector(value, m).sum();
}

double sum(Index n, const double* x) { return vector(x, n).sum(); }
double dot(Index n, const double* x, const double* y) { return vector(x, n).dot(vector(y, n)); }
void add_scaled(Index n, double a, const double* x, double* y) { vector(y, n) += a * vector(x, n); }

bool all_finite(Index n, const void* x, Scalar scalar) {
    return with_scalar(scalar, [&]<class T>(T) {
        const T* values = static_cast<const T*>(x);
        Index found = 0;
        for (Index i = 0; i < n; ++i) found += !(std::abs(values[i]) <= std::numeric_limits<T>::max());
        return found == 0;
    });
}

void pack(const PanelView& X, const double* w, const Packed& terms, Index* positive, Index* negative) {
    with_scalar(X.X.scalar, [&]<class T>(T) { DensePanel<T>(X).pack(w, terms, *positive, *negative); });
}

void pack_term(const Packed& terms, Index term, const double* x) { PackedColumns(terms).set(term, x, 1.0); }

void gram_blocks(double* lower, Index stride, const Packed& A, Index first, Index count, double sign,
                 Ahead ahead, Index begin, Index end) {
    gram_blocks(Lower{lower, stride, A.columns}, PackedColumns(A), first, count, sign, ahead, begin, end);
}

Index factor_top(double* A, Index stride, const Packed& L, Index width, double* inverse) {
    return factor_top(Lower{A, stride, L.columns}, PackedColumns(L), width, inverse);
}

void factor_below(double* A, Index stride, const Packed& L, Index width, const double* inverse, Index begin,
                  Index end) {
    factor_below(Lower{A, stride, L.columns}, PackedColumns(L), width, inverse, begin, end);
}

Status guarded_solve(Index p, const double* L, Index stride, Index k, double* B, Index B_stride,
                     bool transposed) {
    return guarded([&] { solve(p, L, stride, k, B, B_stride, transposed); });
}

double chains(Index rounds, double start, double* operations) {
#if defined(__AVX__) || defined(__aarch64__)
    constexpr int count = 10;  // enough to hide latency, and few enough for the registers
#else
    constexpr int count = 6;
#endif
    TileColumn sums[count];
    for (int k = 0; k < count; ++k) sums[k].setConstant(start + k);
    const TileColumn factor = TileColumn::Constant(start - 1e-9), term = TileColumn::Constant(1e-9);
    for (Index i = 0; i < rounds; ++i)
        for (int k = 0; k < count; ++k) sums[k] = sums[k] * factor + term;
    for (int k = 1; k < count; ++k) sums[0] += sums[k];
    *operations = 2.0 * static_cast<double>(rounds * count * tile);
    return sums[0].sum();
}

#ifdef EXPUNGE_GATHERS
constexpr bool has_gathers = true;
#else
constexpr bool has_gathers = false;
#endif

}  // namespace

const Kernels& table() {
    static const Kernels all{
        .size = sizeof(Kernels),
        .isa = EXPUNGE_ISA,
        .simd = Eigen::SimdInstructionSetsInUse(),
        .has_gathers = has_gathers,
        .multiply = multiply,
        .multiply_two = multiply_two,
        .add_transposed = add_transposed,
        .multiply_many = multiply_many,
        .add_transposed_many = add_transposed_many,
        .count_stored = count_stored,
        .copy_seen = copy_seen,
        .copy_shifted = copy_shifted,
        .copy_csr_shifted = copy_csr_shifted,
        .rows_follow = rows_follow,
        .look_through = look_through,
        .largest_row = largest_row,
        .count_columns = count_columns,
        .find_rows = find_rows,
        .csr_gram = csr_gram,
        .are_targets = are_targets,
        .are_weights = are_weights,
        .weighted_loss = weighted_loss,
        .weighted_d1 = weighted_d1,
        .weighted_d2 = weighted_d2,
        .rounding_of = rounding_of,
        .sum_of_rounding = sum_of_rounding,
        .slope_and_rounding = slope_and_rounding,
        .weigh = weigh,
        .softmax_loss = summed_softmax_loss,
        .softmax_hessian_times = softmax_hessian_times,
        .softmax_rounding = softmax_rounding,
        .sum = sum,
        .dot = dot,
        .add_scaled = add_scaled,
        .all_finite = all_finite,
        .pack = pack,
        .pack_term = pack_term,
        .gram_blocks = gram_blocks,
        .factor_top = factor_top,
        .factor_below = factor_below,
        .copy_lower = copy_lower,
        .symmetric_of_lower = symmetric_of_lower,
        .symmetric_multiply = symmetric_multiply,
        .invert_blocks = invert_blocks,
        .forward = forward,
        .backward = backward,
        .solve = guarded_solve,
        .rotate_in = rotate_in,
        .rotate_out = rotate_out,
        .chains = chains,
    };
    return all;
}

}  // namespace expunge::kernel
