#pragma once
// Level-3 work on packed columns, shared among threads.
#include <optional>

#include "expunge/types.hpp"

namespace expunge {

// lower (p, p) += sign A^T A, lower triangle, A the terms [first, first + terms) of p columns.
void add_gram(Eigen::Ref<Matrix> lower, const Packed& A, Index first, Index terms, double sign,
              Ahead ahead = {});

// lower (p, p) += sign A A^T, A (p, m).
void add_product(Eigen::Ref<Matrix> lower, const Eigen::Ref<const Matrix, 0, Eigen::OuterStride<>>& A,
                 double sign);

// A (p, p), lower triangle, becomes L with A = L L^T. Returns the pivot that is not a positive number, with A
// spoiled, or none.
std::optional<Index> factor_in_place(Eigen::Ref<Matrix> A);

}  // namespace expunge
