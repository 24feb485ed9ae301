#pragma once
// A row view: how kernels see a matrix X (n, d), whatever its storage. Nothing is owned.
//
//   rows(), columns()         n, and d: the columns that are seen
//   width()                   the length of the vectors that its panels take: spread(theta) widens theta
//                             (d,) to it, collect(sums) narrows sums over rows back to (d,)
//   panel(first, m)           m rows: multiply, add_transposed, add_product of both, stored; map: those of
//                             f(X), f one of Entry, Magnitude, Square
//   panel_rows()              rows summed before they join the total: p of E19
//   rows_in_cache()           rows that a panel should have, at most max_panel_rows
//   add_additions(k)          how many additions a term of each column's sum goes through (E19)
//   add_gram(w, H, before)    H += X^T diag(w) X; before(first, m) is called ahead of reading these rows
//   gram_by_panels            whether those are panels of panel_rows(), near then, or all rows
//   gram_parts()              into how many slices that is best split for threads, whatever their number
//   entries(), gram_work()    stored entries, and what add_gram costs where multiply and add_transposed
//                             together cost entries()
//   select(kept)              the same rows, fewer columns
//   slice(first, m)           m rows of them, the same columns
//   transposed()              X^T, dense rows only, and only where has_transpose()
#include <cstdint>
#include <stdexcept>
#include <string>
#include <variant>

#include "expunge/dense_rows.hpp"
#include "expunge/sparse_rows.hpp"

namespace expunge {

using Rows = std::variant<DenseRows<double>, DenseRows<float>, SparseRows<double, std::int32_t>,
                          SparseRows<double, std::int64_t>, SparseRows<float, std::int32_t>,
                          SparseRows<float, std::int64_t>>;

inline Index rows(const Rows& X) {
    return std::visit([](const auto& view) { return view.rows(); }, X);
}

inline Rows slice(const Rows& X, Index first, Index m) {
    if (first < 0 || m < 0 || first > rows(X) - m)
        throw std::invalid_argument("rows " + std::to_string(first) + " to " + std::to_string(first + m) +
                                    " are asked for, of " + std::to_string(rows(X)));
    return std::visit([&](const auto& view) -> Rows { return view.slice(first, m); }, X);
}

// A reference to what is called ahead of reading rows [first, first + m) of `part`, a slice of X, and may set
// their weights; or to nothing. Each part is one thread's.
class BeforePanel {
public:
    BeforePanel() = default;
    template <class F>
    BeforePanel(const F& f)
        : context_(&f), call_([](const void* context, Index part, Index first, Index m) {
              (*static_cast<const F*>(context))(part, first, m);
          }) {}
    void operator()(Index part, Index first, Index m) const {
        if (call_) call_(context_, part, first, m);
    }

private:
    const void* context_ = nullptr;
    void (*call_)(const void* context, Index part, Index first, Index m) = nullptr;
};

// H (d, d), lower triangle, += X^T diag(w) X for weights of either sign.
void add_gram(const Rows& X, const double* w, Eigen::Ref<Matrix> H, BeforePanel before = {});

// The largest Euclidean norm of a row; infinity where a square overflows, be its column seen or not.
double largest_norm(const Rows& X);

// The largest of some squared norms and of those before; infinity for NaN: what overflows has no known bound.
double larger_norm2(double largest, const VectorRef& norm2);

}  // namespace expunge
