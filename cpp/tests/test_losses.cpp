// Elementary functions and losses against long double.
#include <cfloat>
#include <cmath>
#include <cstdio>
#include <limits>

#include "problems.hpp"

using namespace expunge;
using namespace expunge::testing;

namespace {

// |computed - exact| in units of the spacing of doubles at `exact`, denormals included.
double ulps(double computed, Real exact) {
    const int exponent = exact == 0 ? -1074 : std::max(std::ilogb(exact) - 52, -1074);
    return static_cast<double>(std::abs(computed - exact) / std::scalbn(Real(1), exponent));
}

const std::vector<Loss> losses{Squared{},    Logistic{},   Fractional{},  Poisson{},
                               Tweedie{1.5}, Tweedie{2.0}, SquaredHinge{}};

// Whether value, d1 and d2 keep their relative accuracy: no two terms cancel.
template <class L>
constexpr bool of_classes = std::is_same_v<L, Squared> || std::is_same_v<L, Logistic>;

template <class Visit>
void for_each_eta(Visit&& visit) {
    for (const Loss& loss : losses)
        for (const double y : {0.0, 0.25, 1.0, 40.0})
            for (double size = 0x1p-60; size <= 900.0; size *= 1.07)
                for (const double eta : {-size, size})
                    std::visit(
                        [&]<class L>(const L& l) {
                            if (l.contains(y) && !(of_classes<L> && y > 0.0 && y != 1.0))
                                visit(l, exact_loss(loss, y, eta), y, eta);
                        },
                        loss);
}

// What is computed is infinite where the exact number is out of range, else within so much of it.
void check_near(double computed, Real exact, Real most) {
    if (std::abs(exact) > std::numeric_limits<double>::max() / 4)
        CHECK(std::isinf(computed) || std::abs(computed - exact) <= most);
    else
        CHECK_AT_MOST(std::abs(computed - exact), most + 0x1p-1060L);
}

}  // namespace

TEST("exp_nonpositive is within 1.5 ulp of exp from 0 down to the last denormal") {
    double worst = 0.0, at = 0.0;
    const auto measure = [&](double x) {
        const double error = ulps(exp_nonpositive(x), std::exp(Real(x)));
        if (error > worst) worst = error, at = x;
    };
    for (double x = -746.5; x < 0.0; x += 0x1p-9 / 3.0) measure(x);
    for (double x = -1.0; x < -DBL_MIN; x *= 0.99) measure(x);
    for (int k = 1; k < 1076; ++k) {  // where the reduction changes
        const double x = -(k - 0.5) * std::log(2.0);
        for (const double near : {std::nextafter(x, 0.0), x, std::nextafter(x, -800.0)}) measure(near);
    }
    std::printf("        largest error %.3f ulp at %.17g\n", worst, at);
    CHECK_AT_MOST(worst, 1.5);
}

TEST("exp_nonpositive is 1 at 0 and 0 below -746") {
    CHECK(exp_nonpositive(0.0) == 1.0);
    CHECK(exp_nonpositive(-0.0) == 1.0);
    CHECK(exp_nonpositive(-DBL_MIN) == 1.0);
    for (const double x : {-746.0, -746.1, -800.0, -1e300, -std::numeric_limits<double>::infinity()})
        CHECK(exp_nonpositive(x) == 0.0);
    CHECK(exp_nonpositive(-745.0) == 0x1p-1074);
}

TEST("log1p_unit is within 2 ulp of log1p on [0, 1]") {
    double worst = 0.0, at = 0.0;
    const auto measure = [&](double t) {
        const double error = ulps(log1p_unit(t), std::log1p(Real(t)));
        if (error > worst) worst = error, at = t;
    };
    for (double t = 0.0; t <= 1.0; t += 0x1p-18 / 3.0) measure(t);
    for (double t = 1.0; t > 0.0; t *= 0.4) measure(t);
    measure(1.0);
    std::printf("        largest error %.3f ulp at %.17g\n", worst, at);
    CHECK_AT_MOST(worst, 2.0);
    CHECK(log1p_unit(0.0) == 0.0);
}

