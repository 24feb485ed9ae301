#pragma once
#include <utility>

#include "expunge/function_ref.hpp"
#include "expunge/triangle.hpp"

namespace expunge {

// H = L L^T: factored once, solved many times, edited with H; an inverse is never formed. An edit that throws
// has changed nothing.
class CholeskyFactor {
public:
    // H (p, p), lower triangle read. Throws NotPositiveDefinite with the pivot that fails.
    explicit CholeskyFactor(Matrix H);
    // Of H = A^T A, from the rows of A (p each): R^T of A = Q R keeps twice the digits that H does. `fill`
    // writes as many of them as there is room for, and 0s after the last, and returns how many; 0 ends it.
    static CholeskyFactor of_rows(Index p, FunctionRef<Index(Eigen::Ref<Matrix>)> fill);

    Index size() const { return L_.rows(); }
    // L in the lower triangle; the rest is not defined.
    const Matrix& lower() const { return L_; }

    // b (p, k) becomes H^-1 b.
    void solve_in_place(Eigen::Ref<Matrix> b) const;
    Vector solve(const VectorRef& b) const;

    // Of H^-1 (p,): the squared norms of the columns of L^-1.
    Vector inverse_diagonal() const;

    // H becomes H + V V^T, V (p, k).
    void update(Matrix V);
    // H becomes H - V V^T. Throws NotPositiveDefinite unless I - V^T H^-1 V is, by more than rounding.
    void downdate(Matrix V);
    // H gets one more row and column, at the end: h (p + 1,). Throws NotPositiveDefinite with pivot p.
    void append(const VectorRef& h);
    // Removes row and column i of H by a rank-1 update of the trailing block, which cannot fail.
    void erase(Index i);

private:
    enum class Given { lower };
    CholeskyFactor(Matrix L, Given) : L_(std::move(L)), solver_(L_) {}
    void replace(Matrix L);

    Matrix L_;
    TriangularSolver solver_;
};

}  // namespace expunge
