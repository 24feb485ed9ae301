#include "expunge/rows.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace expunge {

double largest_norm(const Rows& X) {
    thread_local Workspace packed, mapped, spread;
    return std::sqrt(std::visit(
        [&](const auto& rows) {
            const Vector ones = Vector::Ones(rows.columns());
            const auto every = rows.spread(ones, spread);
            Vector norm2(rows.rows_in_cache());
            double largest = 0.0;
            for (Index first = 0; first < rows.rows(); first += rows.rows_in_cache()) {
                const Index m = std::min(rows.rows_in_cache(), rows.rows() - first);
                const auto squares = rows.panel(first, m, packed).map([](double x) { return x * x; }, mapped);
                squares.multiply(every, norm2.head(m));
                for (Index i = 0; i < m; ++i)  // what overflows has no known bound
                    if (!(norm2(i) <= largest))
                        largest = std::isnan(norm2(i)) ? std::numeric_limits<double>::infinity() : norm2(i);
            }
            return largest;
        },
        X));
}

}  // namespace expunge
