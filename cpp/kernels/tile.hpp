#pragma once
// Shared by the kernels of one instruction set: groups of numbers, functions of an entry, and fetching.
#include <Eigen/Core>
#include <cmath>
#include <cstddef>

#include "expunge/kernels.hpp"

namespace expunge::kernel {

#if defined(__AVX512F__)
constexpr Index tile = 8;
#else
constexpr Index tile = 4;
#endif

// `tile` values of one term, worked on together.
using TileColumn = Eigen::Array<double, tile, 1>;

// Loads from packed memory, which is aligned, or from any other.
inline auto packed_column(double* values) { return Eigen::Map<TileColumn, Eigen::AlignedMax>(values); }
inline auto packed_column(const double* values) {
    return Eigen::Map<const TileColumn, Eigen::AlignedMax>(values);
}
inline auto tile_at(double* values) { return Eigen::Map<TileColumn>(values); }
inline auto tile_at(const double* values) { return Eigen::Map<const TileColumn>(values); }
inline TileColumn tile_at(const float* values) {
    return Eigen::Map<const Eigen::Array<float, tile, 1>>(values).cast<double>();
}

// n numbers as a vector.
inline auto vector(double* values, Index n) { return Eigen::Map<Eigen::VectorXd>(values, n); }
inline auto vector(const double* values, Index n) { return Eigen::Map<const Eigen::VectorXd>(values, n); }

// The functions f of an entry x, or of several entries at once. All are 0 at 0.
struct Entry {
    template <class X>
    const X& operator()(const X& x) const {
        return x;
    }
};
struct Magnitude {
    double operator()(double x) const { return std::abs(x); }
    template <class X>
    auto operator()(const Eigen::ArrayBase<X>& x) const {
        return x.abs();
    }
};
struct Square {
    template <class X>
    auto operator()(const X& x) const {
        return x * x;
    }
};

// Calls f(T()) for the type of X's numbers.
template <class F>
decltype(auto) with_scalar(Scalar scalar, F&& f) {
    return scalar == Scalar::float64 ? f(double()) : f(float());
}

// Calls f(F()) for the function of an entry.
template <class F>
decltype(auto) with_read(Read read, F&& f) {
    return read == Read::entry ? f(Entry()) : read == Read::square ? f(Square()) : f(Magnitude());
}

inline Index count(const Run* runs, Index run_count) {
    Index sum = 0;
    for (Index k = 0; k < run_count; ++k) sum += runs[k].count;
    return sum;
}

// visit(a run, the position of the first of its columns among all seen)
template <class Visit>
void each_run(const Run* runs, Index run_count, Visit&& visit) {
    Index j = 0;
    for (Index k = 0; k < run_count; ++k) {
        visit(runs[k], j);
        j += runs[k].count;
    }
}

// Fetches memory that will be read soon, into the second-level cache or into the first.
enum class Near { second, first };
template <Near cache = Near::second>
void fetch([[maybe_unused]] const void* from) {
#if defined(__GNUC__) || defined(__clang__)
    __builtin_prefetch(from, 0, cache == Near::first ? 3 : 2);
#endif
}

}  // namespace expunge::kernel
