// Anchored curvature (E8): whatever is edited or dropped equals the Hessian computed afresh.
#include "expunge/anchor.hpp"

#include <algorithm>
#include <numeric>

#include "expunge/errors.hpp"
#include "problems.hpp"

using namespace expunge;
using namespace expunge::testing;

namespace {

using Shared = std::shared_ptr<const Anchor>;

Shared anchor_at(const Problem& problem, const Vector& theta) {
    return std::make_shared<const Anchor>(problem.objective(), theta);
}

// The rows of `problem` numbered `kept`, penalty included.
Problem subset(const Problem& problem, const std::vector<Index>& kept) {
    Problem part = problem;
    part.X.resize(static_cast<Index>(kept.size()), problem.X.cols());
    for (Index i = 0; i < part.X.rows(); ++i)
        part.X.row(i) = problem.X.row(kept[static_cast<std::size_t>(i)]);
    part.y = problem.y(kept);
    part.s = problem.s(kept);
    return part;
}

std::vector<Index> range(Index first, Index last, Index step = 1) {
    std::vector<Index> all;
    for (Index i = first; i < last; i += step) all.push_back(i);
    return all;
}

std::vector<Index> without(const std::vector<Index>& all, const std::vector<Index>& dropped) {
    std::vector<Index> kept;
    for (const Index i : all)
        if (std::find(dropped.begin(), dropped.end(), i) == dropped.end()) kept.push_back(i);
    return kept;
}

// |H x - b| for the solution x of a complete anchor, relative to |H| |x|.
double solve_error(const Anchor& anchor, unsigned seed = 51) {
    const Matrix H = symmetric(anchor.hessian());
    const Vector b = Random(seed).vector(H.rows()), x = anchor.solve(b);
    return (H * x - b).norm() / (H.norm() * x.norm());
}

void check_equal(const Anchor& anchor, const Problem& problem, double scale) {
    CHECK_AT_MOST(
        (symmetric(anchor.hessian()) - symmetric(problem.objective().hessian(anchor.theta()))).norm(),
        1e-13 * scale);
    CHECK_AT_MOST(solve_error(anchor), 1e-13);
}

}  // namespace

TEST("an anchor holds theta and the Hessian there, and solves with it") {
    for_each_problem([](const Problem& problem) {
        if (problem.fit_intercept && problem.name.starts_with("margins"))
            return;  // singular in floating point
        const Shared anchor = anchor_at(problem, 0.1 * problem.theta);
        CHECK(anchor->theta() == 0.1 * problem.theta && anchor->complete());
        check_equal(*anchor, problem, 0.0);
    });
}

TEST("rows removed, added and changed leave the Hessian of the new rows") {
    for_each_problem([](const Problem& problem) {
        const Index n = problem.X.rows();
        if (n < 5) return;
        const Vector theta = 0.1 * problem.theta;
        const double scale = static_cast<double>(exact(problem, theta).hessian_scale);
        const Problem kept = subset(problem, range(2, n)), gone = subset(problem, range(0, 2));
        const Objective first_two = gone.objective();
        if (!(kept.s.sum() > 0.0)) return;

        const Shared all = anchor_at(problem, theta);
        const Shared fewer = all->edit(&first_two, nullptr);
        check_equal(*fewer, kept, scale);
        CHECK(fewer->theta() == theta);
        check_equal(*fewer->edit(nullptr, &first_two), problem, scale);

        Problem changed = gone;
        changed.X *= 0.5;
        const Objective after = changed.objective();
        Problem whole = problem;
        whole.X.topRows(2) *= 0.5;
        check_equal(*all->edit(&first_two, &after), whole, scale);
        check_equal(*all, problem, 0.0);  // an anchor never changes
    });
}

TEST("new weights on the same rows change the Hessian by one gram matrix") {
    for_each_problem([](const Problem& problem) {
        Problem after = problem;
        after.s = 0.5 * problem.s.array() + 0.25;
        const Vector theta = 0.1 * problem.theta;
        if (problem.fit_intercept && problem.name.starts_with("margins")) return;
        const Objective before = problem.objective(), J = after.on(rows_of(problem.X));
        check_equal(
            *anchor_at(problem, theta)->edit(&before, &J), after,
            static_cast<double>(exact(problem, theta).hessian_scale + exact(after, theta).hessian_scale));
    });
}

