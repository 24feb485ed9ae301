#pragma once
// A loss is three scalar functions of (y, eta), the domain of y, and two constants (E1). To add one, write
// its struct and name it in `Loss`: every kernel then has it. Python needs one entry in losses.py.
#include <cmath>
#include <cstddef>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>

#include "expunge/elementary.hpp"
#include "expunge/kernels.hpp"

namespace expunge {

// E19: by how much, in units of u, d1 (or d2) at the computed eta may differ from its value at the true eta,
// which is eta_rounding units away. `slope` bounds the derivative at the computed eta, `steepest` bounds it
// anywhere, and `range` is the span of all values. Because |d3| <= d2, the derivative between the two is at
// most e^t times `slope`, t = u eta_rounding, and e^t - 1 <= t (1 + t) up to t = 1. Above, `slope` tells
// nothing of the derivative at the true eta. NaN, from an overflow, counts as infinite. Underflow costs a few
// 2^-1074.
inline double moved(double slope, double steepest, double range, double eta_rounding) {
    constexpr double lost = 0x1p-1071 / roundoff, more = 1.0 + 0x1p-20;
    const double t = roundoff * eta_rounding, grown = slope * (1.0 + t);
    const double by = (t <= 1.0 && grown < steepest ? grown : steepest) * eta_rounding;
    const double most = more * range / roundoff;  // which errors reach: sums of bounds are rounded, too
    return (by < most ? by : most) + lost;
}

struct Squared {
    static constexpr const char* name = "squared";
    static constexpr double max_d2 = 1.0, max_d3 = 0.0;
    static bool contains(double y) { return std::abs(y) <= std::numeric_limits<double>::max(); }
    static double value(double y, double eta) { return 0.5 * (eta - y) * (eta - y); }
    static double d1(double y, double eta) { return eta - y; }
    static double d2(double, double) { return 1.0; }
    // E19: what rounding in eta, in units of u, leaves in d1 = r.
    static double d1_rounding(double, double eta_rounding, double y) { return eta_rounding + std::abs(y); }
};

// y in {0, 1}. With z = (1 - 2y) eta, minus the margin: value log(1 + e^z), d1 = (1 - 2y) sigma(z).
struct Logistic {
    static constexpr const char* name = "logistic";
    static constexpr double max_d2 = 0.25, max_d3 = 0.09622504486493764;  // 1 / (6 sqrt 3)
    static bool contains(double y) { return (y == 0.0) != (y == 1.0); }   // no branch on what is random
    static double value(double y, double eta) {
        const double z = (1.0 - 2.0 * y) * eta;
        return (z > 0.0 ? z : 0.0) + log1p_unit(exp_nonpositive(-std::abs(z)));
    }
    static double d1(double y, double eta) {
        const double sign = 1.0 - 2.0 * y, z = sign * eta;
        const double e = exp_nonpositive(-std::abs(z));
        return sign * ((z > 0.0 ? 1.0 : e) / (1.0 + e));
    }
    static double d2(double y, double eta) {
        const double z = (1.0 - 2.0 * y) * eta;  // |z| = |eta|, and the exponential is that of the other two
        const double e = exp_nonpositive(-std::abs(z));
        return e / (1.0 + e * (2.0 + e));  // (1 + e)^2 would round twice as often
    }
    static double d1_rounding(double r, double eta_rounding, double) {
        return moved(std::abs(r), max_d2, 1.0, eta_rounding);  // d2 <= |d1|, and |d1| is in [0, 1]
    }
};

using Loss = std::variant<Squared, Logistic>;

inline Loss loss_named(const std::string& name) {
    Loss found;
    std::string known;
    const auto match = [&]<std::size_t... I>(std::index_sequence<I...>) {
        return ((known += (I ? ", " : "") + std::string(std::variant_alternative_t<I, Loss>::name),
                 name == std::variant_alternative_t<I, Loss>::name && (found.emplace<I>(), true)) ||
                ...);
    };
    if (!match(std::make_index_sequence<std::variant_size_v<Loss>>{}))
        throw std::invalid_argument("unknown loss '" + name + "': choose one of " + known);
    return found;
}

}  // namespace expunge
