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

// The lower triangle of A (p, p) becomes L with A = L L^T. Returns the first pivot that is not positive, and
// then A is spoiled; or nothing.
std::optional<Index> factor_in_place(Eigen::Ref<Matrix> A);

}  // namespace expunge
