// The register of rows, beside a list of rows by number that is copied before every request.
#include "expunge/register.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <stdexcept>

#include "check.hpp"
#include "problems.hpp"

using namespace expunge;
using namespace expunge::testing;

namespace {

struct Row {
    bool live;
    Index values;  // the place of its values
    double y, s;
    bool operator==(const Row&) const = default;
};
using Expected = std::vector<Row>;

// What a register holds, row by row.
Expected rows_in(const RowRegister& row_register) {
    std::vector<Index> numbers(static_cast<std::size_t>(row_register.row_count()));
    std::iota(numbers.begin(), numbers.end(), Index(0));
    const RowRegister::Side all = row_register.of(numbers);
    Expected rows;
    for (Index row = 0; row < row_register.row_count(); ++row) {
        const Index at = all.places[static_cast<std::size_t>(row)];
        rows.push_back({at >= 0, at, all.y(row), all.s(row)});
        if (at < 0) continue;
        const bool base = at < row_register.base().size();
        const WeightedTargets& part = base ? row_register.base() : row_register.overlay();
        const Index i = base ? at : at - row_register.base().size();
        CHECK(part.targets()[i] == all.y(row) && part.weights()[i] == all.s(row));
    }
    return rows;
}

std::vector<Index> counted(const Expected& rows, bool classes) {
    std::vector<Index> counts(2, 0);
    for (const Row& row : rows)
        if (row.live && row.s > 0.0) ++counts[classes && row.y == 1.0 ? 1 : 0];
    return counts;
}

double total_weight(const RowRegister& row_register) {
    double sum = 0.0;
    for (const WeightedTargets* part : {&row_register.base(), &row_register.overlay()})
        for (Index i = 0; i < part->size(); ++i) sum += part->weights()[i];
    return sum;
}

Vector one(double value) { return Vector::Constant(1, value); }

}  // namespace

TEST("a register follows random requests, tells their changes, and forgets those that are rolled back") {
    for (const bool classes : {false, true}) {
        Random random(classes ? 1 : 2);
        const auto below = [&](Index n) {
            return std::min(n - 1, static_cast<Index>(random.uniform() * static_cast<double>(n)));
        };
        const Index n = 40;
        Vector y(n), s(n);
        for (Index i = 0; i < n; ++i) {
            y(i) = static_cast<double>(below(2));
            s(i) = below(5) == 0 ? 0.0 : 0.5 + random.uniform();
        }
        y.head(2) << 0.0, 1.0;  // these two stay
        s.head(2).setOnes();
        RowRegister row_register(y, s, classes ? 2 : 0);
        Expected expected;
        for (Index i = 0; i < n; ++i) expected.push_back({true, i, y(i), s(i)});
        for (int request = 0; request < 400; ++request) {
            const Expected before = expected;
            const Index stored = row_register.overlay().size(), abandoned = row_register.abandoned_places();
            row_register.begin();
            Index places = n + stored;
            std::map<Index, bool> touched;
            for (Index k = below(6); k > 0; --k) {
                const Index row = 2 + below(static_cast<Index>(expected.size()) - 2);
                Row& at = expected[static_cast<std::size_t>(row)];
                const std::vector<Index> rows = {row};
                const Index kind = below(4);
                if (kind == 3) {
                    const double target = static_cast<double>(below(2)), weight = random.uniform();
                    row_register.add(one(target), one(weight));
                    expected.push_back({true, places++, target, weight});
                    continue;
                }
                if (!at.live) {
                    CHECK(thrown<std::invalid_argument>([&] { row_register.remove(rows); }) ==
                          "row " + std::to_string(row) + " was removed before: it is no longer in the data");
                    continue;
                }
                touched[row] = true;
                if (kind == 0) {
                    row_register.remove(rows);
                    at = {false, -1, 0.0, 0.0};
                } else if (kind == 1) {
                    at.y = static_cast<double>(below(2));
                    if (below(2) == 0) {
                        row_register.set_targets(rows, one(at.y));
                    } else {
                        at.s = random.uniform();
                        row_register.set_targets(rows, one(at.y), one(at.s));
                    }
                } else {
                    row_register.relocate(rows);
                    at.values = places++;
                }
            }
            CHECK(rows_in(row_register) == expected);
            const RowRegister::Change change = row_register.change();
            CHECK(row_register.counts() == counted(expected, classes));
            std::size_t i = 0, there = 0;
            for (const auto& [row, _] : touched) {
                if (row >= static_cast<Index>(before.size())) continue;
                ++there;
                const Row &was = before[static_cast<std::size_t>(row)],
                          &now = expected[static_cast<std::size_t>(row)];
                const auto k = static_cast<Index>(i);
                CHECK(change.before.places[i] == was.values);
                CHECK(change.before.y(k) == was.y && change.before.s(k) == was.s);
                CHECK(change.after.places[i] == (now.live ? now.values : was.values));
                CHECK(change.after.s(k) == (now.live ? now.s : 0.0));
                if (now.live) CHECK(change.after.y(k) == now.y);
                ++i;
            }
            CHECK(change.before.places.size() == there && change.after.places.size() == there);
            CHECK(row_register.edited_rows() == static_cast<Index>(there + expected.size() - before.size()));
            CHECK(change.moved == (change.before.places != change.after.places));
            i = 0;
            for (std::size_t row = before.size(); row < expected.size(); ++row)
                if (expected[row].live) {
                    CHECK(change.joined.places[i] == expected[row].values);
                    CHECK(change.joined.s(static_cast<Index>(i++)) == expected[row].s);
                }
            CHECK(change.joined.places.size() == i);
            if (request % 3 == 0) {
                row_register.rollback();
                expected = before;
                CHECK(row_register.overlay().size() == stored &&
                      row_register.abandoned_places() == abandoned);
            }
            CHECK(rows_in(row_register) == expected);
            CHECK(row_register.counts() == counted(expected, classes));
            double weight = 0.0;
            for (const Row& row : expected) weight += row.s;
            CHECK_AT_MOST(std::abs(total_weight(row_register) - weight), 1e-12 * (1.0 + weight));
            if (request % 50 == 49) {
                const auto [smaller, were] = row_register.compacted();
                Expected kept = rows_in(smaller), moved = expected;
                for (Row& row : kept)
                    if (row.values >= n) row.values = were[static_cast<std::size_t>(row.values - n)];
                CHECK(kept == moved);
                CHECK(smaller.abandoned_places() == 0 && smaller.counts() == row_register.counts());
                CHECK(smaller.overlay().size() ==
                      row_register.overlay().size() - row_register.abandoned_places());
            }
        }
    }
}

