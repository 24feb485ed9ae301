#pragma once
// Frequent operations on a lower triangle, faster than Eigen's kernels. A vector is combined with eight
// columns at a time: each entry is read once, and a column does not wait for the one before it.
#include <Eigen/Core>
#include <algorithm>
#include <cmath>

#include "expunge/kernels.hpp"

namespace expunge::kernel {

constexpr Index panel_width = 8;  // columns of a panel
constexpr Index lanes = 4;  // rows at a time: with both, the sums stay in registers on every instruction set
using Lanes = Eigen::Array<double, lanes, 1>;
using OfColumns = Eigen::Matrix<double, panel_width, 1>;
using DiagonalBlock = Eigen::Matrix<double, panel_width, panel_width>;
using Eight = Eigen::Matrix<double, Eigen::Dynamic, panel_width>;  // columns

inline auto lanes_at(double* values) { return Eigen::Map<Lanes>(values); }
inline auto lanes_at(const double* values) { return Eigen::Map<const Lanes>(values); }

// P (m, 8): the rows of eight columns below their diagonal block, columns `stride` apart.
struct ColumnPanel {
    ColumnPanel(Index p, const double* L, Index L_stride, Index j)
        : first(L + (j + panel_width) + j * L_stride), stride(L_stride), m(p - j - panel_width) {}

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
    // The sums over rows before `from`, and over rows from there on.
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

inline Index in_panels(Index p) { return p / panel_width * panel_width; }

inline OfColumns of_columns(const double* values) { return Eigen::Map<const OfColumns>(values); }

// Kernels::symmetric_multiply
inline void symmetric_multiply(Index p, const double* S, Index stride, const double* __restrict x,
                               double* __restrict product) {
    const Index panels = in_panels(p);
    std::fill_n(product, p, 0.0);
    const auto add_block = [&](Index j, Index columns) {  // of the diagonal
        for (Index k = j; k < j + columns; ++k) {
            const double* column = S + k * stride;
            double sum = column[k] * x[k];
            for (Index i = k + 1; i < j + columns; ++i) {
                sum += column[i] * x[i];
                product[i] += column[i] * x[k];
            }
            product[k] += sum;
        }
    };
    for (Index j = 0; j < panels; j += panel_width) {
        add_block(j, panel_width);
        Eigen::Map<OfColumns>(product + j) +=
            ColumnPanel(p, S, stride, j)
                .add_both_products(of_columns(x + j), x + j + panel_width, product + j + panel_width);
    }
    add_block(panels, p - panels);
}

// Kernels::invert_blocks. The last columns, if fewer than eight, are solved by substitution.
inline void invert_blocks(Index p, const double* L, Index stride, double* inverses) {
    for (Index j = 0; j < in_panels(p); j += panel_width) {
        DiagonalBlock inverse = DiagonalBlock::Identity();
        Eigen::Map<const DiagonalBlock, 0, Eigen::OuterStride<>>(L + j + j * stride,
                                                                 Eigen::OuterStride<>(stride))
            .triangularView<Eigen::Lower>()
            .solveInPlace(inverse);
        Eigen::Map<DiagonalBlock>(inverses + j * panel_width) = inverse;
    }
}

// Kernels::forward
inline void forward(Index p, const double* L, Index stride, const double* inverses, double* b) {
    const Index panels = in_panels(p);
    for (Index j = 0; j < panels; j += panel_width) {
        const Eigen::Map<const Eight> inverse(inverses + j * panel_width, panel_width, panel_width);
        const OfColumns y = inverse.lazyProduct(of_columns(b + j));
        Eigen::Map<OfColumns>(b + j) = y;
        ColumnPanel(p, L, stride, j).subtract_product(y, b + j + panel_width);
    }
    for (Index k = panels; k < p; ++k) {
        const double* column = L + k * stride;
        b[k] /= column[k];
        for (Index i = k + 1; i < p; ++i) b[i] -= column[i] * b[k];
    }
}

// Kernels::backward
inline void backward(Index p, const double* L, Index stride, const double* inverses, double* b) {
    const Index panels = in_panels(p);
    for (Index k = p - 1; k >= panels; --k) {
        const double* column = L + k * stride;
        for (Index i = k + 1; i < p; ++i) b[k] -= column[i] * b[i];
        b[k] /= column[k];
    }
    for (Index j = panels - panel_width; j >= 0; j -= panel_width) {
        const Eigen::Map<const Eight> inverse(inverses + j * panel_width, panel_width, panel_width);
        const OfColumns y =
            of_columns(b + j) - ColumnPanel(p, L, stride, j).transposed_product(b + j + panel_width);
        Eigen::Map<OfColumns>(b + j) = inverse.transpose().lazyProduct(y);
    }
}

using Stride = Eigen::OuterStride<>;

// Kernels::solve
inline void solve(Index p, const double* L, Index stride, Index k, double* B, Index B_stride,
                  bool transposed) {
    const Eigen::Map<const Eigen::MatrixXd, 0, Stride> lower(L, p, p, Stride(stride));
    Eigen::Map<Eigen::MatrixXd, 0, Stride> X(B, p, k, Stride(B_stride));
    if (transposed)
        lower.triangularView<Eigen::Lower>().transpose().solveInPlace(X);
    else
        lower.triangularView<Eigen::Lower>().solveInPlace(X);
}

// Kernels::rotate_in
inline void rotate_in(Index p, double* L, Index stride, Index columns, double* V, Index V_stride) {
    for (Index j = 0; j < p; ++j) {
        double* below = L + j * stride;
        for (Index k = 0; k < columns; ++k) {
            double* rest = V + k * V_stride;
            if (rest[j] == 0.0) continue;
            const double r = std::hypot(below[j], rest[j]);
            const double c = below[j] / r, s = rest[j] / r;
            below[j] = r;
            for (Index i = j + 1; i < p; ++i) {
                const double l = below[i], v = rest[i];
                below[i] = c * l + s * v;
                rest[i] = c * v - s * l;
            }
        }
    }
}

// Kernels::rotate_out, by hyperbolic rotations in Chambers' order: the rest is rotated with the new column,
// which makes them stable.
inline bool rotate_out(Index p, double* L, Index stride, Index columns, double* V, Index V_stride) {
    for (Index j = 0; j < p; ++j) {
        double* below = L + j * stride;
        for (Index k = 0; k < columns; ++k) {
            double* rest = V + k * V_stride;
            if (rest[j] == 0.0) continue;
            const double s = rest[j] / below[j], c = std::sqrt((1.0 - s) * (1.0 + s));
            if (!(c > 0.0)) return false;
            below[j] *= c;
            const double over_c = 1.0 / c;
            for (Index i = j + 1; i < p; ++i) {
                below[i] = (below[i] - s * rest[i]) * over_c;
                rest[i] = c * rest[i] - s * below[i];
            }
        }
    }
    return true;
}

}  // namespace expunge::kernel
