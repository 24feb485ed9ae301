// Distances where the curvature jumps (E36).
#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "expunge/errors.hpp"
#include "walk.hpp"

namespace expunge {

double Objective::kink_gap(const VectorRef& theta) const {
    if (!std::holds_alternative<SquaredHinge>(loss_))
        throw std::invalid_argument("only a squared hinge has kinks");
    require_size("theta", theta.size(), parameters());
    thread_local Workspace memory;
    const Vector every = Vector::Ones(d_);
    const double one = fit_intercept_ ? 1.0 : 0.0;
    Index longest_row = 0;
    for (const Block& block : blocks_) longest_row = std::max(longest_row, block.rows.largest_row());
    double nearest2 = 0.0;  // of 1 / gap, squared
    for_each_panel(
        theta, Read::entry, Walk::alone, 0,
        [&](const Here& here, double* eta, Sums& sums) {
            alignas(64) Panel norm2;
            here.panel.map(Read::square).multiply(here.rows.spread(every, memory), as_vector(norm2, here.m));
            for (Index i = 0; i < here.m; ++i) {
                if (!(here.s[i] > 0.0)) continue;
                const double off = SquaredHinge::to_kink(here.y[i], eta[i]),
                             near2 = (norm2[i] + one) / (off * off);
                if (!(near2 <= sums.largest_norm2)) sums.largest_norm2 = known(near2);
            }
        },
        [&](const RowsView&, const Sums& sums) { nearest2 = std::max(nearest2, sums.largest_norm2); });
    const double lost = roundoff * (static_cast<double>(longest_row) + 8.0 + entry_roundings_) * theta.norm();
    return std::max(0.0, (1.0 - 0x1p-40) / std::sqrt(nearest2) - lost);
}

}  // namespace expunge