TEST("losses and their derivatives keep their relative accuracy at every margin up to 900") {
    for_each_eta([]<class L>(const L& l, const Derivatives& e, double y, double eta) {
        about = std::string(l.name) + " y " + text_of(y) + " eta " + text_of(eta);
        if constexpr (of_classes<L>) {
            CHECK_AT_MOST(ulps(l.value(y, eta), e.value), 6.0);
            CHECK_AT_MOST(ulps(l.d1(y, eta), e.d1), 6.0);
            CHECK_AT_MOST(ulps(l.d2(y, eta), e.d2), 8.0);
        } else {  // of the terms, whose exponents round
            const Real terms = (e.d2 + std::abs(e.value) + std::abs(y * eta) + y) * (8 + std::abs(Real(eta)));
            check_near(l.value(y, eta), e.value, 4 * roundoff * terms);
            check_near(l.d1(y, eta), e.d1, 4 * roundoff * terms);
            check_near(l.d2(y, eta), e.d2, 4 * roundoff * e.d2 * (4 + std::abs(Real(eta))));
        }
    });
}

TEST("logistic loss at a margin of 800 is 800 or nothing, and never NaN") {
    CHECK(Logistic::value(1.0, -800.0) == 800.0);
    CHECK(Logistic::value(1.0, 800.0) == 0.0);
    CHECK(Logistic::d1(1.0, -800.0) == -1.0);
    CHECK(Logistic::d1(0.0, -800.0) == 0.0);
    CHECK(Logistic::d2(0.0, 800.0) == 0.0);
    CHECK(Logistic::d2(0.0, -800.0) == 0.0);
}

TEST("NaN passes through") {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    CHECK(std::isnan(exp_nonpositive(nan)));
    CHECK(std::isnan(Logistic::value(1.0, nan)));
    CHECK(std::isnan(Logistic::d1(1.0, nan)));
    CHECK(std::isnan(Logistic::d2(1.0, nan)));
}

TEST("d1 and d2 are the finite differences of value and d1") {
    const double step = 1e-3;
    for (const Loss& loss : losses) {
        std::visit(
            [&](auto L) {
                for (const double y : {0.0, 1.0}) {
                    if (!L.contains(y)) continue;
                    for (double eta = -6.0; eta <= 6.0; eta += 0.37) {
                        about = std::string(L.name) + " eta " + text_of(eta);
                        const double d1 =
                            central_difference([&](double t) { return L.value(y, eta + t); }, step);
                        const double d2 =
                            central_difference([&](double t) { return L.d1(y, eta + t); }, step);
                        const double size = 1.0 + std::abs(L.value(y, eta)) + L.d2(y, eta);
                        CHECK_AT_MOST(std::abs(L.d1(y, eta) - d1), 1e-11 * size);
                        CHECK_AT_MOST(std::abs(L.d2(y, eta) - d2), 1e-11 * (size + std::abs(eta)));
                    }
                }
            },
            loss);
    }
}

TEST("max_d2 and max_d3 are reached and not exceeded") {
    for (const Loss& loss : losses) {
        std::visit(
            [](auto L) {
                double d2 = 0.0, d3 = 0.0;
                if (std::isinf(L.max_d3)) return;
                for (double eta = -8.0; eta <= 8.0; eta += 1e-3) {
                    d2 = std::max(d2, L.d2(0.0, eta));
                    d3 = std::max(d3, std::abs((L.d2(0.0, eta + 1e-4) - L.d2(0.0, eta - 1e-4)) / 2e-4));
                }
                about = L.name;
                CHECK_AT_MOST(std::abs(d2 - L.max_d2), 1e-6);
                CHECK_AT_MOST(std::abs(d3 - L.max_d3), 1e-6);
            },
            loss);
    }
}

