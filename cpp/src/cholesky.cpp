#include "expunge/cholesky.hpp"

#include <Eigen/Cholesky>
#include <cmath>
#include <stdexcept>
#include <string>

#include "expunge/errors.hpp"

namespace expunge {

namespace {
// Where the factorization breaks down; only asked after it has.
Index failing_pivot(Matrix H) {
    const Index p = H.rows();
    for (Index j = 0; j < p; ++j) {
        if (!(H(j, j) > 0.0)) return j;
        const auto column = (H.col(j).tail(p - j - 1) /= std::sqrt(H(j, j)));
        H.bottomRightCorner(p - j - 1, p - j - 1).selfadjointView<Eigen::Lower>().rankUpdate(column, -1.0);
    }
    return p - 1;
}
}  // namespace

CholeskyFactor::CholeskyFactor(const Matrix& H) : L_(H) {
    const Eigen::LLT<Eigen::Ref<Matrix>, Eigen::Lower> in_place(L_);
    if (in_place.info() != Eigen::Success || !L_.diagonal().allFinite())
        throw NotPositiveDefinite(failing_pivot(H));
}

void CholeskyFactor::solve_in_place(Eigen::Ref<Matrix> b) const {
    L_.triangularView<Eigen::Lower>().solveInPlace(b);
    L_.triangularView<Eigen::Lower>().transpose().solveInPlace(b);
}

Vector CholeskyFactor::solve(const VectorRef& b) const {
    Vector x = b;
    L_.triangularView<Eigen::Lower>().solveInPlace(x);
    L_.triangularView<Eigen::Lower>().transpose().solveInPlace(x);
    return x;
}

void CholeskyFactor::erase(Index i) {
    const Index p = size();
    if (i < 0 || i >= p)
        throw std::out_of_range("index " + std::to_string(i) + " is out of range for a factor of size " +
                                std::to_string(p));
    const Index m = p - i - 1;  // trailing block: L33 L33^T + l32 l32^T
    Vector v = L_.col(i).tail(m);
    Matrix smaller(p - 1, p - 1);
    smaller.topLeftCorner(i, i) = L_.topLeftCorner(i, i);
    smaller.bottomLeftCorner(m, i) = L_.bottomLeftCorner(m, i);
    smaller.topRightCorner(i, m).setZero();
    smaller.bottomRightCorner(m, m) = L_.bottomRightCorner(m, m);
    auto L = smaller.bottomRightCorner(m, m);
    for (Index k = 0; k < m; ++k) {
        const double r = std::hypot(L(k, k), v(k));
        const double c = r / L(k, k), s = v(k) / L(k, k);
        L(k, k) = r;
        auto below = L.col(k).tail(m - k - 1);
        auto rest = v.tail(m - k - 1);
        below = (below + s * rest) / c;
        rest = c * rest - s * below;
    }
    L_.swap(smaller);
}

}  // namespace expunge
