#include "expunge/layout.hpp"

#include <algorithm>
#include <limits>
#include <variant>

namespace expunge {

namespace {

constexpr Index block = 32;  // rows and columns: what is read and what is written stay in the cache together

// Calls visit(j, i, rows, columns) for every block (i, j) that is not above the diagonal.
template <class Visit>
void each_lower_block(Index p, Visit&& visit) {
    for (Index j = 0; j < p; j += block)
        for (Index i = j; i < p; i += block) visit(j, i, std::min(block, p - i), std::min(block, p - j));
}

// Whether all n numbers are inside; counted without a branch for each.
template <class Inside>
bool all_of(const double* values, Index n, Inside&& inside) {
    Index found = 0;
    for (Index i = 0; i < n; ++i) found += inside(values[i]);
    return found == n;
}

}  // namespace

void copy_lower(Index p, const double* from, double* to) {
    each_lower_block(p, [&](Index j, Index i, Index rows, Index columns) {
        for (Index l = j; l < j + columns; ++l)
            for (Index k = i; k < i + rows; ++k) to[k + l * p] = from[k * p + l];
    });
}

void symmetric_of_lower(Index p, const double* from, double* to) {
    each_lower_block(p, [&](Index j, Index i, Index rows, Index columns) {
        for (Index l = j; l < j + columns; ++l)
            for (Index k = std::max(i, l); k < i + rows; ++k) to[l + k * p] = to[k + l * p] = from[k + l * p];
    });
}

bool are_targets(const Loss& loss, const double* y, Index n) {
    return std::visit([&](auto l) { return all_of(y, n, [](double t) { return decltype(l)::contains(t); }); },
                      loss);
}

bool are_weights(const double* s, Index n) {
    constexpr double most = std::numeric_limits<double>::max();
    return all_of(s, n, [](double w) { return (w >= 0.0) & (w <= most); });
}

}  // namespace expunge
