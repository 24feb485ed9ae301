#pragma once
#include <functional>
#include <optional>
#include <vector>

#include "expunge/objective.hpp"
#include "expunge/register.hpp"

namespace expunge {

// Where the rows at the places of a register are stored. Each function is called only if its rows are needed.
// Its view must stay valid while it is in use.
struct StoredRows {
    std::function<RowsView()> base, overlay;                         // all rows of each
    std::function<RowsView(const std::vector<Index>& places)> copy;  // copies of some rows, in this order
};

// Rows of the data before and after a request (E2).
class TouchedRows {
public:
    TouchedRows(RowRegister& row_register, const StoredRows& stored);
    TouchedRows(const TouchedRows&) = delete;  // blocks point into change_

    bool any() const { return !before_.empty() || !after_.empty(); }
    bool any_before() const { return !before_.empty(); }

    // E1 on the rows before and on the rows after, without a penalty; nothing where there are no rows.
    std::optional<Objective> before(const Loss& loss, bool fit_intercept, Index outputs = 1) const;
    std::optional<Objective> after(const Loss& loss, bool fit_intercept, Index outputs = 1) const;

    // The sum of s |x|^2 over rows that joined or whose values changed; x is extended by 1 with an intercept.
    double gained_norm(bool fit_intercept) const;

private:
    RowRegister::Change change_;
    std::vector<Block> before_, after_;
};

}  // namespace expunge
