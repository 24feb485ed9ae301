#pragma once
// The multinomial loss of the rows of a panel (E28): K predictors a row, class after class, (m, K).
#include <cmath>

#include "expunge/losses.hpp"
#include "tile.hpp"

namespace expunge::kernel {

// Of each row: its largest predictor and which it is, and e^(eta - largest) summed over the others.
struct Softmax {
    alignas(64) double largest[max_panel_rows], at[max_panel_rows], others[max_panel_rows];

    // exponentials (m, K) become e^(eta - largest)
    Softmax(Index m, Index K, const double* __restrict eta, double* __restrict exponentials) {
        for (Index i = 0; i < m; ++i) {
            largest[i] = eta[i];
            at[i] = others[i] = 0.0;
        }
        for (Index k = 1; k < K; ++k)
            for (Index i = 0; i < m; ++i) {
                const double e = eta[k * m + i];
                at[i] = e > largest[i] ? static_cast<double>(k) : at[i];
                largest[i] = e > largest[i] ? e : largest[i];
            }
        for (Index k = 0; k < K; ++k)
            for (Index i = 0; i < m; ++i) {
                const double e = exp_nonpositive(eta[k * m + i] - largest[i]);
                exponentials[k * m + i] = e;
                others[i] += at[i] == static_cast<double>(k) ? 0.0 : e;
            }
    }
};

// value = s loss, r (m, K) = s (p - e_y), c (m, K), column k at c + k stride, = sqrt(s) p
EXPUNGE_LOOP inline void softmax_loss(Index m, Index K, const double* __restrict eta,
                                      const double* __restrict y, const double* __restrict s,
                                      double* __restrict value, double* __restrict r, double* __restrict c,
                                      Index stride) {
    const Softmax of(m, K, eta, r);
    alignas(64) double eta_y[max_panel_rows],
        wrong[max_panel_rows];  // the sum of p over other classes than y
    for (Index i = 0; i < m; ++i) eta_y[i] = wrong[i] = 0.0;
    for (Index k = 0; k < K; ++k) {
        const auto here = static_cast<double>(k);
        for (Index i = 0; i < m; ++i) {
            const double p = r[k * m + i] / (1.0 + of.others[i]);
            c[k * stride + i] = std::sqrt(s[i]) * p;
            r[k * m + i] = s[i] * p;
            eta_y[i] = y[i] == here ? eta[k * m + i] : eta_y[i];
            wrong[i] += y[i] == here ? 0.0 : p;
        }
    }
    for (Index k = 0; k < K; ++k)
        for (Index i = 0; i < m; ++i)
            r[k * m + i] = y[i] == static_cast<double>(k) ? -s[i] * wrong[i] : r[k * m + i];
    for (Index i = 0; i < m; ++i) value[i] = s[i] * (of.largest[i] - eta_y[i] + std::log1p(of.others[i]));
}

// (W t)_k of each row (m, K), W = s (diag p - p p^T) as c tells it, t used up. Differences to the likeliest
// class keep the digits of p (1 - p).
EXPUNGE_LOOP inline void softmax_hessian_times(Index m, Index K, const double* __restrict c, Index stride,
                                               double* __restrict t) {
    alignas(64) double largest[max_panel_rows], at[max_panel_rows], sum[max_panel_rows], base[max_panel_rows],
        mean[max_panel_rows], last[max_panel_rows];
    for (Index i = 0; i < m; ++i) {
        largest[i] = c[i];
        sum[i] = c[i];
        base[i] = t[i];
        at[i] = mean[i] = last[i] = 0.0;
    }
    for (Index k = 1; k < K; ++k)
        for (Index i = 0; i < m; ++i) {
            const double here = c[k * stride + i];
            sum[i] += here;
            at[i] = here > largest[i] ? static_cast<double>(k) : at[i];
            base[i] = here > largest[i] ? t[k * m + i] : base[i];
            largest[i] = here > largest[i] ? here : largest[i];
        }
    for (Index k = 0; k < K; ++k)
        for (Index i = 0; i < m; ++i) {
            t[k * m + i] -= base[i];
            mean[i] += c[k * stride + i] * t[k * m + i];  // times the root of s
        }
    for (Index k = 0; k < K; ++k)
        for (Index i = 0; i < m; ++i) {
            const double w = c[k * stride + i] * (sum[i] * t[k * m + i] - mean[i]);
            t[k * m + i] = at[i] == static_cast<double>(k) ? 0.0 : w;
            last[i] += t[k * m + i];
        }
    for (Index k = 0; k < K; ++k)
        for (Index i = 0; i < m; ++i)
            t[k * m + i] = at[i] == static_cast<double>(k) ? -last[i] : t[k * m + i];
}

// E32, of m rows: rounding_i = s times the norm of what rounding leaves in r_i, after so many additions,
// where each predictor is off by eta_rounding. Two predictors move apart by twice that; d2 <= |r|.
inline void softmax_rounding(Index m, Index K, const double* r, const double* s, double additions,
                             const double* eta_rounding, double* rounding) {
    const double more = static_cast<double>(K) + 10.0;
    for (Index i = 0; i < m; ++i) rounding[i] = 0.0;
    for (Index k = 0; k < K; ++k)
        for (Index i = 0; i < m; ++i) {
            const double d1 = std::abs(r[k * m + i]) / (s[i] > 0.0 ? s[i] : 1.0),
                         e = (additions + more) * d1 + moved(d1, 0.25, 1.0, 2.0 * eta_rounding[i]);
            rounding[i] += e * e;
        }
    for (Index i = 0; i < m; ++i) rounding[i] = s[i] * std::sqrt(rounding[i]);
}

}  // namespace expunge::kernel
