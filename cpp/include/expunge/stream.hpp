#pragma once
#include <vector>

#include "expunge/function_ref.hpp"
#include "expunge/statistics.hpp"
#include "expunge/touched.hpp"

namespace expunge {

// Requests that name rows of the data, one after the other.
struct RowRequests {
    std::vector<Index> rows;           // of all of them, side by side
    std::vector<double> targets;       // what a row's target becomes; NaN where the row leaves
    std::vector<Index> ends;           // where in `rows` each request ends
    std::vector<double> weights = {};  // what a row's weight becomes with its target; empty: weights stay

    Index size() const { return static_cast<Index>(ends.size()); }
    Index begin(Index k) const { return k == 0 ? 0 : ends[static_cast<std::size_t>(k - 1)]; }
    Index end(Index k) const { return ends[static_cast<std::size_t>(k)]; }
};

// What a step must be proven to be within.
struct Limit {
    double residual;  // |grad J(theta)|
    double distance;  // from theta to the minimum, in standard errors (E41)
};

// Applies requests while each is proven by a step from the anchor alone (E9, E10, E41). The first one that is
// not, or that cannot be granted, is undone, and the stream ends before it.
class Stream {
public:
    // J is quadratic or not by the statistics' loss. `theta` is the model's before the first request.
    Stream(RowRegister& row_register, const StoredRows& stored, AnchoredStatistics statistics, Vector theta);

    // Grants requests [size(), requests.size()) within the limit. go_on() is asked between them.
    // Ends where the register wants to be compacted: when a request of its own would find it so.
    void run(const RowRequests& requests, Limit limit, bool keep_thetas, FunctionRef<bool()> go_on);

    Index size() const { return static_cast<Index>(bounds.size()); }

    // Of the requests granted:
    std::vector<double> bounds;     // of |grad J(theta)|
    std::vector<double> distances;  // bounds, in standard errors
    std::vector<Index> touched;     // rows edited
    std::vector<Vector> thetas;     // if they are kept
    AnchoredStatistics statistics;  // after the last one
    Vector theta;
    Evaluation difference;  // E3 of the last one, at the theta before it; if it is the only one

private:
    bool grant(const RowRequests& requests, Index k, Limit limit);

    RowRegister& register_;
    const StoredRows& stored_;
};

}  // namespace expunge
