#pragma once
// A row view: how kernels see a matrix X (n, d), whatever its storage. Nothing is owned.
//
//   rows(), columns()         n, and d: the columns that are seen
//   width()                   the length of the vectors that its panels take: spread(theta) widens theta
//                             (d,) to it, collect(sums) narrows sums over rows back to (d,)
//   panel(first, m)           m rows: multiply, add_transposed, add_product of both, map, stored
//   panel_rows()              rows summed before they join the total: p of E19
//   rows_in_cache()           rows that a panel should have, at most max_panel_rows
//   add_additions(k)          how many additions a term of each column's sum goes through (E19)
//   add_gram(w, H)            H += X^T diag(w) X
//   entries(), gram_work()    stored entries, and what add_gram costs where multiply and add_transposed
//                             together cost entries()
//   select(kept)              the same rows, fewer columns
#include <algorithm>
#include <memory>
#include <numeric>
#include <variant>
#include <vector>

#include "expunge/types.hpp"

namespace expunge {

constexpr Index max_panel_rows = 256;

// Columns [first, first + count) that are seen, side by side; a list of them ascends.
struct Run {
    Index first, count;
    bool operator==(const Run&) const = default;
};
using Runs = std::vector<Run>;

inline Runs all_columns(Index d) { return {{0, d}}; }

inline Index count(const Runs& runs) {
    return std::accumulate(runs.begin(), runs.end(), Index(0),
                           [](Index sum, const Run& run) { return sum + run.count; });
}

// Adds a column to the end of a list.
inline void append(Runs& runs, Index column) {
    if (!runs.empty() && column == runs.back().first + runs.back().count)
        ++runs.back().count;
    else
        runs.push_back({column, 1});
}

// Of the columns in `runs`, those at the positions `kept`, which ascend.
inline Runs select(const Runs& runs, const std::vector<Index>& kept) {
    Runs selected;
    Index before = 0;  // positions in the runs that are through
    auto run = runs.begin();
    for (const Index position : kept) {
        while (position >= before + run->count) before += (run++)->count;
        append(selected, run->first + position - before);
    }
    return selected;
}

// Scratch memory that grows and is kept: one per thread and use, so that a kernel allocates once.
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

}  // namespace expunge

#include "expunge/dense_rows.hpp"
#include "expunge/sparse_rows.hpp"

namespace expunge {

using Rows = std::variant<DenseRows<double>, DenseRows<float>, SparseRows<double, std::int32_t>,
                          SparseRows<double, std::int64_t>, SparseRows<float, std::int32_t>,
                          SparseRows<float, std::int64_t>>;

inline Index rows(const Rows& X) {
    return std::visit([](const auto& view) { return view.rows(); }, X);
}

// H (d, d), lower triangle, += X^T diag(w) X for weights of either sign.
inline void add_gram(const Rows& X, const double* w, Eigen::Ref<Matrix> H) {
    std::visit([&](const auto& view) { view.add_gram(w, H); }, X);
}

// The largest Euclidean norm of a row.
double largest_norm(const Rows& X);

}  // namespace expunge
