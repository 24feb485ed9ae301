// RowsView before and after a request, beside copies of the data before and after it.
#include "expunge/touched.hpp"

#include "problems.hpp"

using namespace expunge;
using namespace expunge::testing;

namespace {

// X as it was handed over, what was added to it, and how often copies were asked for.
struct Stored {
    RowMatrix X, overlay;
    mutable RowMatrix copied[2];
    mutable int copies = 0;

    StoredRows rows() const {
        return {[this] { return rows_of(X); }, [this] { return rows_of(overlay); },
                [this](const std::vector<Index>& places) {
                    RowMatrix& copy = copied[copies++];
                    copy.resize(static_cast<Index>(places.size()), X.cols());
                    for (Index i = 0; i < copy.rows(); ++i) {
                        const Index at = places[static_cast<std::size_t>(i)];
                        copy.row(i) = at < X.rows() ? X.row(at) : overlay.row(at - X.rows());
                    }
                    return rows_of(copy);
                }};
    }
};

struct Data {
    RowMatrix X;
    Vector y, s;
};

// The rows of the data, in the order of their numbers.
Data data(const RowRegister& row_register, const Stored& stored) {
    const std::vector<Index> live = row_register.live();
    const RowRegister::Side side = row_register.of(live);
    Data data{RowMatrix(side.y.size(), stored.X.cols()), side.y, side.s};
    for (Index i = 0; i < data.X.rows(); ++i) {
        const Index at = side.places[static_cast<std::size_t>(i)];
        data.X.row(i) = at < stored.X.rows() ? stored.X.row(at) : stored.overlay.row(at - stored.X.rows());
    }
    return data;
}

Objective objective(const Data& data, bool fit_intercept) {
    return {{{rows_of(data.X), data.y.data(), data.s.data()}},
            Logistic{},
            Vector::Zero(data.X.cols() + fit_intercept),
            fit_intercept};
}

struct Edited {
    Stored stored;
    RowRegister row_register;
    Data before;

    Edited() : Edited(Random(7)) {}
    explicit Edited(Random random)
        : stored{random.matrix(12, 3), random.matrix(4, 3), {}, 0},
          row_register(Vector::Unit(12, 4), Vector::LinSpaced(12, 0.5, 2.0), 0),
          before(data(row_register, stored)) {}

    // What the touched rows say of the change, beside what the data do.
    void check(bool copied) {
        const Data after = data(row_register, stored);
        const TouchedRows touched(row_register, stored.rows());
        CHECK((stored.copies > 0) == copied);
        const Vector theta = Vector::LinSpaced(4, -1.0, 1.0);
        for (const bool fit_intercept : {false, true}) {
            const auto was = touched.before(Logistic{}, fit_intercept),
                       now = touched.after(Logistic{}, fit_intercept);
            CHECK(was.has_value() == touched.any_before());
            CHECK((was || now) == touched.any());
            const auto at = theta.head(3 + fit_intercept);
            const Evaluation change = Objective::difference(was ? &*was : nullptr, now ? &*now : nullptr, at);
            const Evaluation from = objective(before, fit_intercept).evaluate(at),
                             to = objective(after, fit_intercept).evaluate(at);
            CHECK_AT_MOST((change.gradient - (to.gradient - from.gradient)).norm(), 1e-13);
            CHECK_AT_MOST(std::abs(change.value - (to.value - from.value)), 1e-13);
        }
    }
};

}  // namespace

TEST("rows that lie together are seen where they lie, others are copied") {
    for (const auto& [rows, copied] : {std::pair(std::vector<Index>{3, 4, 5}, false), {{3, 5, 9}, true}}) {
        Edited edited;
        edited.row_register.remove(rows);
        edited.check(copied);
    }
}

TEST("rows with other targets are the same rows on both sides") {
    Edited edited;
    edited.row_register.set_targets(std::vector<Index>{1, 7}, Vector{{1.0, 1.0}});
    edited.check(true);
    CHECK(edited.stored.copies == 1);
}

TEST("rows with other values and rows that join are read from the overlay") {
    Edited edited;
    const std::vector<Index> moved{2, 3};
    edited.row_register.relocate(moved);
    edited.row_register.add(Vector{{1.0, 0.0}}, Vector{{1.0, 3.0}});
    edited.check(false);
    const TouchedRows touched(edited.row_register, edited.stored.rows());
    const Vector s{{edited.before.s(2), edited.before.s(3), 1.0, 3.0}};
    const Vector norm2 = edited.stored.overlay.rowwise().squaredNorm();
    CHECK_AT_MOST(std::abs(touched.gained_norm(false) - s.dot(norm2)), 1e-13);
    CHECK_AT_MOST(std::abs(touched.gained_norm(true) - s.dot(norm2) - s.sum()), 1e-13);
}

TEST("a request that changes no row touches none") {
    Edited edited;
    edited.row_register.add(Vector{{1.0}}, Vector{{1.0}});
    edited.row_register.remove(std::vector<Index>{12});
    const TouchedRows touched(edited.row_register, edited.stored.rows());
    CHECK(!touched.any() && !touched.any_before());
    CHECK(!touched.before(Logistic{}, true) && !touched.after(Logistic{}, true));
    CHECK(touched.gained_norm(true) == 0.0);
}

TEST("copies must be as many as were asked for") {
    Edited edited;
    edited.row_register.remove(std::vector<Index>{0, 2});
    StoredRows stored = edited.stored.rows();
    stored.copy = [&](const std::vector<Index>&) { return rows_of(edited.stored.X); };
    CHECK(thrown<std::invalid_argument>([&] { TouchedRows(edited.row_register, stored); }) ==
          "take(places) has 12 numbers, expected 2");
}