TEST("corrected labels return the same anchor") {  // E6
    for_each_problem([](const Problem& problem) {
        Problem after = problem;
        after.y = 1.0 - problem.y.array();
        const Objective before = problem.objective(), J = after.on(rows_of(problem.X));
        const Shared anchor = anchor_at(problem, 0.1 * problem.theta);
        CHECK(anchor->edit(&before, &J) == anchor);
    });
}

TEST("coordinates dropped, few or many, leave an anchor of the others") {
    // The factor of a large Hessian is shared while no more than an eighth is gone.
    for (const auto& [n, d] : {std::pair<Index, Index>{400, 150}, {330, 300}}) {
        const Problem problem = make_problem("mostly zeros", n, d, Logistic{}, true);
        const Index p = problem.penalty.size();
        const Shared anchor = anchor_at(problem, problem.theta);
        const Matrix H = symmetric(anchor->hessian());
        for (const std::vector<Index>& dropped : {std::vector<Index>{},
                                                  {0},
                                                  {77},
                                                  {p - 1},
                                                  {3, 4},
                                                  {0, 50, 99, p - 1},
                                                  {0, 1, 2, 3, 4},
                                                  range(0, p / 8),
                                                  range(0, p, 2),
                                                  range(0, p - 1),
                                                  range(0, p)}) {
            about = std::to_string(dropped.size()) + " dropped of " + std::to_string(p);
            const std::vector<Index> kept = without(range(0, p), dropped);
            const Shared narrow = anchor->drop(dropped);
            CHECK(narrow->theta() == problem.theta(kept) && narrow->complete());
            CHECK(symmetric(narrow->hessian()) == H(kept, kept));
            CHECK(narrow->size() == static_cast<Index>(kept.size()));
            if (!kept.empty()) CHECK_AT_MOST(solve_error(*narrow), 1e-13);
        }
        CHECK_AT_MOST(solve_error(*anchor), 1e-14);
    }
}

TEST("drops one after the other solve as a factor of what is left, and are edited like it") {
    Problem problem = make_problem("mostly zeros", 340, 299, Logistic{}, true);
    problem.theta.head(250).setZero();  // what is dropped is 0, so that eta stays
    problem.theta(299) = 0.0;
    const Problem first_five = subset(problem, range(0, 5)), others = subset(problem, range(5, 340));
    const Objective J_five = first_five.objective(), J_others = others.objective();
    Shared anchor = anchor_at(problem, problem.theta);
    const Matrix H = symmetric(anchor->hessian());
    Matrix inverse = Matrix::Identity(300, 300);
    CholeskyFactor(H).solve_in_place(inverse);
    const double condition = H.norm() * inverse.norm();
    std::vector<Index> kept = range(0, 300);
    // Of 300, 37 may be gone before a factor is made anew.
    for (const std::vector<Index>& dropped :
         {std::vector<Index>{299}, {0, 17}, {}, range(30, 60), {5, 9}, {8, 20, 100, 200}, range(0, 3)}) {
        about = std::to_string(dropped.size()) + " dropped of " + std::to_string(kept.size());
        std::vector<Index> names;
        for (const Index i : dropped) names.push_back(kept[static_cast<std::size_t>(i)]);
        kept = without(kept, names);
        anchor = anchor->drop(dropped);
        CHECK(anchor->complete() && anchor->theta() == problem.theta(kept));
        const Matrix left = H(kept, kept);
        const CholeskyFactor fresh(left);
        for (const unsigned seed : {54u, 55u}) {
            const Vector b = Random(seed).vector(left.rows()), x = fresh.solve(b);
            CHECK_AT_MOST((anchor->solve(b) - x).norm(), 1e-15 * condition * x.norm());
        }
        if (dropped.size() != 2 && dropped.size() != 3) continue;
        const Objective before = J_five.select(kept), after = J_others.select(kept);
        const Shared edited = anchor->edit(&before, nullptr);
        CHECK(edited->complete() && edited->theta() == anchor->theta());
        CHECK_AT_MOST((symmetric(edited->hessian()) - symmetric(after.hessian(edited->theta()))).norm(),
                      1e-14 * left.norm());
        CHECK_AT_MOST(solve_error(*edited), 1e-14);
        CHECK_AT_MOST(solve_error(*edited->drop({1, 2})), 1e-14);
    }
}

