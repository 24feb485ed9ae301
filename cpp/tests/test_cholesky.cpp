// The factor: built to find x from b = H x, and edited without being factored anew.
#include "expunge/cholesky.hpp"

#include "expunge/errors.hpp"
#include "problems.hpp"

using namespace expunge;
using namespace expunge::testing;

namespace {

// A well-conditioned symmetric matrix; its upper triangle is poison.
Matrix positive_definite(Index p, unsigned seed) {
    const Matrix A = Random(seed).matrix(2 * p, p);
    Matrix H = A.transpose() * A / double(p);
    H.diagonal().array() += 0.5;
    H.triangularView<Eigen::StrictlyUpper>().setConstant(poison);
    return H;
}

Matrix lower(const CholeskyFactor& factor) { return factor.lower().triangularView<Eigen::Lower>(); }

Matrix without(const Matrix& H, Index i) {
    std::vector<Index> kept;
    for (Index j = 0; j < H.rows(); ++j)
        if (j != i) kept.push_back(j);
    return H(kept, kept);
}

template <class Visit>
void for_each_size(Visit&& visit) {
    for (const Index p : {1, 2, 3, 7, 16, 33, 150}) {
        about = "p = " + std::to_string(p);
        visit(p, positive_definite(p, static_cast<unsigned>(p)));
    }
}

}  // namespace

TEST("L L^T is the matrix, of which the lower triangle is read") {
    for_each_size([](Index p, const Matrix& H) {
        const Matrix L = lower(CholeskyFactor(H));
        CHECK_AT_MOST((L * L.transpose() - symmetric(H)).norm(), 1e-15 * double(p) * symmetric(H).norm());
    });
}

TEST("solve finds x from H x, for one and for many right-hand sides") {
    for_each_size([](Index p, const Matrix& H) {
        const CholeskyFactor factor(H);
        CHECK(factor.size() == p);
        const Matrix X = Random(9).matrix(p, 5), B = symmetric(H) * X;
        CHECK_AT_MOST((factor.solve(B.col(0)) - X.col(0)).norm(), 1e-13 * X.norm());
        Matrix solved = B;
        factor.solve_in_place(solved);
        CHECK_AT_MOST((solved - X).norm(), 1e-13 * X.norm());
        Matrix wide = Matrix::Zero(p, 7);  // columns of a larger matrix, in place
        wide.middleCols(1, 5) = B;
        factor.solve_in_place(wide.middleCols(1, 5));
        CHECK_AT_MOST((wide.middleCols(1, 5) - X).norm(), 1e-13 * X.norm());
        CHECK(wide.col(0).isZero(0.0) && wide.col(6).isZero(0.0));
    });
}

TEST("erasing any index gives the factor of the matrix without it") {
    for_each_size([](Index p, const Matrix& H) {
        for (Index i = 0; i < p; i += p > 40 ? 13 : 1) {
            CholeskyFactor factor(H);
            factor.erase(i);
            CHECK(factor.size() == p - 1);
            CHECK_AT_MOST((lower(factor) - lower(CholeskyFactor(without(H, i)))).norm(), 1e-13);
        }
    });
}

TEST("erasing index after index leaves the factor of what is left, down to nothing") {
    Matrix H = positive_definite(20, 20);
    CholeskyFactor factor(H);
    for (Index p = 20; p > 0; --p) {
        const Index i = (7 * p) % p == 0 ? p / 2 : p - 1;
        factor.erase(i);
        H = without(H, i);
        CHECK_AT_MOST((lower(factor) - lower(CholeskyFactor(H))).norm(), 1e-13);
    }
    CHECK(factor.size() == 0);
}

TEST("an index out of range throws and leaves the factor as it was") {
    CholeskyFactor factor(positive_definite(4, 4));
    const Matrix before = lower(factor);
    for (const Index i : {Index(-1), Index(4), Index(100)})
        CHECK(thrown<std::out_of_range>([&] { factor.erase(i); }) ==
              "index " + std::to_string(i) + " is out of range for a factor of size 4");
    CHECK(lower(factor) == before);
}

TEST("a matrix that is not positive definite is refused with its first bad pivot and the remedy") {
    for (const Index p : {1, 4, 40, 200}) {
        for (const Index pivot : {Index(0), p / 2, p - 1}) {
            for (const double bad : {0.0, -1.0, poison}) {
                about = "p = " + std::to_string(p) + ", pivot " + std::to_string(pivot);
                Matrix H = positive_definite(p, 11);
                H.row(pivot).head(pivot).setZero();
                H.col(pivot).tail(p - pivot - 1).setZero();
                H(pivot, pivot) = bad;
                CHECK(thrown<NotPositiveDefinite>([&] { CholeskyFactor factor(H); }) ==
                      "Hessian is not positive definite (pivot " + std::to_string(pivot) +
                          "): raise alpha above 0");
            }
        }
    }
}

TEST("a rank-deficient matrix is refused") {
    const Matrix H = Matrix::Constant(3, 3, 4.0);  // exact in floating point: the second pivot is 0
    CHECK(thrown<NotPositiveDefinite>([&] { CholeskyFactor factor(H); }) ==
          "Hessian is not positive definite (pivot 1): raise alpha above 0");
}

TEST("a NaN or infinity off the diagonal is refused too") {
    for (const double bad : {poison, std::numeric_limits<double>::infinity()}) {
        Matrix H = positive_definite(5, 5);
        H(3, 1) = bad;
        CHECK(thrown<NotPositiveDefinite>([&] {
                  CholeskyFactor factor(H);
              }).starts_with("Hessian is not positive"));
    }
}
