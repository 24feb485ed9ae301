#include "expunge/packed.hpp"

#include <algorithm>

#include "expunge/columns.hpp"
#include "expunge/parallel.hpp"

namespace expunge {

namespace {

// Whether there are several threads, and so many multiplications take longer than starting them.
bool worth_threads(Index rows, Index columns, Index terms) {
    return threads() > 1 &&
           static_cast<double>(rows) * static_cast<double>(columns) * static_cast<double>(terms) >= 4e6;
}

Index blocks_of(Index columns) { return (columns + packed_block - 1) / packed_block; }

}  // namespace

void add_gram(Eigen::Ref<Matrix> lower, const Packed& A, Index first, Index terms, double sign, Ahead ahead) {
    const Index blocks = blocks_of(A.columns);
    const auto add_blocks = [&](Ahead fetched, Index begin, Index end) {
        kernels().gram_blocks(lower.data(), lower.outerStride(), A, first, terms, sign, fetched, begin, end);
    };
    if (!worth_threads(A.columns, A.columns / 2, terms)) {
        add_blocks(ahead, 0, blocks);
        return;
    }
    in_parallel(blocks, [&](Index k) { add_blocks({}, blocks - 1 - k, blocks - k); });  // the largest first
}

void add_product(Eigen::Ref<Matrix> lower, const Eigen::Ref<const Matrix, 0, Eigen::OuterStride<>>& A,
                 double sign) {
    thread_local Workspace memory;
    const Packed terms{memory.take(packed_size(A.rows())), A.rows()};
    for (Index first = 0; first < A.cols(); first += max_terms) {
        const Index count = std::min(max_terms, A.cols() - first);
        for (Index t = 0; t < count; ++t) kernels().pack_term(terms, t, A.col(first + t).data());
        add_gram(lower, terms, 0, count, sign);
    }
}

std::optional<Index> factor_in_place(Eigen::Ref<Matrix> A) {
    thread_local Workspace memory;
    alignas(64) double inverse[max_terms + 8];
    const Index p = A.rows(), stride = A.outerStride();
    for (Index j = 0; j < p; j += max_terms) {
        const Index width = std::min(max_terms, p - j), below = p - j - width;
        const Packed L{memory.take(packed_size(p - j)), p - j};
        double* rest = &A(j, j);
        if (const Index pivot = kernels().factor_top(rest, stride, L, width, inverse); pivot >= 0)
            return j + pivot;
        if (below == 0) break;
        if (!worth_threads(below, width, width / 2)) {
            kernels().factor_below(rest, stride, L, width, inverse, width, p - j);
        } else {
            in_parallel(blocks_of(below), [&](Index k) {
                const Index begin = width + k * packed_block;
                kernels().factor_below(rest, stride, L, width, inverse, begin,
                                       std::min(begin + packed_block, p - j));
            });
        }
        add_gram(A.bottomRightCorner(below, below), L.from(width), 0, width, -1.0);
    }
    return std::nullopt;
}

}  // namespace expunge
