#include "expunge/gaussian.hpp"

#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>

namespace expunge {

namespace {

constexpr std::int64_t base = std::int64_t(1) << 32, half = base / 2, far = std::int64_t(1) << 62;
constexpr std::int64_t most_whole = 511;  // k = 512 comes with probability e^-256
constexpr int most_tries = 4096;          // each of which succeeds with probability 0.49

[[noreturn]] void stuck() {
    throw std::runtime_error(
        "the random numbers are not random: they repeat in a way that chance does not bring about");
}

// True with probability exp(-1/2). The run 1/2 > U_1 > U_2 > ... has length n or more with probability
// (1/2)^n / n!, so an even length with the sum of (-1/2)^n / n!, which is exp(-1/2).
bool half_an_exponent(Bits& bits) {
    Uniform pair[2];
    if (pair[0].digit(0, bits) >= half) return true;
    bool even = false;
    for (int i = 1;; i ^= 1, even = !even) {
        pair[i].forget();
        if (!less(pair[i], pair[i ^ 1], bits)) return even;
    }
}

// True with probability (2k + x) / (2k + 2).
bool rarely_not(Digit k, Uniform& x, Bits& bits) {
    const Digit part = bits.below(2 * k + 2);
    if (part != 2 * k) return part < 2 * k;
    Uniform fresh;
    return less(fresh, x, bits);
}

// True with probability exp(-x (2k + x) / (2k + 2)). Again a run x > U_1 > U_2 > ..., each step of which must
// also be true with probability (2k + x) / (2k + 2). It has n steps or more with probability (x (2k + x) /
// (2k + 2))^n / n!.
bool accepts(Digit k, Uniform& x, Bits& bits) {
    Uniform pair[2];
    Uniform* least = &x;
    bool even = true;
    for (int i = 0;; i ^= 1, even = !even) {
        pair[i].forget();
        if (!less(pair[i], *least, bits) || !rarely_not(k, x, bits)) return even;
        least = &pair[i];
    }
}

// |theta| / 2^exponent = mantissa 2^shift, whole + fraction.
class InSteps {
public:
    InSteps(double theta, int exponent) {
        int e;
        const double fraction = std::frexp(std::abs(theta), &e);  // in [1/2, 1), or 0
        mantissa_ = static_cast<std::uint64_t>(std::ldexp(fraction, 53));
        shift_ = e - 53 - exponent;
    }
    bool fits() const { return mantissa_ == 0 || shift_ <= 9; }  // below 2^62
    std::int64_t whole() const { return static_cast<std::int64_t>(shifted(shift_)); }
    // Digit j = 1, 2, ... of the fraction, the one that weighs 2^-32j.
    std::int64_t digit(std::int64_t j) const {
        return static_cast<std::int64_t>(shifted(shift_ + 32 * j) & 0xffffffffu);
    }

private:
    // floor(mantissa 2^by), modulo 2^64.
    std::uint64_t shifted(std::int64_t by) const {
        if (by >= 64 || by <= -64) return 0;
        return by >= 0 ? mantissa_ << by : mantissa_ >> -by;
    }

