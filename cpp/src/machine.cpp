#include "expunge/machine.hpp"

#include <chrono>

#include "expunge/packed.hpp"

namespace expunge {

namespace {

volatile double result;  // of what is timed, so that it is done

template <class F>
double seconds(F&& work) {
    const auto begun = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
}

}  // namespace

double arithmetic_rate() {
    constexpr Index rounds = 200000;
#if defined(__AVX__) || defined(__aarch64__)
    constexpr int chains = 10;  // so many that none is waited for, and registers hold them
#else
    constexpr int chains = 6;
#endif
    TileColumn sums[chains];
    for (int k = 0; k < chains; ++k) sums[k].setConstant(1.0 + k);
    const TileColumn factor = TileColumn::Constant(1.0 - result * 0.0 - 1e-9),
                     term = TileColumn::Constant(1e-9);
    const double spent = seconds([&] {
        for (Index i = 0; i < rounds; ++i)
            for (int k = 0; k < chains; ++k) sums[k] = sums[k] * factor + term;
        for (int k = 1; k < chains; ++k) sums[0] += sums[k];
        result = sums[0].sum();
    });
    return 2.0 * double(rounds * chains * tile) / spent;
}

double reading_rate(const double* x, Index n) {
    const double spent = seconds([&] { result = Eigen::Map<const Vector>(x, n).sum(); });
    return double(n) * sizeof(double) / spent;
}

}  // namespace expunge
