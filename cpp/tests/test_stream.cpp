// Streams of requests, beside the same requests one by one.
#include "expunge/stream.hpp"

#include "problems.hpp"

using namespace expunge;
using namespace expunge::testing;

namespace {

constexpr double unbounded = std::numeric_limits<double>::infinity();
constexpr double leaves = std::numeric_limits<double>::quiet_NaN();

// Statistics of a problem's rows at its theta, and the register of these rows.
struct Anchored {
    Problem problem = make_problem("plain", 60, 4, Logistic{}, true);
    RowRegister rows{problem.y, problem.s, 2};
    AnchoredStatistics statistics = at(problem);
    StoredRows stored{[this] { return rows_of(problem.X); }, [this] { return rows_of(none); },
                      [this](const std::vector<Index>& places) {
                          copied.push_back(std::make_unique<RowMatrix>(problem.X(places, Eigen::all)));
                          return rows_of(*copied.back());
                      }};
    RowMatrix none = RowMatrix(0, 4);
    std::vector<std::unique_ptr<RowMatrix>> copied;

    static AnchoredStatistics at(const Problem& problem) {
        const Objective J = problem.objective();
        const Evaluation here = J.evaluate(problem.theta);
        return {J, std::make_shared<const Anchor>(J, problem.theta, here.curvature, 5), here,
                J.rounding_floor(problem.theta), problem.X.rowwise().norm().maxCoeff()};
    }

    // What the stream grants: one request for each row that leaves, NaN, or gets a target.
    Stream run(const RowRequests& requests, double limit = 1e9, Index most = 1000, bool keep = true,
               double distance = unbounded) {
        rows.begin();
        Stream stream(rows, stored, statistics, problem.theta);
        stream.run(requests, {limit, distance}, keep, [&] { return stream.size() < most; });
        return stream;
    }
};

RowRequests single(std::vector<Index> rows) {
    RowRequests requests{rows, std::vector<double>(rows.size(), leaves), {}};
    for (std::size_t i = 0; i < rows.size(); ++i) requests.ends.push_back(Index(i) + 1);
    return requests;
}

bool same(const RowRegister& a, const RowRegister& b) {
    if (a.live() != b.live() || a.counts() != b.counts() || a.weighted_rows() != b.weighted_rows())
        return false;
    const std::vector<Index> live = a.live();
    return a.of(live).y == b.of(live).y && a.of(live).s == b.of(live).s;
}

}  // namespace

TEST("a stream gives the bits that its requests give one by one") {
    const RowRequests requests{
        {3, 9, 17, 18, 4, 50}, {leaves, 1.0, leaves, leaves, 0.0, leaves}, {1, 2, 5, 6}};
    Anchored together, apart;
    const Stream stream = together.run(requests);
    CHECK(stream.size() == 4);
    CHECK((stream.touched == std::vector<Index>{1, 1, 3, 1}));
    for (Index k = 0; k < 4; ++k) {
        RowRequests alone;
        for (Index i = requests.begin(k); i < requests.end(k); ++i) {
            alone.rows.push_back(requests.rows[std::size_t(i)]);
            alone.targets.push_back(requests.targets[std::size_t(i)]);
        }
        alone.ends = {Index(alone.rows.size())};
        const Stream one = apart.run(alone);
        CHECK(one.size() == 1);
        CHECK(one.bounds[0] == stream.bounds[std::size_t(k)]);
        CHECK(one.theta == stream.thetas[std::size_t(k)]);
        apart.statistics = one.statistics;
        if (k == 0)  // E3 at the theta before, of the only request
            CHECK(one.difference.gradient.norm() > 0.0);
    }
    CHECK(stream.theta == stream.thetas.back());
    CHECK(same(together.rows, apart.rows));
    CHECK(stream.statistics.state().gradient == apart.statistics.state().gradient);
}

TEST("what is refused or not proven is undone, and ends the stream") {
    const Index gone = 7;
    struct Case {
        RowRequests requests;
        Index granted;
        double limit = 1e9;
    };
    std::vector<Index> all;
    for (Index i = 0; i < 60; ++i) all.push_back(i);
    std::vector<Index> pair{1, 2};  // the second is proven less well than the first
    std::vector<double> bounds{1.0, 0.0};
    for (; bounds[1] <= bounds[0]; ++pair[1]) bounds = Anchored().run(single({1, pair[1] + 1})).bounds;
    const std::vector<Case> cases{
        {single({gone, 8, gone, 9}), 2},
        {single({gone, 60, 9}), 1},
        {single({gone, -1, 9}), 1},
        {{all, std::vector<double>(60, leaves), {1, 60}}, 1},  // no row would be left
        {single(pair), 1, std::nextafter(bounds[1], 0.0)},
        {single(pair), 2, bounds[1]},
        {single(pair), 0, 0.0},
    };
    for (const Case& c : cases) {
        about = "case " + std::to_string(&c - cases.data());
        Anchored some, prefix;
        const Stream stream = some.run(c.requests, c.limit);
        CHECK(stream.size() == c.granted);
        RowRequests those = c.requests;
        those.ends.resize(std::size_t(c.granted));
        const Index rows = c.granted ? those.ends.back() : 0;
        those.rows.resize(std::size_t(rows));
        those.targets.resize(std::size_t(rows));
        prefix.run(those);
        CHECK(same(some.rows, prefix.rows));
        some.rows.rollback();
        CHECK(same(some.rows, Anchored().rows));
    }
}

TEST("a stream that is told to stop has granted what it had") {
    Anchored some, two;
    const Stream stream = some.run(single({1, 2, 3, 4}), 1e9, 2, false);
    CHECK(stream.size() == 2);
    CHECK(stream.thetas.empty());
    CHECK(stream.theta == two.run(single({1, 2})).theta);
    CHECK(same(some.rows, two.rows));
}

TEST("an error of whoever holds the rows undoes the request") {
    Anchored some;
    some.stored.copy = [](const std::vector<Index>&) -> RowsView { throw std::bad_alloc(); };
    const RowRequests requests{{1, 2, 5}, {leaves, leaves, leaves}, {1, 3}};
    some.rows.begin();
    Stream stream(some.rows, some.stored, some.statistics, some.problem.theta);
    bool failed = false;
    try {
        stream.run(requests, {1e9, unbounded}, false, [] { return true; });
    } catch (const std::bad_alloc&) {
        failed = true;
    }
    CHECK(failed);
    CHECK(stream.size() == 1);
    Anchored one;
    one.run(single({1}));
    CHECK(same(some.rows, one.rows));
}

TEST("a stream ends before a distance that is not proven") {
    Anchored first;
    const double distance = first.run(single({1})).distances[0];
    CHECK(distance > 0.0);
    for (const auto& [limit, granted] :
         {std::pair(distance, Index(1)), std::pair(std::nextafter(distance, 0.0), Index(0))}) {
        Anchored some;
        CHECK(some.run(single({1}), 1e9, 1000, true, limit).size() == granted);
    }
}
