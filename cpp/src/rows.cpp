#include "expunge/rows.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "expunge/parallel.hpp"

namespace expunge {

void indices_point_outside(bool known) {
    std::string message = outside_of_X;
    if (known) message += ": X was changed after it was handed over, and has to stay as it was";
    throw std::invalid_argument(message);
}

void add_gram(const Rows& X, const double* w, Eigen::Ref<Matrix> H, BeforePanel before) {
    thread_local Workspace memory;
    std::visit(
        [&](const auto& rows) {
            const Index parts = rows.gram_parts(), n = rows.rows(), d = rows.columns();
            require_size("H", H.size(), d * d);
            if (parts == 1) {
                rows.add_gram(w, H, [&](Index first, Index m) { before(0, first, m); });
                return;
            }
            double* sums = memory.take(parts * d * d);
            const auto of_part = [&](Index k) { return Eigen::Map<Matrix>(sums + k * d * d, d, d); };
            in_parallel(parts, [&](Index k) {
                const Index begin = n * k / parts, end = n * (k + 1) / parts;
                of_part(k).setZero();
                rows.slice(begin, end - begin).add_gram(w + begin, of_part(k), [&](Index first, Index m) {
                    before(k, begin + first, m);
                });
            });
            for (Index k = 0; k < parts; ++k) H.triangularView<Eigen::Lower>() += of_part(k);
        },
        X);
}

namespace {

std::atomic<bool> gathering = false;

}  // namespace

bool gathers() { return gathering.load(std::memory_order_relaxed); }

void set_gathers([[maybe_unused]] bool on) {
#ifdef EXPUNGE_GATHERS
    gathering = on;
#endif
}

double larger_norm2(double largest, const VectorRef& norm2) {
    for (const double x : norm2)
        if (!(x <= largest)) largest = std::isnan(x) ? std::numeric_limits<double>::infinity() : x;
    return largest;
}

double largest_norm(const Rows& X) {
    thread_local Workspace packed, spread;
    return std::sqrt(std::visit(
        [&](const auto& rows) {
            const Vector ones = Vector::Ones(rows.columns());
            const auto every = rows.spread(ones, spread);
            Vector norm2(rows.rows_in_cache());
            double largest = 0.0;
            for (Index first = 0; first < rows.rows(); first += rows.rows_in_cache()) {
                const Index m = std::min(rows.rows_in_cache(), rows.rows() - first);
                rows.panel(first, m, packed).map(Square()).multiply(every, norm2.head(m));
                largest = larger_norm2(largest, norm2.head(m));
            }
            return largest;
        },
        X));
}

}  // namespace expunge
