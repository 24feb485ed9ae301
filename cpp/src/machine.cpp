#include "expunge/machine.hpp"

#include <chrono>

#include "expunge/kernels.hpp"

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
    double operations = 0.0;
    const double spent = seconds([&] { result = kernels().chains(rounds, 1.0 - result * 0.0, &operations); });
    return operations / spent;
}

double reading_rate(const double* x, Index n) {
    const double spent = seconds([&] { result = kernels().sum(n, x); });
    return double(n) * sizeof(double) / spent;
}

}  // namespace expunge