TEST("a request that leaves too few rows is refused and can be rolled back") {
    const Vector y = (Vector(3) << 0.0, 1.0, 1.0).finished(), s = (Vector(3) << 1.0, 1.0, 0.0).finished();
    RowRegister row_register(y, s, 2);
    const Expected before = rows_in(row_register);
    const std::vector<Index> last_one = {1}, both = {0, 1};
    row_register.begin();
    row_register.remove(last_one);  // row 2 weighs nothing
    CHECK(thrown<std::invalid_argument>([&] { row_register.change(); }) ==
          "no row of positive weight would be left of one of the two classes");
    row_register.rollback();
    CHECK(rows_in(row_register) == before);
    CHECK((row_register.counts() == std::vector<Index>{1, 1}));
    RowRegister targets(y, s, 0);
    targets.begin();
    targets.remove(both);
    CHECK(thrown<std::invalid_argument>([&] { targets.change(); }) ==
          "no row of positive weight would be left");
}

TEST("rows that are restored keep their numbers") {
    const Vector y = (Vector(2) << 0.0, 1.0).finished(), s = (Vector(2) << 1.0, 2.0).finished();
    const std::vector<Index> numbers = {1, 4};
    RowRegister row_register(y, s, 2, numbers, 6);
    CHECK(row_register.row_count() == 6);
    CHECK(row_register.live() == numbers);
    CHECK(row_register.place(4) == 1 && row_register.place(0) == -1);
    CHECK((row_register.counts() == std::vector<Index>{1, 1}));
}

TEST("a class that leaves takes its rows along, and the classes above it move down") {
    const Vector y = (Vector(6) << 0.0, 1.0, 2.0, 3.0, 1.0, 3.0).finished();
    RowRegister row_register(y, Vector::Ones(6), 4);
    const std::vector<Index> moved = {1, 2}, left = {5};
    row_register.relocate(moved);
    row_register.remove(left);
    row_register.add((Vector(2) << 1.0, 3.0).finished(), Vector::Ones(2));
    row_register.change();
    row_register.begin();
    const Expected before = rows_in(row_register);
    for (const Index k : {0, 1, 3}) {
        const RowRegister fewer = row_register.without_class(k);
        const Expected rest = rows_in(fewer);
        const auto number = static_cast<double>(k);
        for (std::size_t row = 0; row < before.size(); ++row) {
            const Row& was = before[row];
            CHECK(rest[row].live == (was.live && was.y != number));
            if (rest[row].live) CHECK(rest[row] == (Row{true, was.values, was.y - (was.y > number), was.s}));
        }
        CHECK(fewer.counts().size() == 3 &&
              total_weight(fewer) == static_cast<double>(fewer.weighted_rows()));
        for (const WeightedTargets* part : {&fewer.base(), &fewer.overlay()})
            for (Index i = 0; i < part->size(); ++i) CHECK(part->targets()[i] < 3.0);
        CHECK(rows_in(row_register) == before);
    }
    CHECK(thrown<std::invalid_argument>([&] { row_register.without_class(4); }) ==
          "class 4 of 4 cannot leave: two have to stay");
}

TEST("memory that was handed out stays what it was when the overlay grows") {
    RowRegister row_register(one(1.0), one(1.0), 0);
    row_register.add(one(2.0), one(0.5));
    const auto targets = row_register.overlay().targets();
    for (int k = 0; k < 100; ++k) row_register.add(one(k), one(1.0));
    CHECK(targets[0] == 2.0);
}
