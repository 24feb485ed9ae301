#pragma once
// Losses of the rows of a panel, from the scalar functions of expunge/losses.hpp.
#include <cmath>
#include <type_traits>
#include <utility>
#include <variant>

#include "expunge/losses.hpp"
#include "tile.hpp"

namespace expunge::kernel {

// x is 0 at rows of weight 0, which are not there: it was 0 times what may have been infinite or NaN.
inline void leave_out(Index m, const double* s, bool weighted, double* x) {
    if (!weighted) return;
    for (Index i = 0; i < m; ++i) x[i] = s[i] != 0.0 ? x[i] : 0.0;
}

// Whether all n numbers are inside; counted without a branch for each.
template <class Inside>
bool all_of(Index n, const double* values, Inside&& inside) {
    Index found = 0;
    for (Index i = 0; i < n; ++i) found += inside(values[i]);
    return found == n;
}

// The functions of the table, for a loss; their arguments are those of Kernels.
template <class L>
struct PanelLoss {
    L loss;

    EXPUNGE_LOOP bool are_targets(Index n, const double* y) const {
        return all_of(n, y, [l = loss](double t) { return l.contains(t); });
    }

    EXPUNGE_LOOP void weighted_loss(Index m, const double* __restrict eta, const double* __restrict y,
                                    const double* __restrict s, double* __restrict value,
                                    double* __restrict r, double* __restrict w) const {
        const L l = loss;
        for (Index i = 0; i < m; ++i) {
            value[i] = s[i] * l.value(y[i], eta[i]);
            r[i] = s[i] * l.d1(y[i], eta[i]);
            w[i] = s[i] * l.d2(y[i], eta[i]);
        }
    }

    EXPUNGE_LOOP void weighted_d1(Index m, const double* __restrict eta, const double* __restrict y,
                                  const double* __restrict s, bool weighted, double* __restrict r) const {
        const L l = loss;
        for (Index i = 0; i < m; ++i) r[i] = s[i] * l.d1(y[i], eta[i]);
        leave_out(m, s, weighted, r);
    }

    EXPUNGE_LOOP void weighted_d2(Index m, const double* __restrict eta, const double* __restrict y,
                                  const double* __restrict s, bool weighted, double* __restrict w) const {
        const L l = loss;
        for (Index i = 0; i < m; ++i) w[i] = s[i] * l.d2(y[i], eta[i]);
        leave_out(m, s, weighted, w);
    }

    EXPUNGE_LOOP void rounding_of(Index m, const double* __restrict r, const double* __restrict y,
                                  const double* __restrict s, double additions,
                                  const double* __restrict eta_rounding, double* __restrict rounding) const {
        const L l = loss;
        for (Index i = 0; i < m; ++i) {
            const double d1 = r[i] / (s[i] > 0.0 ? s[i] : 1.0);
            rounding[i] = s[i] * (additions * std::abs(d1) + l.d1_rounding(d1, eta_rounding[i], y[i]));
        }
    }

    double sum_of_rounding(Index m, const double* r, const double* y, const double* s, double additions,
                           double for_each_norm, double one, double* norm2) const {
        alignas(64) double eta_rounding[max_panel_rows], rounding[max_panel_rows];
        auto norm = vector(norm2, m);
        norm = (norm.array() + one).sqrt();
        vector(eta_rounding, m) = for_each_norm * norm;
        rounding_of(m, r, y, s, additions, eta_rounding, rounding);
        return norm.dot(vector(rounding, m));
    }

    EXPUNGE_LOOP void slope_and_rounding(Index m, const double* __restrict d1, const double* __restrict y,
                                         const double* __restrict s, bool weighted,
                                         const double* __restrict eta_rounding, double* __restrict slope,
                                         double* __restrict rounding) const {
        const L l = loss;
        for (Index i = 0; i < m; ++i) {
            rounding[i] = s[i] * l.d1_rounding(d1[i], eta_rounding[i], y[i]);
            slope[i] = s[i] * std::abs(d1[i]);
        }
        leave_out(m, s, weighted, slope);
        leave_out(m, s, weighted, rounding);
    }
};

// Calls f(PanelLoss<L>) for this loss.
template <std::size_t place = 0, class F>
decltype(auto) with_loss(LossKey loss, F&& f) {
    if constexpr (place + 1 < std::variant_size_v<Loss>)
        if (loss.place != place) return with_loss<place + 1>(loss, std::forward<F>(f));
    using L = std::variant_alternative_t<place, Loss>;
    if constexpr (std::is_empty_v<L>)
        return f(PanelLoss<L>{});
    else
        return f(PanelLoss<L>{L{loss.power}});
}

inline double weigh(Index m, const double* __restrict w, double offset, double* __restrict x) {
    for (Index i = 0; i < m; ++i) {
        const double product = w[i] * (x[i] + offset);
        x[i] = w[i] != 0.0 ? product : 0.0;  // a row of weight 0 is not there: its x may be infinite or NaN
    }
    return vector(x, m).sum();
}

}  // namespace expunge::kernel
