#pragma once
#include <cmath>
#include <stdexcept>
#include <string>

#include "expunge/types.hpp"

namespace expunge {

// Throws unless there are as many numbers as there must be: nothing below looks again.
inline void require_size(const char* name, Index size, Index expected) {
    if (size != expected)
        throw std::invalid_argument(std::string(name) + " has " + std::to_string(size) +
                                    " numbers, expected " + std::to_string(expected));
}

// Wrong arguments are std::invalid_argument; this is the one failure that depends on the numbers.
class NotPositiveDefinite : public std::runtime_error {
public:
    // `value`: what the pivot's place in H holds.
    NotPositiveDefinite(Index pivot, double value)
        : std::runtime_error("Hessian is not positive definite (pivot " + std::to_string(pivot) + "): " +
                             (std::isfinite(value)
                                  ? "columns of X depend on each other, or their sizes are too far apart for "
                                    "float64. Drop or scale them, or strengthen the penalty"
                                  : "squares of X overflow. Scale its columns")) {}
    explicit NotPositiveDefinite(const std::string& message) : std::runtime_error(message) {}
};

// A CSR matrix whose rows do not ascend without duplicates.
class NotCanonical : public std::runtime_error {
public:
    NotCanonical() : std::runtime_error("the indices of X do not ascend in every row, or some come twice") {}
};

}  // namespace expunge