    std::uint64_t mantissa_;
    std::int64_t shift_;
};

// floor(F + added/2^32 + R w). F is the fraction of `at`; w has the digits of x after the first few, or is 1
// minus that. Digits are taken one by one, until later ones cannot change the result (E42).
std::int64_t floor_of_sum(const InSteps& at, std::int64_t added, std::int64_t R, Uniform& x, bool complement,
                          std::size_t first, Bits& bits) {
    const auto product = [&](std::size_t j) {  // R times digit j of w
        const Digit digit = x.digit(first + j - 1, bits);
        return R * static_cast<std::int64_t>(complement ? ~digit : digit);
    };
    const std::int64_t sum = at.digit(1) + added + product(1), whole = sum / base;
    std::int64_t missing = base - sum % base;  // to the next integer, in units of 2^-32j
    // All later digits together are at least 0 and less than R + 1 of these units.
    for (std::size_t j = 2; missing <= R; ++j) {
        missing = missing * base - at.digit(static_cast<std::int64_t>(j)) - product(j);
        if (missing <= 0) return whole + 1;
    }
    return whole;
}

// theta/g + 2^(32 finer) R N, rounded.
std::int64_t nearest(double theta, int exponent, std::int64_t R, int finer, Normal& N, Bits& bits) {
    const InSteps at(theta, exponent);
    if (!at.fits()) return theta < 0.0 ? -far : far;
    // beside |theta|; downwards -(k + x) = -(k + 1) + (1 - x)
    const bool down = N.negative != (theta < 0.0);
    std::int64_t whole = (down ? -(N.whole + 1) : N.whole) * R;
    if (finer) {
        const Digit digit = N.fraction.digit(0, bits);
        whole = whole * base + R * static_cast<std::int64_t>(down ? ~digit : digit);
    }
    whole += at.whole() + floor_of_sum(at, half, R, N.fraction, down, static_cast<std::size_t>(finer), bits);
    return theta < 0.0 ? -whole : whole;
}

// R (c + 1/2) - R u, rounded, with c = floor(theta/(R g) + u).
std::int64_t rounded(double theta, int exponent, std::int64_t R, Uniform& u, Bits& bits) {
    const InSteps at(theta, exponent);
    const std::int64_t offset = floor_of_sum(InSteps(0.0, 0), half, R, u, false, 0, bits);
    if (!at.fits()) return theta < 0.0 ? -far : far;
    // Below 0, floor(-a + u) = -floor(a + (1 - u)), but where these are integers: with probability 0.
    const std::int64_t whole = at.whole(), beside = floor_of_sum(at, 0, R, u, theta < 0.0, 0, bits);
    const std::int64_t cell = whole / R + (whole % R + beside >= R ? 1 : 0);
    return R * (theta < 0.0 ? -cell : cell) + R / 2 - offset;
}

void check(std::span<const double> theta, std::int64_t R, int exponent, std::size_t size) {
    if (R < 1 || R > half / 2)  // so that sums of a few products with digits stay below 2^63
        throw std::invalid_argument("R must be at least 1 and at most 2^30, got " + std::to_string(R));
    if (exponent < -4096 || exponent > 4096)
        throw std::invalid_argument("the exponent of a grid must be within 4096 of 0, got " +
                                    std::to_string(exponent));
    if (theta.size() != size) throw std::invalid_argument("K must be as long as theta");
    for (const double value : theta)
        if (!std::isfinite(value)) throw std::invalid_argument("theta must be finite");
}

}  // namespace

Bits::~Bits() {
    volatile Digit* digits = buffer_.data();  // volatile: else the compiler may skip it
    for (std::size_t i = 0; i < buffer_.size(); ++i) digits[i] = 0;
}

Digit Bits::below(Digit m) {
    const auto fair = static_cast<std::uint64_t>(base - base % m);  // a multiple of m
    for (int tries = 0; tries < 64; ++tries)                        // m is small: one will nearly always do
        if (const Digit drawn = digit(); drawn < fair) return drawn % m;
    stuck();
}

void Uniform::draw(Bits& bits) {
    if (drawn_ == digits_.size()) stuck();
    digits_[drawn_] = bits.digit();
    ++drawn_;
}

bool less(Uniform& a, Uniform& b, Bits& bits) {
    for (std::size_t j = 0;; ++j) {
        const Digit left = a.digit(j, bits), right = b.digit(j, bits);
        if (left != right) return left < right;
    }
}

// C. F. F. Karney, Sampling exactly from the normal distribution, ACM TOMS 42, 2016: Algorithm N. The density
// of k + x is exp(-k/2) exp(-k(k - 1)/2) exp(-x(2k + x)/2) = exp(-(k + x)^2/2), but for a factor.
Normal draw_normal(Bits& bits) {
    Normal N;
    for (int tries = 0; tries < most_tries; ++tries) {
        std::int64_t k = 0;
        for (; half_an_exponent(bits); ++k)
            if (k == most_whole) stuck();
        std::int64_t left = k * (k - 1);
        while (left > 0 && half_an_exponent(bits)) --left;
        if (left > 0) continue;
        N.fraction.forget();
        std::int64_t more = k + 1;
        while (more > 0 && accepts(static_cast<Digit>(k), N.fraction, bits)) --more;
        if (more > 0) continue;
        N.whole = k;
        N.negative = bits.coin();
        // Drawn now. Rounding needs more digits with probability 2^-43 only, so a seed gives the same noise
        // for every theta.
        N.fraction.digit(2, bits);
        return N;
    }
    stuck();
}

void add_normal(std::span<const double> theta, std::int64_t R, int exponent, Bits& bits,
                std::span<std::int64_t> K) {
    check(theta, R, exponent, K.size());
    for (std::size_t j = 0; j < K.size(); ++j) {
        Normal N = draw_normal(bits);
        K[j] = nearest(theta[j], exponent, R, 0, N, bits);
    }
}

void normal(std::int64_t R, Bits& bits, std::span<std::int64_t> K) {
    if (R < 1 || R > std::int64_t(1) << 21)  // with k <= 511 below 2^63
        throw std::invalid_argument("R must be at least 1 and at most 2^21, got " + std::to_string(R));
    for (std::int64_t& value : K) {
        Normal N = draw_normal(bits);
        value = nearest(0.0, 0, R, 1, N, bits);
    }
}

void round_with_offset(std::span<const double> theta, std::int64_t R, int exponent, Bits& bits,
                       std::span<std::int64_t> K) {
    check(theta, R, exponent, K.size());
    if (R % 2 != 0) throw std::invalid_argument("R must be even, got " + std::to_string(R));
    for (std::size_t j = 0; j < K.size(); ++j) {
        Uniform u;
        u.digit(2, bits);  // as above
        K[j] = rounded(theta[j], exponent, R, u, bits);
    }
}

}  // namespace expunge
