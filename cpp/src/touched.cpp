#include "expunge/touched.hpp"

#include "expunge/errors.hpp"

namespace expunge {

namespace {

std::optional<Objective> objective(const std::vector<Block>& blocks, const Loss& loss, bool fit_intercept,
                                   Index outputs = 1) {
    if (blocks.empty()) return std::nullopt;
    const Index d = blocks.front().rows.columns();
    return Objective(blocks, loss, Vector::Zero(outputs * (d + fit_intercept)), fit_intercept,
                     std::numeric_limits<double>::infinity(), Vector(), nullptr, outputs);
}

// The rows at these places; places below n are in the base. A view if they lie side by side, else a copy.
RowsView rows_at(const std::vector<Index>& places, Index n, const StoredRows& stored) {
    const Index first = places.front(), m = static_cast<Index>(places.size());
    bool together = first >= n || first + m <= n;
    for (Index i = 1; together && i < m; ++i) together = places[static_cast<std::size_t>(i)] == first + i;
    if (together) return first < n ? slice(stored.base(), first, m) : slice(stored.overlay(), first - n, m);
    RowsView copied = stored.copy(places);
    require_size("take(places)", copied.rows(), m);
    return copied;
}

}  // namespace

TouchedRows::TouchedRows(RowRegister& row_register, const StoredRows& stored)
    : change_(row_register.change()) {
    const auto view = [&](const RowRegister::Side& side) {
        return rows_at(side.places, row_register.base().size(), stored);
    };
    const auto add = [](std::vector<Block>& blocks, const RowsView& rows, const RowRegister::Side& side) {
        blocks.push_back({rows, side.y.data(), side.s.data()});
    };
    if (!change_.before.places.empty()) {
        const RowsView was = view(change_.before);
        add(before_, was, change_.before);
        add(after_, change_.moved ? view(change_.after) : was, change_.after);
    }
    if (!change_.joined.places.empty()) add(after_, view(change_.joined), change_.joined);
}

std::optional<Objective> TouchedRows::before(const Loss& loss, bool fit_intercept, Index outputs) const {
    return objective(before_, loss, fit_intercept, outputs);
}

std::optional<Objective> TouchedRows::after(const Loss& loss, bool fit_intercept, Index outputs) const {
    return objective(after_, loss, fit_intercept, outputs);
}

double TouchedRows::gained_norm(bool fit_intercept) const {
    std::vector<Block> gained;
    if (change_.moved)
        gained = after_;
    else if (!change_.joined.places.empty())
        gained = {after_.back()};
    const auto J = objective(gained, Squared{}, fit_intercept);
    return J ? J->gram_diagonal(J->curvature(Vector::Zero(J->parameters()))).sum() : 0.0;
}

}  // namespace expunge