TEST("an edit that leaves H indefinite has no factor, and the anchor stays in use") {
    const Problem problem = make_problem("duplicate columns", 30, 6, Squared{}, false);
    const double largest = problem.X.colwise().squaredNorm().maxCoeff();
    const Objective own = problem.objective();
    // RowsView that were never part of it: the diagonal turns negative, or only an eigenvalue does.
    for (const double scale : {2.0, std::sqrt(1.0 + 0.5 / largest)}) {
        Problem foreign = problem;
        foreign.X *= scale;
        const Objective never = foreign.objective();
        const Shared anchor = anchor_at(problem, problem.theta);
        const Shared indefinite = anchor->edit(&never, nullptr);
        CHECK(thrown<NotPositiveDefinite>([&] { indefinite->factor(); }).starts_with("Hessian is not"));
        CHECK(!indefinite->factored());
        check_equal(*anchor, problem, 0.0);
        check_equal(*anchor->edit(&own, nullptr), subset(problem, {}), 1e3);
    }
}

TEST("an edit that leaves mostly rounding says so, though the large rows leave one after the other") {
    Problem problem = make_problem("more rows than columns", 60, 5, Squared{}, false);
    problem.X.topRows(30) *= 45.0;  // H is 2000 times what the others will leave
    Problem most = subset(problem, range(0, 30)), rest = most;
    most.s.setConstant(0.75);
    rest.s.setConstant(0.25);
    const Objective J_most = most.objective(), J_rest = rest.objective();
    const Shared anchor = anchor_at(problem, problem.theta), quarter = anchor->edit(&J_most, nullptr);
    CHECK(!anchor->cancelled() && !quarter->cancelled());
    CHECK(quarter->edit(&J_rest, nullptr)->cancelled());
    const Objective narrow(
        {{RowsView::dense<double>(rest.X.data(), 30, 5, 1, {{2, 3}}), nullptr, rest.s.data()}}, Squared{},
        Vector::Zero(3), false);
    CHECK(quarter->drop({0, 1})->edit(&narrow, nullptr)->cancelled());
}

TEST("a stream of single rows on one factor stays the Hessian of the rows that are left") {  // E18
    for (const auto& [n, d] : {std::pair<Index, Index>{120, 7}, {200, 90}, {330, 270}}) {
        const Problem problem = make_problem("weights", n, d, Logistic{}, true);
        const Vector theta = 0.1 * problem.theta;
        const auto scale = static_cast<double>(exact(problem, theta).hessian_scale);
        std::vector<Index> live = range(0, n), gone;
        Shared anchor = anchor_at(problem, theta);
        Index shared_factors = 0;
        for (Index k = 0; k < 60; ++k) {
            // Two rows leave for each that returns.
            const bool returns = k % 3 == 2;
            std::vector<Index>&from = returns ? gone : live, &to = returns ? live : gone;
            const Index row = from[static_cast<std::size_t>(7 * k) % from.size()];
            from.erase(std::find(from.begin(), from.end(), row));
            to.push_back(row);
            const Problem one = subset(problem, {row});
            const Objective J = one.objective();
            const Shared next = returns ? anchor->edit(nullptr, &J) : anchor->edit(&J, nullptr);
            shared_factors += next->same_factor(*anchor);
            anchor = next;
            about = std::to_string(d) + " columns, edit " + std::to_string(k);
            if (k % 10 == 9) {
                check_equal(*anchor, subset(problem, live), scale);
                const Vector v = Random(63).vector(anchor->size());
                const Vector product = symmetric(anchor->hessian()) * v;
                CHECK_AT_MOST((anchor->multiply(v) - product).norm(), 1e-13 * scale * v.norm());
            }
        }
        CHECK(shared_factors > 40);
        const std::vector<Index> dropped = {0, 3, d}, kept = without(range(0, d + 1), dropped);
        const Shared narrow = anchor->drop(dropped);
        const Matrix H = symmetric(anchor->hessian());
        CHECK_AT_MOST((symmetric(narrow->hessian()) - H(kept, kept)).norm(), 1e-14 * H.norm());
        CHECK_AT_MOST(solve_error(*narrow), 1e-12);
        const Vector v = Random(64).vector(narrow->size());
        CHECK_AT_MOST((narrow->multiply(v) - H(kept, kept) * v).norm(), 1e-13 * H.norm() * v.norm());
    }
}

