#include "expunge/triangle.hpp"

namespace expunge {

Vector multiply_symmetric(const Matrix& lower, const VectorRef& x) {
    Vector product(lower.rows());
    kernels().symmetric_multiply(lower.rows(), lower.data(), lower.outerStride(), x.data(), product.data());
    return product;
}

TriangularSolver::TriangularSolver(const Matrix& L) : inverses_(8, L.rows() / 8 * 8) {
    kernels().invert_blocks(L.rows(), L.data(), L.outerStride(), inverses_.data());
}

void TriangularSolver::forward(const Matrix& L, Eigen::Ref<Vector> b) const {
    kernels().forward(L.rows(), L.data(), L.outerStride(), inverses_.data(), b.data());
}

void TriangularSolver::backward(const Matrix& L, Eigen::Ref<Vector> b) const {
    kernels().backward(L.rows(), L.data(), L.outerStride(), inverses_.data(), b.data());
}

}  // namespace expunge
