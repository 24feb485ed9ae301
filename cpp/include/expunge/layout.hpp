#pragma once
// Loops over what is handed in and out: copies of triangles, and whether numbers are what they must be.
#include "expunge/losses.hpp"
#include "expunge/types.hpp"

namespace expunge {

// The lower triangle of a row-major matrix (p, p), column-major. Above the diagonal, `to` is not defined.
void copy_lower(Index p, const double* from, double* to);

// The full symmetric matrix (p, p) of a lower triangle, column-major; `to` may be `from`.
void symmetric_of_lower(Index p, const double* from, double* to);

// Whether all n numbers are targets of this loss; and whether they are weights.
bool are_targets(const Loss& loss, const double* y, Index n);
bool are_weights(const double* s, Index n);

}  // namespace expunge