TEST("anchors that go on from the same one do not disturb each other") {
    const Problem problem = make_problem("more rows than columns", 60, 40, Logistic{}, false);
    const Shared parent = anchor_at(problem, problem.theta);
    const Problem first = subset(problem, {0}), second = subset(problem, {1}), third = subset(problem, {2});
    const Objective J1 = first.objective(), J2 = second.objective(), J3 = third.objective();
    const auto scale = static_cast<double>(exact(problem, problem.theta).hessian_scale);
    const Shared a = parent->edit(&J1, nullptr), b = parent->edit(&J2, nullptr), c = a->edit(&J3, nullptr);
    const Shared d = a->edit(&J2, nullptr);
    CHECK(a->edits() == 1 && b->edits() == 1 && c->edits() == 2 && d->edits() == 2);
    check_equal(*parent, problem, 0.0);
    check_equal(*a, subset(problem, range(1, 60)), scale);
    check_equal(*b, subset(problem, without(range(0, 60), {1})), scale);
    check_equal(*c, subset(problem, without(range(0, 60), {0, 2})), scale);
    check_equal(*d, subset(problem, without(range(0, 60), {0, 1})), scale);
}

TEST("a Hessian that is singular is refused") {
    const RowMatrix X = RowMatrix::Ones(4, 2);
    const Objective J({{rows_of(X), nullptr, nullptr}}, Squared{}, Vector::Zero(2), false);
    CHECK(thrown<NotPositiveDefinite>([&] { Anchor anchor(J, Vector::Zero(2)); }) ==
          not_positive_definite(1));
}

// ---- A block of H and its diagonal elsewhere ----

namespace {

// An anchor at problem.theta that is complete or not, and what it has to be.
struct Preconditioner {
    Shared anchor;
    std::vector<Index> block;  // coordinates of it, ascending
    Matrix H;                  // all of the Hessian

    // M^-1 b
    Vector solve(const Vector& b) const {
        Vector x = b.cwiseQuotient(H.diagonal());
        if (!block.empty()) x(block) = CholeskyFactor(H(block, block)).solve(b(block));
        return x;
    }
    void check(unsigned seed = 61) const {
        CHECK(anchor->size() == H.rows());
        CHECK(anchor->hessian().rows() == static_cast<Index>(block.size()));
        if (anchor->hessian().rows() != static_cast<Index>(block.size())) return;
        CHECK_AT_MOST((symmetric(anchor->hessian()) - H(block, block)).norm(), 1e-13 * H.norm());
        const Vector b = Random(seed).vector(H.rows()), x = solve(b);
        CHECK_AT_MOST((anchor->solve(b) - x).norm(), 1e-11 * x.norm());
    }
    Preconditioner drop(const std::vector<Index>& dropped) const {
        const std::vector<Index> kept = without(range(0, H.rows()), dropped);
        std::vector<Index> left;
        for (Index j = 0; j < static_cast<Index>(kept.size()); ++j)
            if (std::binary_search(block.begin(), block.end(), kept[static_cast<std::size_t>(j)]))
                left.push_back(j);
        return {anchor->drop(dropped), left, H(kept, kept)};
    }
};

// Of `size` coordinates, an unpenalised one first, then those where the data outweigh the penalty most.
Preconditioner preconditioner(const Problem& problem, const Objective& J, Index size) {
    const Matrix H = symmetric(J.hessian(problem.theta));
    const Vector share = (H.diagonal() - problem.penalty).cwiseQuotient(problem.penalty);
    std::vector<Index> order = range(0, H.rows());
    std::sort(order.begin(), order.end(), [&](Index i, Index j) { return share(i) > share(j); });
    order.resize(static_cast<std::size_t>(std::min(size, H.rows())));
    std::sort(order.begin(), order.end());
    return {std::make_shared<const Anchor>(J, problem.theta, size), order, H};
}

Problem of_unlike_columns(const std::string& shape, Index n, Index d, bool fit_intercept) {
    Problem problem = make_problem(shape, n, d, Logistic{}, fit_intercept);
    for (Index j = 0; j < d; ++j) {
        problem.X.col(j) *= static_cast<double>(1 + (7 * j) % d) / static_cast<double>(d);
        problem.penalty(j) = 0.5 * static_cast<double>(1 + (5 * j) % 13);
    }
    return problem;
}

}  // namespace

