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

TEST("an update gives the factor of the sum, a downdate takes it back") {
    for_each_size([](Index p, const Matrix& H) {
        for (const Index k : {Index(0), Index(1), Index(2), p / 8 + 1, p / 8 + 2, p, 2 * p + 1}) {
            const Matrix V = Random(5).matrix(p, k) / std::sqrt(double(p));
            CholeskyFactor factor(H);
            factor.update(V);
            const Matrix sum = symmetric(H) + V * V.transpose();
            CHECK_AT_MOST((lower(factor) - lower(CholeskyFactor(sum))).norm(), 1e-13 * sum.norm());
            factor.downdate(V);
            CHECK_AT_MOST((lower(factor) - lower(CholeskyFactor(H))).norm(), 1e-13 * sum.norm());
        }
    });
}

TEST("an update and a downdate by nothing change no bit") {
    for_each_size([](Index p, const Matrix& H) {
        CholeskyFactor factor(H);
        const Matrix before = lower(factor);
        factor.update(Matrix(p, 0));
        factor.downdate(Matrix(p, 0));
        factor.update(Matrix::Zero(p, 1));
        factor.downdate(Matrix::Zero(p, 1));
        CHECK(lower(factor) == before);
    });
}

TEST("an update does not square its columns") {
    for (const Index k : {1, 2, 5}) {
        CholeskyFactor factor(positive_definite(3, 3));
        factor.update(Matrix::Constant(3, k, 1e200));
        CHECK(lower(factor).allFinite());
        CHECK_AT_MOST(std::abs(factor.lower()(0, 0) / (1e200 * std::sqrt(double(k))) - 1.0), 1e-14);
    }
}

TEST("a downdate to an indefinite matrix is refused and changes nothing") {
    for_each_size([](Index p, const Matrix& H) {
        for (const Index k : {Index(1), Index(2), p / 8 + 2, 2 * p + 1}) {
            for (const double left : {-3.0, -1e-12, 0.0, 1e-12}) {
                CholeskyFactor factor(H);
                const Matrix before = lower(factor);
                // in direction of the first column nothing but `left` of H would remain
                Matrix V = Matrix::Zero(p, k);
                V.col(k - 1) = before.col(0) * std::sqrt(1.0 - left);
                CHECK(thrown<NotPositiveDefinite>([&] {
                          factor.downdate(V);
                      }).starts_with("the factor would lose positive definiteness ("));
                CHECK(lower(factor) == before);
            }
        }
    });
}

TEST("a refused downdate says how far it is too much, and the remedy") {
    const std::string remedy = "): factor the changed matrix anew, or check that these rows were in it";
    CholeskyFactor factor(Matrix::Identity(2, 2));
    Matrix V(2, 1);
    V << 1.5, 0.0;
    CHECK(thrown<NotPositiveDefinite>([&] { factor.downdate(V); }) ==
          "the factor would lose positive definiteness (1 - v^T H^-1 v = -1.25" + remedy);
    for (const Index k : {2, 3}) {
        V = Matrix::Zero(2, k);
        V(0, 0) = 0.5, V(1, 1) = 1.5;
        CHECK(thrown<NotPositiveDefinite>([&] { factor.downdate(V); }) ==
              "the factor would lose positive definiteness (smallest eigenvalue of I - V^T H^-1 V = -1.25" +
                  remedy);
    }
}

TEST("appending gives the factor of the larger matrix, from nothing on; erasing the last takes it back") {
    const Matrix H = symmetric(positive_definite(20, 20));
    CholeskyFactor factor(Matrix(0, 0));
    for (Index p = 0; p < 20; ++p) {
        const Matrix before = lower(factor);
        factor.append(H.row(p).head(p + 1).transpose());
        CHECK(factor.size() == p + 1);
        CHECK_AT_MOST((lower(factor) - lower(CholeskyFactor(H.topLeftCorner(p + 1, p + 1)))).norm(), 1e-13);
        CholeskyFactor smaller = factor;
        smaller.erase(p);
        CHECK(lower(smaller) == before);
    }
}

TEST("appending to an indefinite matrix is refused and changes nothing") {
    for_each_size([](Index p, const Matrix& H) {
        Vector h(p + 1);
        h.head(p) = symmetric(H).col(0);
        for (const double bad : {0.0, -1e-3, -100.0}) {
            h(p) = H(0, 0) + bad;  // the first coordinate over again
            CholeskyFactor factor(H);
            const Matrix before = lower(factor);
            CHECK(thrown<NotPositiveDefinite>([&] { factor.append(h); }) == not_positive_definite(p));
            CHECK(lower(factor) == before);
        }
    });
}

TEST("a NaN or infinity in an edit is refused and changes nothing") {
    for (const double bad : {poison, std::numeric_limits<double>::infinity()}) {
        CholeskyFactor factor(positive_definite(4, 4));
        const Matrix before = lower(factor);
        for (const Index k : {1, 9}) {
            Matrix V = Matrix::Constant(4, k, 1e-3);
            V(3, k - 1) = bad;
            CHECK(thrown<std::invalid_argument>([&] { factor.update(V); }) == "V contains NaN or infinity");
            CHECK(thrown<std::invalid_argument>([&] { factor.downdate(V); }) == "V contains NaN or infinity");
        }
        Vector h = Vector::Constant(5, 10.0);
        h(1) = bad;
        CHECK(thrown<std::invalid_argument>([&] { factor.append(h); }) == "h contains NaN or infinity");
        CHECK(lower(factor) == before);
    }
}

TEST("200 mixed edits keep the digits of the first factor") {
    for (const Index p : {3, 20, 60}) {
        about = "p = " + std::to_string(p);
        Random random(static_cast<unsigned>(p));
        Matrix rows = random.matrix(3 * p, p);  // H = X^T X + I
        const auto hessian = [&] {
            return Matrix(rows.transpose() * rows + Matrix::Identity(rows.cols(), rows.cols()));
        };
        const Matrix first = hessian();
        CholeskyFactor factor(first);
        for (int edit = 0; edit < 200; ++edit) {
            const Index n = rows.rows(), q = rows.cols();
            const double choice = random.uniform();
            if (choice < 0.25) {
                rows.conservativeResize(n + 1, q);
                rows.row(n) = random.vector(q).transpose();
                factor.update(rows.row(n).transpose());
            } else if (choice < 0.5 && n > 1) {
                factor.downdate(rows.row(n / 2).transpose());
                rows.row(n / 2) = rows.row(n - 1).eval();
                rows.conservativeResize(n - 1, q);
            } else if (choice < 0.75) {
                rows.conservativeResize(n, q + 1);
                rows.col(q) = random.vector(n);
                factor.append(hessian().col(q));
            } else if (q > 1) {
                const Index i = q / 3;
                factor.erase(i);
                rows.middleCols(i, q - i - 1) = rows.rightCols(q - i - 1).eval();
                rows.conservativeResize(n, q - 1);
            }
        }
        const Matrix fresh = lower(CholeskyFactor(hessian()));
        // the smallest eigenvalue of H is 1 or more
        CHECK_AT_MOST((lower(factor) - fresh).norm(), 1e-15 * std::sqrt(200.0) * first.norm() * fresh.norm());
    }
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
                      not_positive_definite(pivot, bad));
            }
        }
    }
}

TEST("a rank-deficient matrix is refused") {
    const Matrix H = Matrix::Constant(3, 3, 4.0);  // exact in floating point: the second pivot is 0
    CHECK(thrown<NotPositiveDefinite>([&] { CholeskyFactor factor(H); }) == not_positive_definite(1));
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
