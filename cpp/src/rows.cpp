#include "expunge/rows.hpp"

namespace expunge {

namespace {
// Rows scaled and rank-updated together: enough to amortise one sweep over H.
constexpr Index gram_rows = 512;
}  // namespace

void add_gram(const Rows& X, const double* w, Eigen::Ref<Matrix> H) {
    thread_local Workspace packed, scaled;
    std::visit(
        [&](const auto& rows) {
            for (Index first = 0; first < rows.rows(); first += gram_rows) {
                const Index m = std::min(gram_rows, rows.rows() - first);
                rows.panel(first, m, packed).add_gram(Eigen::Map<const Vector>(w + first, m), H, scaled);
            }
        },
        X);
}

}  // namespace expunge
