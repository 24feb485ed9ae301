#include "expunge/cholesky.hpp"

#include <Eigen/QR>
#include <algorithm>
#include <cmath>
#include <limits>
#include <new>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

#include "expunge/errors.hpp"
#include "expunge/packed.hpp"

namespace expunge {

namespace {

Matrix factor_of(Matrix H) {
    if (const auto pivot = factor_in_place(H)) throw NotPositiveDefinite(*pivot, H(*pivot, *pivot));
    return H;
}

template <class Given>
void require_finite(const Given& given, const char* name) {
    if (!given.allFinite()) throw std::invalid_argument(std::string(name) + " contains NaN or infinity");
}

// L becomes the factor of L L^T + V V^T; V is used up.
void rotate_in(Eigen::Ref<Matrix> L, Eigen::Ref<Matrix> V) {
    kernels().rotate_in(L.rows(), L.data(), L.outerStride(), V.cols(), V.data(), V.outerStride());
}

// The same of L L^T - V V^T. False, with L spoiled, where rounding breaks it down.
bool rotate_out(Matrix& L, Matrix& V) {
    return kernels().rotate_out(L.rows(), L.data(), L.outerStride(), V.cols(), V.data(), V.outerStride());
}

// B becomes L^-1 B, or L^-T B.
void solve_lower(const Matrix& L, Eigen::Ref<Matrix> B, bool transposed = false) {
    const Status status =
        kernels().solve(L.rows(), L.data(), L.outerStride(), B.cols(), B.data(), B.outerStride(), transposed);
    if (status != Status::fine) throw std::bad_alloc();
}

// L L^T + sign V V^T, the lower triangle.
Matrix changed(const Matrix& L, const Matrix& V, double sign) {
    constexpr Index width = 64;  // panels of L from the diagonal down: a third of the work of a full product
    const Index p = L.rows();
    Matrix H = Matrix::Zero(p, p);
    for (Index j = 0; j < p; j += width) {
        const Index columns = std::min(width, p - j);
        Matrix panel = L.block(j, j, p - j, columns);
        panel.triangularView<Eigen::StrictlyUpper>().setZero();
        add_product(H.bottomRightCorner(p - j, p - j), panel, 1.0);
    }
    add_product(H, V, sign);
    return H;
}

// Measured at p = 10 to 1000: a factor anew is cheaper from p / 4 columns on at baseline, p / 8 with AVX-512.
bool few(const Matrix& V) { return 8 * (V.cols() - 1) < V.rows(); }

// The smallest eigenvalue of I - W W^T, given as its lower triangle, by bisection: a number is below it if
// the matrix can still be factored after the number is subtracted from the diagonal.
double smallest_eigenvalue(const Matrix& left) {
    const auto k = static_cast<double>(left.rows());
    double low = 1.0 - (k - left.trace()), high = left.diagonal().minCoeff();  // 1 - |W|^2, Frobenius
    if (left.rows() == 1 || !std::isfinite(low)) return high;
    constexpr int halvings = 100;
    constexpr double digits = 1e-12;
    for (int i = 0; i < halvings && high - low > digits * std::max(std::abs(low), std::abs(high)); ++i) {
        const double middle = 0.5 * (low + high);
        Matrix above = left;
        above.diagonal().array() -= middle;
        (factor_in_place(above) ? high : low) = middle;
    }
    return 0.5 * (low + high);
}

}  // namespace

CholeskyFactor::CholeskyFactor(Matrix H) : L_(factor_of(std::move(H))), solver_(L_) {}

CholeskyFactor CholeskyFactor::of_rows(Index p, FunctionRef<Index(Eigen::Ref<Matrix>)> fill) {
    const Index together = std::max<Index>(p, 256);
    Matrix rows(p + together, p);  // R, and the rows that join it
    rows.topRows(p).setZero();
    for (Index m = fill(rows.bottomRows(together)); m > 0; m = fill(rows.bottomRows(together))) {
        const Eigen::HouseholderQR<Eigen::Ref<Matrix>> in_place(rows);
        rows.bottomRows(together).setZero();
        for (Index j = 0; j < p; ++j) rows.col(j).segment(j + 1, p - j - 1).setZero();
    }
    constexpr double digits = 1e-12;  // of a column that others may share: what is left then is rounding
    Matrix L = rows.topRows(p).transpose();
    for (Index j = 0; j < p; ++j) {
        if (L(j, j) < 0.0) L.col(j) = -L.col(j);
        if (!(L(j, j) > digits * L.row(j).head(j + 1).norm())) throw NotPositiveDefinite(j, L(j, j));
    }
    return {std::move(L), Given::lower};
}

void CholeskyFactor::replace(Matrix L) {
    solver_ = TriangularSolver(L);
    L_.swap(L);
}

void CholeskyFactor::solve_in_place(Eigen::Ref<Matrix> b) const {
    solve_lower(L_, b);
    solve_lower(L_, b, true);
}

Vector CholeskyFactor::inverse_diagonal() const {
    constexpr Index together = 64;
    const Index p = size();
    Vector diagonal(p);
    for (Index j = 0; j < p; j += together) {  // above row j, these columns of L^-1 are 0
        const Index below = p - j, columns = std::min(together, below);
        Matrix B = Matrix::Identity(below, columns);
        if (kernels().solve(below, &L_(j, j), L_.outerStride(), columns, B.data(), below, false) !=
            Status::fine)
            throw std::bad_alloc();
        diagonal.segment(j, columns) = B.colwise().squaredNorm();
    }
    return diagonal;
}

Vector CholeskyFactor::solve(const VectorRef& b) const {
    Vector x = b;
    solver_.forward(L_, x);
    solver_.backward(L_, x);
    return x;
}

void CholeskyFactor::update(Matrix V) {
    require_finite(V, "V");
    if (V.size() == 0) return;
    Matrix H = few(V) ? Matrix() : changed(L_, V, 1.0);
    if (few(V) || factor_in_place(H))  // rotations, which square nothing, also where H overflows
        rotate_in(L_, V);
    else
        L_.swap(H);
    solver_ = TriangularSolver(L_);
}

void CholeskyFactor::downdate(Matrix V) {
    require_finite(V, "V");
    if (V.size() == 0) return;
    Matrix W = V;
    solve_lower(L_, W);
    // I - W^T W, or I - W W^T where that is smaller: but for ones, both have the same eigenvalues.
    if (W.cols() <= W.rows()) W.transposeInPlace();
    Matrix left = Matrix::Identity(W.rows(), W.rows());
    add_product(left, W, -1.0);
    const auto refuse = [&] {
        std::ostringstream message;
        message << "the factor would lose positive definiteness ("
                << (V.cols() == 1 ? "1 - v^T H^-1 v" : "smallest eigenvalue of I - V^T H^-1 V") << " = "
                << smallest_eigenvalue(left)
                << "): factor the changed matrix anew, or check that these rows were in it";
        return NotPositiveDefinite(message.str());
    };
    constexpr double rounding = 1e-8;  // half of the digits; the other half are lost below
    Matrix above = left;
    above.diagonal().array() -= rounding;
    if (factor_in_place(above)) throw refuse();

    Matrix L = few(V) ? L_ : changed(L_, V, -1.0);
    if (!(few(V) ? rotate_out(L, V) : !factor_in_place(L))) throw refuse();
    replace(std::move(L));
}

void CholeskyFactor::append(const VectorRef& h) {
    const Index p = size();
    require_finite(h, "h");
    Vector w = h.head(p);
    solver_.forward(L_, w);
    const double pivot = h(p) - w.squaredNorm();
    // the sign of a pivot is not known within the rounding error of that sum
    if (!(pivot > double(p + 1) * std::numeric_limits<double>::epsilon() * h(p)))
        throw NotPositiveDefinite(p, h(p));
    Matrix larger(p + 1, p + 1);
    for (Index j = 0; j < p; ++j) {
        std::fill_n(larger.col(j).data(), j, 0.0);
        std::copy(&L_(j, j), L_.col(j).data() + p, &larger(j, j));
        larger(p, j) = w(j);
    }
    larger.col(p).setZero();
    larger(p, p) = std::sqrt(pivot);
    replace(std::move(larger));
}

void CholeskyFactor::erase(Index i) {
    const Index p = size();
    if (i < 0 || i >= p)
        throw std::out_of_range("index " + std::to_string(i) + " is out of range for a factor of size " +
                                std::to_string(p));
    const Index m = p - i - 1;  // trailing block: L33 L33^T + l32 l32^T
    Matrix v = L_.col(i).tail(m);
    Matrix smaller(p - 1, p - 1);
    for (Index j = 0; j < p - 1; ++j) {
        const double* column = L_.col(j < i ? j : j + 1).data();
        double* to = std::copy_n(column, i, smaller.col(j).data());
        std::copy_n(column + i + 1, m, to);
    }
    rotate_in(smaller.bottomRightCorner(m, m), v);
    replace(std::move(smaller));
}

}  // namespace expunge
