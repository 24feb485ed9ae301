#pragma once
// A loss is three scalar functions of (y, eta), the domain of y, and three constants (E1): the largest d2 and
// |d3|, and `remainder`, the largest |d3| / d2, which is at most 1 (E34), or infinite. To add one, write its
// struct and name it in `Loss`: every kernel then has it. Python needs one entry in losses.py.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <locale>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
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
    static constexpr double max_d2 = 1.0, max_d3 = 0.0, remainder = 0.0;
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
    static constexpr double remainder = 1.0;
    static bool contains(double y) { return (y == 0.0) != (y == 1.0); }  // no branch on what is random
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

// The same for y in [0, 1]. With e = e^-|eta|, d1 = sigma(eta) - y over the denominator 1 + e.
struct Fractional {
    static constexpr const char* name = "fractional";
    static constexpr double max_d2 = Logistic::max_d2, max_d3 = Logistic::max_d3, remainder = 1.0;
    static bool contains(double y) { return (y >= 0.0) & (y <= 1.0); }
    static double value(double y, double eta) {
        return (eta > 0.0 ? (1.0 - y) * eta : -(y * eta)) + log1p_unit(exp_nonpositive(-std::abs(eta)));
    }
    static double d1(double y, double eta) {
        const double e = exp_nonpositive(-std::abs(eta)), above = eta > 0.0 ? 1.0 : e,
                     below = eta > 0.0 ? e : 1.0;
        return ((1.0 - y) * above - y * below) / (1.0 + e);
    }
    static double d2(double, double eta) { return Logistic::d2(0.0, eta); }
    static double d1_rounding(double r, double eta_rounding, double y) {
        const double most =
            std::abs(r) + std::min(y, 1.0 - y);  // sigma or 1 - sigma, and so d2, is at most that
        return moved(most, max_d2, 1.0, eta_rounding) + 12.0 * most;
    }
};

// y >= 0, mean e^eta.
struct Poisson {
    static constexpr const char* name = "poisson";
    static constexpr double max_d2 = std::numeric_limits<double>::infinity(), max_d3 = max_d2,
                            remainder = 1.0;
    static bool contains(double y) { return (y >= 0.0) & (y <= std::numeric_limits<double>::max()); }
    static double value(double y, double eta) { return exp_any(eta) - y * eta; }
    static double d1(double y, double eta) { return exp_any(eta) - y; }
    static double d2(double, double eta) { return exp_any(eta); }
    static double d1_rounding(double r, double eta_rounding, double y) {
        const double most = std::abs(r) + y;  // d2
        return moved(most, max_d2, max_d2, eta_rounding) + 4.0 * most;
    }
};

// Mean e^eta and variance a power p of it, 1 < p <= 2, y >= 0; p = 2 is gamma regression, y > 0. With
// a = 2 - p and b = p - 1, A = e^(a eta) and B = y e^(-b eta): value A/a + B/b, d1 = A - B, d2 = aA + bB.
struct Tweedie {
    double power;

    static constexpr const char* name = "tweedie";
    static constexpr double max_d2 = std::numeric_limits<double>::infinity(), max_d3 = max_d2;
    double a() const { return 2.0 - power; }
    double b() const { return power - 1.0; }
    double remainder() const { return std::max(a(), b()); }
    bool contains(double y) const {
        return ((power < 2.0 ? y >= 0.0 : y > 0.0)) & (y <= std::numeric_limits<double>::max());
    }
    double rising(double eta) const { return exp_any(a() * eta); }
    double falling(double y, double eta) const { return y > 0.0 ? y * exp_any(-(b() * eta)) : 0.0; }
    double value(double y, double eta) const {
        return (power < 2.0 ? rising(eta) / a() : eta) + falling(y, eta) / b();
    }
    double d1(double y, double eta) const { return rising(eta) - falling(y, eta); }
    double d2(double y, double eta) const { return a() * rising(eta) + b() * falling(y, eta); }
    // A^b B^a = y^a, which is at most b + ay: so the smaller of A and B is, and the larger at most |d1| more.
    // What rounds in a eta and b eta is no more than what rounds in eta.
    double d1_rounding(double r, double eta_rounding, double y) const {
        const double least = b() + a() * y, most = std::abs(r) + least;
        return moved(most, max_d2, max_d2, 2.0 * eta_rounding) + 8.0 * (most + least);
    }
};

// y in {0, 1}: the square of what the margin is short of 1. d2 jumps there, so no multiple of it bounds d3:
// distances go by how far rows are from there (E36).
struct SquaredHinge {
    static constexpr const char* name = "squared_hinge";
    static constexpr double max_d2 = 2.0, max_d3 = std::numeric_limits<double>::infinity(),
                            remainder = max_d3;
    static bool contains(double y) { return Logistic::contains(y); }
    static double to_kink(double y, double eta) { return 1.0 + (1.0 - 2.0 * y) * eta; }
    static double short_of(double y, double eta) {
        const double z = to_kink(y, eta);
        return z < 0.0 ? 0.0 : z;  // NaN passes
    }
    static double value(double y, double eta) { return short_of(y, eta) * short_of(y, eta); }
    static double d1(double y, double eta) { return 2.0 * (1.0 - 2.0 * y) * short_of(y, eta); }
    static double d2(double y, double eta) { return to_kink(y, eta) <= 0.0 ? 0.0 : 2.0; }
    static double d1_rounding(double r, double eta_rounding, double) {
        return 2.0 * eta_rounding + 2.0 * std::abs(r);
    }
};

using Loss = std::variant<Squared, Logistic, Fractional, Poisson, Tweedie, SquaredHinge>;

inline LossKey key(const Loss& loss) {
    return {loss.index(), std::visit(
                              []<class L>(const L& l) {
                                  if constexpr (std::is_empty_v<L>)
                                      return 0.0;
                                  else
                                      return l.power;
                              },
                              loss)};
}

// E34: at most that many times d2 is |d3|.
inline double remainder(const Loss& loss) {
    return std::visit(
        []<class L>(const L& l) {
            if constexpr (std::is_empty_v<L>)
                return L::remainder;
            else
                return l.remainder();
        },
        loss);
}

// "name", or "name(power)".
inline Loss loss_named(const std::string& name) {
    Loss found;
    std::string known;
    const auto match = [&]<class L>(std::type_identity<L>) {
        if constexpr (std::is_empty_v<L>) {
            if (name != L::name) return false;
            found = L{};
        } else {
            const std::string before = std::string(L::name) + "(";
            if (!name.starts_with(before) || name.back() != ')') return false;
            std::istringstream number(name.substr(before.size(), name.size() - before.size() - 1));
            number.imbue(std::locale::classic());
            double power = 0.0;
            if (!(number >> power) || !number.eof() || !(power > 1.0 && power <= 2.0)) return false;
            found = L{power};
        }
        return true;
    };
    const auto any = [&]<class... L>(std::type_identity<std::variant<L...>>) {
        if ((match(std::type_identity<L>{}) || ...)) return true;
        ((known +=
          (known.empty() ? "" : ", ") + std::string(L::name) + (std::is_empty_v<L> ? "" : "(power)")),
         ...);
        return false;
    };
    if (!any(std::type_identity<Loss>{}))
        throw std::invalid_argument("unknown loss '" + name + "': choose one of " + known);
    return found;
}

}  // namespace expunge
