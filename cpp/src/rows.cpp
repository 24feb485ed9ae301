#include "expunge/rows.hpp"

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
                largest = std::max(largest, norm2.head(m).maxCoeff());
            }
            return largest;
        },
        X));
}

}  // namespace expunge
