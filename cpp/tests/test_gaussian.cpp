// Gaussian noise in real numbers: digits that are known before, where every decision can be worked out by
// hand.
#include "expunge/gaussian.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.hpp"

using namespace expunge;
using namespace expunge::testing;

namespace {

// Digits as they are listed, one at a time, and how many were taken.
struct Listed {
    std::vector<Digit> digits;
    std::size_t taken = 0;

    Bits bits() {
        return Bits(
            [this](Digit* to, std::size_t count) {
                for (std::size_t i = 0; i < count; ++i, ++taken) to[i] = digits.at(taken);
            },
            1);
    }
};

// The same digit forever.
Bits constant(Digit digit) {
    return Bits([digit](Digit* to, std::size_t count) { std::fill_n(to, count, digit); }, 7);
}

// SplitMix64.
Bits splitmix(std::uint64_t state) {
    return Bits(
        [state](Digit* to, std::size_t count) mutable {
            for (std::size_t i = 0; i < count; ++i) {
                std::uint64_t z = state += 0x9e3779b97f4a7c15u;
                z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
                z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
                to[i] = static_cast<Digit>((z ^ (z >> 31)) >> 32);
            }
        },
        1000);
}

std::int64_t offset_rounded(double theta, std::int64_t R, int exponent, Bits& bits) {
    std::int64_t K;
    round_with_offset({&theta, 1}, R, exponent, bits, {&K, 1});
    return K;
}

std::int64_t noised(double theta, std::int64_t R, int exponent, Bits bits) {
    std::int64_t K;
    add_normal({&theta, 1}, R, exponent, bits, {&K, 1});
    return K;
}

}  // namespace

TEST("one of m is drawn without a bias") {
    // 2^32 = 4 modulo 6: the last four digits would be one too many
    Listed listed{{0xffffffffu, 0xfffffffcu, 0xfffffffbu, 0u, 7u}};
    Bits bits = listed.bits();
    CHECK(bits.below(6) == 5);
    CHECK(listed.taken == 3);
    CHECK(bits.below(6) == 0);
    CHECK(bits.below(6) == 1);
}

TEST("numbers are compared by as many digits as it takes") {
    Listed listed{{5, 5, 7, 7, 1, 2, 9}};
    Bits bits = listed.bits();
    Uniform a, b, c;
    CHECK(less(a, b, bits));
    CHECK(listed.taken == 6);
    CHECK(!less(b, a, bits));
    CHECK(listed.taken == 6);
    CHECK(!less(c, a, bits));  // 9 against 5
    CHECK(a.drawn() == 3 && b.drawn() == 3 && c.drawn() == 1);
}

TEST("a sum just below an integer waits for the digit that decides") {
    for (std::size_t wait = 0; wait < 50; ++wait) {
        about = std::to_string(wait) + " digits";
        // R u + 1/2 = 1 at u = 1/4: just below
        Listed below{{0x3fffffffu}};
        below.digits.insert(below.digits.end(), 2 + wait, 0xffffffffu);
        below.digits.push_back(0xfffffffeu);
        Bits bits = below.bits();
        CHECK(offset_rounded(0.0, 2, 0, bits) == 1);  // R/2 - 0
        CHECK(below.taken == 4 + wait);
        // R u + 1/2 = 1 at u = 1/12: on either side
        for (const Digit last : {0x55555554u, 0x55555556u}) {
            Listed about_it{{0x15555555u}};
            about_it.digits.insert(about_it.digits.end(), 2 + wait, 0x55555555u);
            about_it.digits.push_back(last);
            Bits these = about_it.bits();
            CHECK(offset_rounded(0.0, 6, 0, these) == (last == 0x55555554u ? 3 : 2));
            CHECK(about_it.taken == 4 + wait);
        }
    }
}

TEST("a cell is found below 0 as above") {
    // R = 8, u = 1/4 and a little: c = floor(theta / 8 + u), K = 8 c + 4 - 2
    for (const auto& [theta, cell] : {std::pair{0.0, 0},
                                      {5.0, 0},
                                      {5.999, 0},
                                      {6.0, 1},
                                      {-2.0, 0},
                                      {-2.001, -1},
                                      {-10.0, -1},
                                      {-10.001, -2},
                                      {800.0, 100},
                                      {-800.0, -100}}) {
        about = "theta = " + text_of(theta);
        Listed listed{{0x40000000u, 0u, 1u, 0u, 0u}};
        Bits bits = listed.bits();
        CHECK(offset_rounded(theta, 8, 0, bits) == 8 * cell + 2);
        Listed again{{0x40000000u, 0u, 1u, 0u, 0u}};
        Bits other = again.bits();
        CHECK(offset_rounded(std::ldexp(theta, -900), 8, -900, other) == 8 * cell + 2);
    }
}

