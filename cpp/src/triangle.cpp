#include "expunge/triangle.hpp"

#include <algorithm>

#include "expunge/packed.hpp"

namespace expunge {

namespace {

constexpr Index panel_width = 8;  // columns of a panel
constexpr Index lanes = 4;  // rows at a time: with both, the sums stay in registers on every instruction set
using Lanes = Eigen::Array<double, lanes, 1>;
using OfColumns = Eigen::Matrix<double, panel_width, 1>;
using DiagonalBlock = Eigen::Matrix<double, panel_width, panel_width>;

auto lanes_at(double* values) { return Eigen::Map<Lanes>(values); }
auto lanes_at(const double* values) { return Eigen::Map<const Lanes>(values); }

// P (m, 8): the rows of eight columns below their diagonal block, columns `stride` apart.
struct ColumnPanel {
    ColumnPanel(const Matrix& L, Index j)
        : first(L.data() + (j + panel_width) + j * L.outerStride()), stride(L.outerStride()),
          m(L.rows() - j - panel_width) {}

    // b (m,) -= P y
    void subtract_product(const OfColumns& y, double* __restrict b) const {
        Index i = 0;
        for (; i + lanes <= m; i += lanes) {
            Lanes sum = lanes_at(b + i);
            for (Index k = 0; k < panel_width; ++k) sum -= lanes_at(first + i + k * stride) * y(k);
            lanes_at(b + i) = sum;
        }
        for (; i < m; ++i)
            for (Index k = 0; k < panel_width; ++k) b[i] -= first[i + k * stride] * y(k);
    }

    // P^T x
    OfColumns transposed_product(const double* __restrict x) const {
        Lanes sums[panel_width];
        for (Lanes& sum : sums) sum.setZero();
        Index i = 0;
        for (; i + lanes <= m; i += lanes)
            for (Index k = 0; k < panel_width; ++k)
                sums[k] += lanes_at(first + i + k * stride) * lanes_at(x + i);
        return total(sums, i, x);
    }

    // b (m,) += P y; returns P^T x.
    OfColumns add_both_products(const OfColumns& y, const double* __restrict x, double* __restrict b) const {
        Lanes sums[panel_width];
        for (Lanes& sum : sums) sum.setZero();
        Index i = 0;
        for (; i + lanes <= m; i += lanes) {
            const Lanes here = lanes_at(x + i);
            Lanes below = lanes_at(b + i);
            for (Index k = 0; k < panel_width; ++k) {
                const Lanes entries = lanes_at(first + i + k * stride);
                sums[k] += entries * here;
                below += entries * y(k);
            }
            lanes_at(b + i) = below;
        }
        for (Index rest = i; rest < m; ++rest)
            for (Index k = 0; k < panel_width; ++k) b[rest] += first[rest + k * stride] * y(k);
        return total(sums, i, x);
    }

private:
    // The sums over rows before `from` and of those from there on.
    OfColumns total(const Lanes* sums, Index from, const double* x) const {
        OfColumns all;
        for (Index k = 0; k < panel_width; ++k) {
            all(k) = sums[k].sum();
            for (Index i = from; i < m; ++i) all(k) += first[i + k * stride] * x[i];
        }
        return all;
    }

    const double* first;
    Index stride, m;
};

Index in_panels(Index p) { return p / panel_width * panel_width; }

}  // namespace

Vector multiply_symmetric(const Matrix& lower, const VectorRef& x) {
    const Index p = lower.rows(), panels = in_panels(p);
    Vector product = Vector::Zero(p);
    const auto add_block = [&](Index j, Index columns) {  // of the diagonal
        for (Index k = j; k < j + columns; ++k) {
            double sum = lower(k, k) * x(k);
            for (Index i = k + 1; i < j + columns; ++i) {
                sum += lower(i, k) * x(i);
                product(i) += lower(i, k) * x(k);
            }
            product(k) += sum;
        }
    };
    for (Index j = 0; j < panels; j += panel_width) {
        add_block(j, panel_width);
        product.segment<panel_width>(j) += ColumnPanel(lower, j).add_both_products(
            x.segment<panel_width>(j), x.data() + j + panel_width, product.data() + j + panel_width);
    }
    add_block(panels, p - panels);
    return product;
}

void add_product(Eigen::Ref<Matrix> lower, const Eigen::Ref<const Matrix, 0, Eigen::OuterStride<>>& A,
                 double sign) {
    thread_local Workspace memory;
    const Packed terms(memory, A.rows());
    for (Index first = 0; first < A.cols(); first += Packed::max_terms) {
        const Index count = std::min(Packed::max_terms, A.cols() - first);
        for (Index t = 0; t < count; ++t) terms.set(t, A.col(first + t).data(), 1.0);
        add_gram(lower, terms, 0, count, sign);
    }
}

TriangularSolver::TriangularSolver(const Matrix& L) : inverses_(panel_width, in_panels(L.rows())) {
    for (Index j = 0; j < inverses_.cols(); j += panel_width) {
        DiagonalBlock inverse = DiagonalBlock::Identity();
        L.block<panel_width, panel_width>(j, j).triangularView<Eigen::Lower>().solveInPlace(inverse);
        inverses_.middleCols<panel_width>(j) = inverse;
    }
}

void TriangularSolver::forward(const Matrix& L, Eigen::Ref<Vector> b) const {
    const Index p = L.rows(), panels = inverses_.cols();
    for (Index j = 0; j < panels; j += panel_width) {
        const OfColumns y = inverses_.middleCols<panel_width>(j).lazyProduct(b.segment<panel_width>(j));
        b.segment<panel_width>(j) = y;
        ColumnPanel(L, j).subtract_product(y, b.data() + j + panel_width);
    }
    for (Index k = panels; k < p; ++k) {
        b(k) /= L(k, k);
        for (Index i = k + 1; i < p; ++i) b(i) -= L(i, k) * b(k);
    }
}

void TriangularSolver::backward(const Matrix& L, Eigen::Ref<Vector> b) const {
    const Index p = L.rows(), panels = inverses_.cols();
    for (Index k = p - 1; k >= panels; --k) {
        for (Index i = k + 1; i < p; ++i) b(k) -= L(i, k) * b(i);
        b(k) /= L(k, k);
    }
    for (Index j = panels - panel_width; j >= 0; j -= panel_width) {
        const OfColumns y =
            b.segment<panel_width>(j) - ColumnPanel(L, j).transposed_product(b.data() + j + panel_width);
        b.segment<panel_width>(j) = inverses_.middleCols<panel_width>(j).transpose().lazyProduct(y);
    }
}

}  // namespace expunge
