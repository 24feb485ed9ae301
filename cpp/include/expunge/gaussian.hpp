#pragma once
// Exact Gaussian noise. The digits of a real number are drawn only as far as a result needs them. What is
// released is the exact sum theta + sigma N, rounded to a grid (E42). All arithmetic is on integers.
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

namespace expunge {

using Digit = std::uint32_t;  // base 2^32

// A stream of independent, uniform digits.
class Bits {
public:
    // Writes that many digits.
    using Refill = std::function<void(Digit*, std::size_t)>;

    Bits(Refill refill, std::size_t at_once) : refill_(std::move(refill)), buffer_(at_once), next_(at_once) {}
    Bits(const Bits&) = delete;
    Bits& operator=(const Bits&) = delete;
    // Erases the digits from memory: whoever reads them there can subtract the noise.
    ~Bits();

    Digit digit() {
        if (next_ == buffer_.size()) {
            refill_(buffer_.data(), buffer_.size());
            next_ = 0;
        }
        return buffer_[next_++];
    }
    bool coin() { return digit() >> 31 != 0; }
    // One of 0 to m - 1, m > 0, all as likely.
    Digit below(Digit m);

private:
    Refill refill_;
    std::vector<Digit> buffer_;
    std::size_t next_;
};

// A uniform real number in (0, 1), known by as many digits as were asked for.
class Uniform {
public:
    Digit digit(std::size_t j, Bits& bits) {
        while (drawn_ <= j) draw(bits);
        return digits_[j];
    }
    std::size_t drawn() const { return drawn_; }
    // Starts another number, no digit of which is known.
    void forget() { drawn_ = 0; }

private:
    void draw(Bits& bits);

    std::array<Digit, 64> digits_;  // two numbers agree in all of them with probability 2^-2048: an error
    std::size_t drawn_ = 0;
};

// a < b. They are equal with probability 0.
bool less(Uniform& a, Uniform& b, Bits& bits);

// A normal deviate, ± (whole + fraction).
struct Normal {
    Uniform fraction;
    std::int64_t whole;
    bool negative;
};
Normal draw_normal(Bits& bits);

// What follows gives multiples K of the grid g = 2^exponent, for independent N and u in each coordinate. 1 <=
// R <= 2^30; theta is finite. Where |theta| / g is 2^62 or more, K is ± 2^62. Throws std::invalid_argument,
// and std::runtime_error where the digits cannot be random.

// K = theta/g + R N, rounded to the nearest integer.
void add_normal(std::span<const double> theta, std::int64_t R, int exponent, Bits& bits,
                std::span<std::int64_t> K);
// K = 2^32 R N, rounded to the nearest integer; R <= 2^21.
void normal(std::int64_t R, Bits& bits, std::span<std::int64_t> K);
// Rounding with a random offset (E17), R even: with c = floor(theta/(R g) + u), K = R (c + 1/2) - R u,
// rounded to the nearest integer.
void round_with_offset(std::span<const double> theta, std::int64_t R, int exponent, Bits& bits,
                       std::span<std::int64_t> K);

}  // namespace expunge
