#pragma once
// What walks over the rows of an Objective share.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "expunge/objective.hpp"

namespace expunge {

using Panel = std::array<double, max_panel_rows>;

constexpr Panel filled(double value) {
    Panel panel{};
    panel.fill(value);
    return panel;
}
inline constexpr Panel zeros = filled(0.0), ones = filled(1.0);

inline constexpr double infinity = std::numeric_limits<double>::infinity();

constexpr auto nothing = [](auto&&...) {};

// A bound that could not be found is none.
inline double known(double bound) {
    return std::isnan(bound) ? std::numeric_limits<double>::infinity() : bound;
}

inline auto as_vector(double* panel, Index m) { return Eigen::Map<Vector>(panel, m); }
inline auto as_vector(Panel& panel, Index m) { return as_vector(panel.data(), m); }

// |v|, also where the squares underflow.
inline double norm_of(const Vector& v) {
    const double norm = v.norm();
    if (!(norm <= 1e-140)) return norm;
    const double largest = v.lpNorm<Eigen::Infinity>();  // whose square may be 0
    return largest > 0.0 ? largest * (v / largest).norm() : norm;
}

// x is 0 at rows of weight 0, which are not there: it was 0 times what may have been infinite or NaN.
inline void leave_out(Index m, const double* s, double* x) {
    for (Index i = 0; i < m; ++i) x[i] = s[i] != 0.0 ? x[i] : 0.0;
}

// From row `first` of a block on.
inline const double* targets(const Block& block, Index first) {
    return block.y ? block.y + first : zeros.data();
}
inline const double* weights(const Block& block, Index first) {
    return block.s ? block.s + first : ones.data();
}

// value = s loss, r = s d1, w = s d2; returns the sum of values. Where it is not finite, rows that are not
// there leave all three first; elsewhere r and w are finite, as the loss is infinite or NaN wherever one of
// its derivatives is.
inline double weighted_loss(const Loss& loss, Index m, const double* eta, const double* y, const double* s,
                            double* value, double* r, double* w) {
    const double found = kernels().weighted_loss(key(loss), m, eta, y, s, value, r, w);
    if (std::isfinite(found)) return found;
    for (double* x : {value, r, w}) leave_out(m, s, x);
    return kernels().sum(m, value);
}

// One per thread, for all walks: no walk runs within another.
struct Scratch {
    Workspace vectors, sums, ones;
};
inline Scratch& scratch() {
    thread_local Scratch memory;
    return memory;
}

// What the rows of a panel add up to, on their way to a total.
struct Objective::Sums {
    // Of X^T r, (width,) for each set; with K outputs sets have one more number, of the intercept.
    Eigen::Map<Vector> columns{nullptr, 0};
    Eigen::Map<Vector> ones{nullptr, 0};   // of X^T w, (width,) where H has a row of the intercept, or (0,)
    double intercept = 0.0, weight = 0.0;  // of r, and of w
    double value = 0.0, rounding = 0.0;
    double largest_norm2 = 0.0;
    CurvatureChange moved;

    void clear(double* memory, Index width, Index ones_width) {
        new (&columns) Eigen::Map<Vector>(memory, width);
        new (&ones) Eigen::Map<Vector>(memory + width, ones_width);
        std::fill_n(memory, width + ones_width, 0.0);
        intercept = weight = value = rounding = largest_norm2 = 0.0;
        moved = {};
    }
    void add(const Sums& other) {
        kernels().add_scaled(columns.size(), 1.0, other.columns.data(), columns.data());
        kernels().add_scaled(ones.size(), 1.0, other.ones.data(), ones.data());
        intercept += other.intercept;
        weight += other.weight;
        value += other.value;
        rounding += other.rounding;
        largest_norm2 = std::max(largest_norm2, other.largest_norm2);
        moved.add(other.moved);
    }
};

// The sums of some panels side by side, which lie in `memory`.
struct Objective::PanelSums {
    Workspace& memory;
    std::vector<Sums>& panels;
    Index width, ones_width;
    double* columns = nullptr;

    void make_room(Index count) {
        columns = memory.take(count * (width + ones_width));
        panels.resize(static_cast<std::size_t>(count));
    }
    Sums& of(Index k) { return panels[static_cast<std::size_t>(k)]; }
    Sums& cleared(Index k) {
        of(k).clear(columns + k * (width + ones_width), width, ones_width);
        return of(k);
    }
};

// m rows of a block: what is read of them, the number of the first among all rows, their targets and weights.
struct Objective::Here {
    const RowsView& rows;
    const RowPanel& panel;
    Index row, m;
    const double *y, *s;

    bool weighted() const { return s != expunge::ones.data(); }

    // |x_i|^2 of each row; the largest joins the sums. `every` (d,) are ones.
    void measure(const VectorRef& every, Panel& norms, Sums& sums) const {
        auto norm2 = as_vector(norms, m);
        panel.map(Read::square).multiply(rows.spread(every, scratch().ones), norm2);
        double largest = larger_norm2(sums.largest_norm2, norm2);
        if (!std::isfinite(largest) && weighted()) {
            leave_out(m, s, norms.data());
            largest = larger_norm2(sums.largest_norm2, norm2);
        }
        sums.largest_norm2 = largest;
    }
};

}  // namespace expunge
