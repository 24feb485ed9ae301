#pragma once
// Branch-free exp and log1p on the two half-lines that the logistic loss needs: compilers vectorise
// them for any instruction set, which calls into libm prevent.
#include <bit>
#include <cstdint>

namespace expunge {

// 2^k for an integer-valued k in [-1022, 1023].
inline double power_of_two(double k) {
    constexpr double shift = 0x1.8p52;  // the low mantissa bits of k + shift hold k
    const auto bits = std::bit_cast<std::uint64_t>(k + 1023.0 + shift);
    return std::bit_cast<double>(bits << 52);
}

// e^x for x <= 0, denormal tail included; 0 below -745.2.
inline double exp_nonpositive(double x) {
    constexpr double shift = 0x1.8p52, log2e = 0x1.71547652b82fep0;
    constexpr double ln2_high = 0x1.62e42fefa3800p-1, ln2_low = 0x1.ef35793c76730p-45;
    x = x < -746.0 ? -746.0 : x;                   // NaN passes
    const double k = (x * log2e + shift) - shift;  // round to nearest
    const double r = (x - k * ln2_high) - k * ln2_low;
    // Taylor to degree 13: |r| <= ln2/2 leaves 4e-18.
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    // Two factors, since 2^k alone is not a normal number at the far end.
    const double far = k < -1000.0 ? k + 1000.0 : 0.0;
    return p * power_of_two(k - far) * power_of_two(far);
}

// e^x, infinite above 709.8.
inline double exp_any(double x) {
    const double e = exp_nonpositive(x > 0.0 ? -x : x);
    return x > 0.0 ? 1.0 / e : e;
}

// log(1 + t) for t in [0, 1]: 2 atanh(s), s = t / (2 + t) <= 1/3, by its series.
inline double log1p_unit(double t) {
    const double s = t / (2.0 + t), z = s * s;
    double p = 1.0 / 35.0;
    p = p * z + 1.0 / 33.0;
    p = p * z + 1.0 / 31.0;
    p = p * z + 1.0 / 29.0;
    p = p * z + 1.0 / 27.0;
    p = p * z + 1.0 / 25.0;
    p = p * z + 1.0 / 23.0;
    p = p * z + 1.0 / 21.0;
    p = p * z + 1.0 / 19.0;
    p = p * z + 1.0 / 17.0;
    p = p * z + 1.0 / 15.0;
    p = p * z + 1.0 / 13.0;
    p = p * z + 1.0 / 11.0;
    p = p * z + 1.0 / 9.0;
    p = p * z + 1.0 / 7.0;
    p = p * z + 1.0 / 5.0;
    p = p * z + 1.0 / 3.0;
    return 2.0 * (s + s * z * p);
}

}  // namespace expunge
