#pragma once
// Copies of symmetric matrices (p, p), in blocks: what is read and what is written stay in the cache
// together.
#include <algorithm>

#include "tile.hpp"

namespace expunge::kernel {

// Calls visit(i, j, rows, columns) for every block at (i, j) that is not above the diagonal.
template <class Visit>
void each_lower_block(Index p, Visit&& visit) {
    constexpr Index block = 32;
    for (Index j = 0; j < p; j += block)
        for (Index i = j; i < p; i += block) visit(i, j, std::min(block, p - i), std::min(block, p - j));
}

inline void copy_lower(Index p, const double* from, double* to) {
    const auto transposed = Eigen::Map<const Eigen::MatrixXd>(from, p, p).transpose();
    Eigen::Map<Eigen::MatrixXd> lower(to, p, p);
    each_lower_block(p, [&](Index i, Index j, Index rows, Index columns) {
        lower.block(i, j, rows, columns) = transposed.block(i, j, rows, columns);
    });
}

inline void symmetric_of_lower(Index p, const double* from, double* to) {
    const Eigen::Map<const Eigen::MatrixXd> lower(from, p, p);
    Eigen::Map<Eigen::MatrixXd> full(to, p, p);
    each_lower_block(p, [&](Index i, Index j, Index rows, Index columns) {
        if (to != from) full.block(i, j, rows, columns) = lower.block(i, j, rows, columns);
        auto above = full.block(j, i, columns, rows);
        if (i == j)
            above.triangularView<Eigen::StrictlyUpper>() = above.transpose();
        else
            above = full.block(i, j, rows, columns).transpose();
    });
}

}  // namespace expunge::kernel
