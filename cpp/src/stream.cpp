#include "expunge/stream.hpp"

#include <cmath>
#include <stdexcept>
#include <utility>

#include "expunge/errors.hpp"

namespace expunge {

Stream::Stream(RowRegister& row_register, const StoredRows& stored, AnchoredStatistics first, Vector at)
    : statistics(std::move(first)), theta(std::move(at)), register_(row_register), stored_(stored) {}

void Stream::run(const RowRequests& requests, Limit limit, bool keep_thetas, FunctionRef<bool()> go_on) {
    while (size() < requests.size() && grant(requests, size(), limit)) {
        register_.proceed();
        if (keep_thetas) thetas.push_back(theta);
        if (!go_on() || register_.wants_compaction()) return;
    }
}

// False, with the request undone, where the step is not proven or the request is refused: what asks for it by
// itself learns why.
bool Stream::grant(const RowRequests& requests, Index k, Limit limit) {
    const auto first = static_cast<std::size_t>(requests.begin(k)),
               count = static_cast<std::size_t>(requests.end(k)) - first;
    try {
        // Rows that leave side by side do so in one call, and so do rows that get targets.
        const auto leaves = [&](std::size_t i) { return std::isnan(requests.targets[i]); };
        for (std::size_t i = first, end = i; i < first + count; i = end) {
            while (end < first + count && leaves(end) == leaves(i)) ++end;
            const RowRegister::RowNumbers rows(&requests.rows[i], end - i);
            const auto of = [&](const std::vector<double>& values) {
                return Eigen::Map<const Vector>(values.data() + (values.empty() ? 0 : i),
                                                values.empty() ? 0 : static_cast<Index>(end - i));
            };
            if (leaves(i))
                register_.remove(rows);
            else
                register_.set_targets(rows, of(requests.targets), of(requests.weights));
        }
        const TouchedRows rows(register_, stored_);
        const auto& state = statistics.state();
        const auto before = rows.before(state.loss, state.fit_intercept, state.outputs),
                   after = rows.after(state.loss, state.fit_intercept, state.outputs);
        const auto pointer = [](const std::optional<Objective>& J) { return J ? &*J : nullptr; };
        const bool many = 4 * register_.edited_rows() > register_.weighted_rows();
        const auto step = [&](AnchoredStatistics edited, Evaluation change) {
            if ((many && !edited.quadratic()) || edited.state().anchor->cancelled()) return false;
            auto [next, bound, distance] = edited.step(limit.distance);
            if (!(bound <= limit.residual && distance <= limit.distance)) return false;
            if (edited.may_lack_minimiser() && !std::isfinite(distance)) return false;
            statistics = std::move(edited);
            theta = std::move(next);
            difference = std::move(change);
            bounds.push_back(bound);
            distances.push_back(distance);
            touched.push_back(register_.edited_rows());
            return true;
        };
        if (requests.size() > 1) {
            if (step(statistics.edit(pointer(before), pointer(after)), Evaluation())) return true;
        } else {
            auto [edited, change] = statistics.edit(pointer(before), pointer(after), theta);
            if (step(std::move(edited), std::move(change))) return true;
        }
    } catch (const NotPositiveDefinite&) {
    } catch (const std::invalid_argument&) {
    } catch (const std::out_of_range&) {
    } catch (...) {
        register_.undo();
        throw;
    }
    register_.undo();
    return false;
}

}  // namespace expunge
