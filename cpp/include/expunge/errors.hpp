#pragma once
#include <stdexcept>
#include <string>

namespace expunge {

// Wrong arguments are std::invalid_argument; this is the one failure that depends on the numbers.
class NotPositiveDefinite : public std::runtime_error {
public:
    explicit NotPositiveDefinite(long pivot)
        : std::runtime_error("Hessian is not positive definite (pivot " + std::to_string(pivot) +
                             "): raise alpha above 0") {}
    explicit NotPositiveDefinite(const std::string& message) : std::runtime_error(message) {}
};

// A CSR matrix whose rows do not ascend without duplicates.
class NotCanonical : public std::runtime_error {
public:
    NotCanonical() : std::runtime_error("the indices of X do not ascend in every row, or some come twice") {}
};

}  // namespace expunge
