#pragma once
#include <functional>
#include <optional>
#include <vector>

#include "expunge/objective.hpp"
#include "expunge/register.hpp"

namespace expunge {

// Where the rows lie whose places a register tells. Each is called only for rows that are asked for; what is
// given must outlive the use of it.
struct StoredRows {
    std::function<RowsView()> base, overlay;  // all of them
    std::function<RowsView(const std::vector<Index>& places)>
        copy;  // copies of some, side by side, in this order
};

// Rows of the data before and after a request (E2).
class TouchedRows {
public:
    TouchedRows(RowRegister& row_register, const StoredRows& stored);
    TouchedRows(const TouchedRows&) = delete;  // blocks look into the change

    bool any() const { return !before_.empty() || !after_.empty(); }
    bool any_before() const { return !before_.empty(); }

    // E1 on either side, without a penalty; none where there are no rows.
    std::optional<Objective> before(const Loss& loss, bool fit_intercept) const;
    std::optional<Objective> after(const Loss& loss, bool fit_intercept) const;

    // The sum of s |x|^2, x extended by 1 with an intercept, over rows that joined or have other values.
    double gained_norm(bool fit_intercept) const;

private:
    RowRegister::Change change_;
    std::vector<Block> before_, after_;
};

}  // namespace expunge