TEST("the deviates are normal") {
    constexpr std::size_t n = 400'000;
    Bits bits = splitmix(1);
    std::vector<std::int64_t> K(n);
    normal(1 << 20, bits, K);
    double sums[5] = {};
    for (const std::int64_t k : K) {
        const double x = std::ldexp(double(k), -52);
        for (int power = 1; power <= 4; ++power) sums[power] += std::pow(x, power) / double(n);
    }
    const double root = std::sqrt(double(n)), five = 5.0;  // standard deviations
    CHECK_AT_MOST(std::abs(sums[1]), five / root);
    CHECK_AT_MOST(std::abs(sums[2] - 1.0), five * std::sqrt(2.0) / root);
    CHECK_AT_MOST(std::abs(sums[3]), five * std::sqrt(15.0) / root);
    CHECK_AT_MOST(std::abs(sums[4] - 3.0), five * std::sqrt(96.0) / root);
}

TEST("theta is added exactly") {
    constexpr std::size_t n = 2000;
    constexpr std::int64_t R = 1 << 20;
    const std::vector<double> zeros(n, 0.0);
    std::vector<std::int64_t> noise(n), K(n);
    Bits bits = splitmix(2);
    add_normal(zeros, R, 0, bits, noise);
    for (const double theta : {1.0, -1.0, 12345678.0, -std::ldexp(1.0, 52), std::ldexp(1.0, 61)}) {
        Bits same = splitmix(2);
        add_normal(std::vector<double>(n, theta), R, 0, same, K);
        for (std::size_t j = 0; j < n; ++j) K[j] -= static_cast<std::int64_t>(theta);
        about = "theta = " + text_of(theta);
        CHECK(K == noise);
    }
    for (const double theta : {0.5, -0.5, 0x1p-1074, -0x1p-1074}) {
        Bits same = splitmix(2);
        add_normal(std::vector<double>(n, theta), R, 0, same, K);
        std::int64_t moved = 0;
        for (std::size_t j = 0; j < n; ++j) {
            const std::int64_t by = (K[j] - noise[j]) * (theta < 0.0 ? -1 : 1);
            CHECK(by == 0 || by == 1);
            moved += by;
        }
        CHECK(std::abs(theta) == 0.5 ? moved > 800 && moved < 1200 : moved == 0);
    }
}

TEST("a sum beyond 2^62 is said to be there") {
    constexpr std::int64_t far = std::int64_t(1) << 62;
    constexpr double largest = std::numeric_limits<double>::max();
    for (const int exponent : {-4096, -1074, 0}) {
        CHECK(noised(largest, 8, exponent, splitmix(3)) == far);
        CHECK(noised(-largest, 8, exponent, splitmix(3)) == -far);
    }
    CHECK(noised(0x1p62, 8, 0, splitmix(3)) == far);
    CHECK(noised(0x1.fffffffffffffp61, 8, 0, splitmix(3)) < far + 100);
    CHECK(std::abs(noised(largest, 8, 4096, splitmix(3))) < 100);
    Bits bits = splitmix(3);
    CHECK(offset_rounded(-largest, 8, 0, bits) == -far);
}

TEST("a source that repeats forever is refused, not asked forever") {
    for (const Digit digit : {0u, 1u, 0x7fffffffu, 0x80000000u, 0xffffffffu}) {
        about = std::to_string(digit);
        CHECK(thrown<std::runtime_error>([&] {
                  noised(0.0, 8, 0, constant(digit));
              }).find("are not random") != std::string::npos);
    }
}

TEST("what refills may throw") {
    Bits bits([](Digit*, std::size_t) { throw std::domain_error("no more"); }, 16);
    CHECK(thrown<std::domain_error>([&] { draw_normal(bits); }) == "no more");
}

TEST("what is no grid or no number is refused") {
    const auto refused = [](double theta, std::int64_t R, int exponent) {
        return thrown<std::invalid_argument>([&] { noised(theta, R, exponent, splitmix(4)); });
    };
    CHECK(refused(0.0, 0, 0) == "R must be at least 1 and at most 2^30, got 0");
    CHECK(refused(0.0, (std::int64_t(1) << 30) + 1, 0).find("at most 2^30") != std::string::npos);
    CHECK(refused(0.0, 8, 4097).find("exponent") != std::string::npos);
    CHECK(refused(std::numeric_limits<double>::infinity(), 8, 0) == "theta must be finite");
    CHECK(refused(std::numeric_limits<double>::quiet_NaN(), 8, 0) == "theta must be finite");
    Bits bits = splitmix(4);
    CHECK(thrown<std::invalid_argument>([&] { offset_rounded(0.0, 7, 0, bits); }) == "R must be even, got 7");
    std::vector<std::int64_t> K(1);
    CHECK(thrown<std::invalid_argument>([&] { normal((1 << 21) + 1, bits, K); }).find("2^21") !=
          std::string::npos);
}
