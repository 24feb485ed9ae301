#pragma once
// Frequent operations on a lower triangle, by kernels.
#include "expunge/types.hpp"

namespace expunge {

// S x, S (p, p) symmetric with the lower triangle `lower`.
Vector multiply_symmetric(const Matrix& lower, const VectorRef& x);

// Solves with a lower triangular L (p, p). Its diagonal blocks of eight columns are inverted beforehand, so
// that one block waits less for the one before. The last columns, if fewer than eight, are solved by
// substitution.
class TriangularSolver {
public:
    explicit TriangularSolver(const Matrix& L);

    void forward(const Matrix& L, Eigen::Ref<Vector> b) const;   // b becomes L^-1 b
    void backward(const Matrix& L, Eigen::Ref<Vector> b) const;  // b becomes L^-T b

private:
    Matrix inverses_;  // (8, p), of the blocks side by side
};

}  // namespace expunge