TEST("a block holds the coordinates that the data determine most, always the intercept") {
    for (const bool fit_intercept : {false, true}) {
        const Problem problem = of_unlike_columns("mostly zeros", 120, 23, fit_intercept);
        const Stored sparse = masked_csr(problem.X);
        for (const Objective& J : {problem.objective(), problem.on(sparse.rows)}) {
            for (const Index size : {0, 1, 2, 7, 22, 23, 24, 1000}) {
                about = problem.name + ", block of " + std::to_string(size);
                const Preconditioner expected = preconditioner(problem, J, size);
                if (fit_intercept && size > 0) CHECK(expected.block.back() == 23);
                CHECK(expected.anchor->complete() == (size >= expected.H.rows()));
                expected.check();
            }
        }
    }
}

TEST("coordinates dropped inside and outside of a block leave the block of the others") {
    const Problem problem = of_unlike_columns("mostly zeros", 120, 23, true);
    const Preconditioner whole = preconditioner(problem, problem.objective(), 7);
    const std::vector<Index> outside = without(range(0, 24), whole.block);
    for (const std::vector<Index>& dropped : {std::vector<Index>{},
                                              {whole.block[0], whole.block[3]},
                                              {outside[1], outside[4]},
                                              {23},
                                              range(0, 24, 2),
                                              whole.block,
                                              outside,
                                              range(0, 24)}) {
        about = std::to_string(dropped.size()) + " dropped, first " +
                std::to_string(dropped.empty() ? -1 : dropped[0]);
        whole.drop(dropped).check();
    }
    about = "twice";
    whole.drop({whole.block[1], outside.back()}).drop({0, 11, 20}).check();
    whole.check();
}

TEST("coordinates dropped of a large block leave the block of the others") {
    Problem problem = of_unlike_columns("mostly zeros", 200, 320, true);
    Preconditioner some = preconditioner(problem, problem.objective(), 290);
    for (const std::vector<Index>& dropped :
         {range(0, 20, 2), {}, range(5, 300, 25), {309 - 12}, range(40, 120)}) {
        some = some.drop(dropped);
        about = std::to_string(some.H.rows()) + " left";
        some.check();
    }
}

TEST("a block of the Hessian serves whatever rows there are, and is not edited") {
    const Problem problem = of_unlike_columns("more rows than columns", 60, 9, true);
    const Problem gone = subset(problem, range(0, 10));
    const Objective first_ten = gone.objective();
    const Shared anchor = std::make_shared<const Anchor>(problem.objective(), problem.theta, 4);
    CHECK(anchor->edit(&first_ten, nullptr) == anchor);
    CHECK(anchor->edit(nullptr, &first_ten) == anchor);
}

TEST("a block that drops have left alone is not taken for the Hessian of the current data") {
    const Problem problem = of_unlike_columns("more rows than columns", 60, 9, true);
    const Problem gone = subset(problem, range(0, 10)), rest = subset(problem, range(10, 60));
    const Preconditioner some = preconditioner(problem, problem.objective(), 4);
    const Objective first_ten = gone.objective();
    const Shared left = some.anchor->edit(&first_ten, nullptr)->drop(without(range(0, 10), some.block));
    CHECK(left->size() == 4);
    const Matrix H = symmetric(rest.objective().hessian(problem.theta));
    CHECK(!left->complete() ||
          (symmetric(left->hessian()) - H(some.block, some.block)).norm() <= 1e-13 * H.norm());
    CHECK(!left->complete() || left->theta().size() == 4);
}

TEST("an anchor takes the curvature that it is given") {
    const Problem problem = of_unlike_columns("weights", 50, 6, true);
    const Objective J = problem.objective();
    const Vector curvature = J.curvature(problem.theta);
    for (const Index block : {Index(0), Index(3), all_coordinates}) {
        const Anchor own(J, problem.theta, block), given(J, problem.theta, 2.0 * curvature, block);
        const Vector b = Random(62).vector(7);
        Problem twice = problem;
        twice.s *= 2.0;
        const Anchor expected(twice.objective(), problem.theta, block);
        CHECK_AT_MOST((given.solve(b) - expected.solve(b)).norm(), 1e-13 * b.norm());
        CHECK_AT_MOST(0.01 * b.norm(), (given.solve(b) - own.solve(b)).norm());
    }
}
