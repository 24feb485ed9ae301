#pragma once
// What one thread of this machine can do: what kernels are measured against.
#include "expunge/types.hpp"

namespace expunge {

// Operations in a second, two for a multiplication with its addition, of chains of them in registers.
double arithmetic_rate();

// Bytes in a second, of a sum over n numbers.
double reading_rate(const double* x, Index n);

}  // namespace expunge