TEST("|d3| is at most `remainder` times d2, and reaches that") {
    for (const Loss& loss : losses) {
        std::visit(
            [&](auto L) {
                double most = 0.0;
                if (std::isinf(remainder(loss))) return;
                for (const double y : {0.0, 1.0})
                    for (double eta = -30.0; eta <= 30.0 && L.contains(y); eta += 0.37) {
                        const double d3 =
                            central_difference([&](double t) { return L.d2(y, eta + t); }, 1e-3);
                        about = std::string(L.name) + " eta " + text_of(eta);
                        if (L.d2(y, eta) > 1e-9) most = std::max(most, std::abs(d3) / L.d2(y, eta));
                    }
                CHECK_AT_MOST(most, remainder(loss) + 1e-6);
                CHECK_AT_MOST(remainder(loss), most + 1e-6);
            },
            loss);
    }
}

TEST("d1_rounding and moved bound what d1 and d2 may be at every eta within reach, and grow with it") {
    for_each_eta([](const auto& L, const Derivatives&, double y, double eta) {
        double before = 0.0, before_d2 = 0.0;
        const bool means = std::isinf(L.max_d2);
        if (means && std::abs(eta) > 300.0) return;  // e^eta is next to out of range
        // what moves eta is at least its own rounding
        const double least = means ? 2.0 * roundoff * std::abs(eta) : 0.0, far = means ? 300.0 : 1e4;
        for (double t = std::max(0x1p-60, least); t < far; t *= 3.0) {
            about = std::string(L.name) + " y " + text_of(y) + " eta " + text_of(eta) + " t " + text_of(t);
            const double d1 = L.d1(y, eta), d2 = L.d2(y, eta), allowed = L.d1_rounding(d1, t / roundoff, y);
            const double allowed_d2 = moved(d2, L.max_d3, L.max_d2, t / roundoff);
            CHECK(before <= allowed);
            CHECK(L.max_d3 == 0.0 || before_d2 <= allowed_d2);
            before = allowed, before_d2 = allowed_d2;
            for (const double share : {-1.0, -0.5, 0.5, 1.0}) {
                const Derivatives at = exact_loss(L, y, Real(eta) + share * Real(t));
                // 6 and 8 ulp of their own
                CHECK_AT_MOST(std::abs(at.d1 - d1), (Real(allowed) + 12.0 * std::abs(d1)) * roundoff);
                if (L.max_d3 > 0.0 && !std::isinf(remainder(L)))
                    CHECK_AT_MOST(std::abs(at.d2 - d2),
                                  (Real(allowed_d2) + (16.0 + 2.0 * std::abs(eta)) * d2) * roundoff);
            }
        }
    });
}

TEST("a slope that says nothing, and an eta that overflowed, leave the span of d1") {
    const double infinity = std::numeric_limits<double>::infinity(), nan = infinity - infinity;
    for (const double eta_rounding : {8.0 / roundoff, 1e300, infinity, nan})
        for (const double r : {0.0, 0x1p-1074, 0.5, 1.0, nan})
            CHECK(Logistic::d1_rounding(r, eta_rounding, 1.0) == (1.0 + 0x1p-20) / roundoff);
    CHECK(Logistic::d1_rounding(0.0, 2.0 / roundoff, 1.0) == 0.5 / roundoff);
    CHECK(Squared::d1_rounding(0.0, infinity, 1.0) == infinity);
    CHECK(moved(0.5, infinity, infinity, 2.0 / roundoff) == infinity);  // an unbounded derivative
    CHECK(moved(0.5, infinity, infinity, 0.0) <= 1e-300);
}

TEST("a loss is found by its name, and an unknown name is answered with the known ones") {
    CHECK(std::holds_alternative<Squared>(loss_named("squared")));
    CHECK(std::holds_alternative<Logistic>(loss_named("logistic")));
    CHECK(thrown<std::invalid_argument>([] { loss_named("hinge"); }) ==
          "unknown loss 'hinge': choose one of squared, logistic, fractional, poisson, tweedie(power), "
          "squared_hinge");
    CHECK(key(loss_named("tweedie(1.3)")).power == 1.3);
    CHECK(key(loss_named("tweedie(2)")).power == 2.0);
    for (const char* name :
         {"tweedie", "tweedie(1)", "tweedie(2.1)", "tweedie(1.5", "tweedie(1.5 )", "tweedie()"})
        CHECK(thrown<std::invalid_argument>([&] { loss_named(name); }).starts_with("unknown loss"));
}
