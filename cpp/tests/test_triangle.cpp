// What is done with a lower triangle: whatever lies above its diagonal is not read, nor written.
#include "expunge/triangle.hpp"

#include "expunge/packed.hpp"

#include "problems.hpp"

using namespace expunge;
using namespace expunge::testing;

namespace {

const Index sizes[] = {1, 3, 7, 8, 9, 16, 23, 24, 61, 97, 150, 301};

Matrix poisoned(Matrix lower) {
    lower.triangularView<Eigen::StrictlyUpper>().setConstant(poison);
    return lower;
}

}  // namespace

TEST("a symmetric matrix times a vector needs the lower triangle") {
    for (const Index p : sizes) {
        about = "p = " + std::to_string(p);
        const Matrix S = poisoned(Random(1).matrix(p, p));
        const Vector x = Random(2).matrix(p, 1);
        const Vector scale = symmetric(S).cwiseAbs() * x.cwiseAbs();
        const Vector error = (multiply_symmetric(S, x) - symmetric(S) * x).cwiseAbs();
        CHECK_AT_MOST((error - 2.0 * double(p + 2) * roundoff * scale).maxCoeff(), 0.0);
    }
}

TEST("triangular solves leave a residual of rounding alone") {
    for (const Index p : sizes) {
        about = "p = " + std::to_string(p);
        Matrix L = Random(3).matrix(p, p) / double(p);
        L.diagonal() = L.diagonal().cwiseAbs().array() + 0.5;
        L.row(p / 2) *= 1e6;  // rows of very different size
        const TriangularSolver solver(poisoned(L));
        const Matrix T = L.triangularView<Eigen::Lower>();
        const Vector b = Random(4).matrix(p, 1);
        Vector x = b, y = b;
        solver.forward(poisoned(L), x);
        solver.backward(poisoned(L), y);
        const Vector below = T.cwiseAbs() * x.cwiseAbs(), above = T.transpose().cwiseAbs() * y.cwiseAbs();
        CHECK_AT_MOST(((T * x - b).cwiseAbs() - 8.0 * double(p + 2) * roundoff * below).maxCoeff(), 0.0);
        CHECK_AT_MOST(
            ((T.transpose() * y - b).cwiseAbs() - 8.0 * double(p + 2) * roundoff * above).maxCoeff(), 0.0);
    }
}

TEST("A A^T joins or leaves a lower triangle") {
    for (const Index p : sizes) {
        for (const Index m : {1, 5, 40}) {
            about = "p = " + std::to_string(p) + ", m = " + std::to_string(m);
            const Matrix before = Random(5).matrix(p, p);
            const RowMatrix rows = Random(6).matrix(m + 2, p);  // A is seen in a larger matrix
            const Matrix A = rows.topRows(m).transpose();
            for (const double sign : {1.0, -1.0}) {
                Matrix H = poisoned(before);
                add_product(H, rows.topRows(m).transpose(), sign);
                const Matrix error = H - before - sign * A * A.transpose();
                CHECK_AT_MOST(
                    symmetric(error).cwiseAbs().maxCoeff(),
                    2.0 * double(m + 2) * roundoff * (1.0 + A.rowwise().squaredNorm().maxCoeff()) * 8.0);
                CHECK(p == 1 || std::isnan(H(0, p - 1)));
            }
        }
    }
}
