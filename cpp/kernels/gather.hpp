#pragma once
// Products of sparse rows by gathers of AVX-512, where the processor has fast ones.
#include <Eigen/Core>
#include <cstdint>

#include "expunge/kernels.hpp"

#if defined(__AVX512F__) && defined(__AVX512VL__)
#define EXPUNGE_GATHERS  // intrinsics come with Eigen
#endif

namespace expunge::kernel {

#ifdef EXPUNGE_GATHERS

// Up to eight numbers at a time. Those outside of the mask are 0 and not read.
using Mask = __mmask8;
inline Mask first_of_eight(Index count) { return static_cast<Mask>(count < 8 ? (1u << count) - 1u : 255u); }

inline __m512d numbers(const double* x, Mask mask) { return _mm512_maskz_loadu_pd(mask, x); }
inline __m512d numbers(const float* x, Mask mask) { return _mm512_cvtps_pd(_mm256_maskz_loadu_ps(mask, x)); }

inline __m256i places(const std::int32_t* at, Mask mask) { return _mm256_maskz_loadu_epi32(mask, at); }
inline __m512i places(const std::int64_t* at, Mask mask) { return _mm512_maskz_loadu_epi64(mask, at); }

inline __m512i twice(__m256i at) { return _mm512_slli_epi64(_mm512_cvtepi32_epi64(at), 1); }
inline __m512i twice(__m512i at) { return _mm512_slli_epi64(at, 1); }

inline __m512d gather(const double* from, __m256i at, Mask mask) {
    return _mm512_mask_i32gather_pd(_mm512_setzero_pd(), mask, at, from, 8);
}
inline __m512d gather(const double* from, __m512i at, Mask mask) {
    return _mm512_mask_i64gather_pd(_mm512_setzero_pd(), mask, at, from, 8);
}

// Which places are in [0, size); and which do not exceed those of `before`.
inline Mask within(__m256i at, std::int32_t size, Mask mask) {
    return _mm256_mask_cmplt_epu32_mask(mask, at, _mm256_set1_epi32(size));
}
inline Mask within(__m512i at, std::int64_t size, Mask mask) {
    return _mm512_mask_cmplt_epu64_mask(mask, at, _mm512_set1_epi64(size));
}
inline Mask no_more_than(__m256i at, __m256i before, Mask mask) {
    return _mm256_mask_cmple_epi32_mask(mask, at, before);
}
inline Mask no_more_than(__m512i at, __m512i before, Mask mask) {
    return _mm512_mask_cmple_epi64_mask(mask, at, before);
}

// sum_k x[k] v[at[k]] for one vector v, or for each of two whose entries lie side by side. soon(k) is called
// before every eight terms. The last terms are masked: a separate loop would end with a branch that is often
// mispredicted. Places outside of [0, width) are not read, and set `outside`. With `order`, places that do
// not ascend set `disordered`.
template <int vectors, bool order, class T, class I, class Soon>
Eigen::Array<double, vectors, 1> gathered_products(const T* x, const I* at, Index count, const double* v,
                                                   I width, bool& outside, bool& disordered, Soon&& soon) {
    static_assert(vectors == 1 || vectors == 2);
    __m512d sums[vectors];
    for (__m512d& sum : sums) sum = _mm512_setzero_pd();
    Mask out = 0, down = 0;
    for (Index k = 0; k < count; k += 8) {
        soon(k);
        const Mask all = first_of_eight(count - k);
        const auto here = places(at + k, all);
        const Mask mask = within(here, width, all);
        out |= mask ^ all;
        if constexpr (order) {
            const Mask later = k == 0 ? all & Mask(254) : all;
            down |= no_more_than(here, places(at + k - 1, later), later);
        }
        const __m512d terms = numbers(x + k, mask);
        if constexpr (vectors == 1) {
            sums[0] = _mm512_fmadd_pd(terms, gather(v, here, mask), sums[0]);
        } else {
            const __m512i pairs = twice(here);
            for (int l = 0; l < vectors; ++l)
                sums[l] = _mm512_fmadd_pd(terms, gather(v + l, pairs, mask), sums[l]);
        }
    }
    if (out) outside = true;
    if (down) disordered = true;
    Eigen::Array<double, vectors, 1> products;
    for (int l = 0; l < vectors; ++l) products(l) = _mm512_reduce_add_pd(sums[l]);
    return products;
}

#endif

}  // namespace expunge::kernel
