// Anchored curvature (E8): whatever is edited or dropped equals the Hessian computed afresh.
#include "expunge/anchor.hpp"

#include <algorithm>

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

double factor_error(const Anchor& anchor) {
    const Matrix L = anchor.factor().lower().triangularView<Eigen::Lower>(), H = symmetric(anchor.hessian());
    return (L * L.transpose() - H).norm() / H.norm();
}

void check_equal(const Anchor& anchor, const Problem& problem, double scale) {
    CHECK_AT_MOST(
        (symmetric(anchor.hessian()) - symmetric(problem.objective().hessian(anchor.theta()))).norm(),
        1e-13 * scale);
    CHECK_AT_MOST(factor_error(anchor), 1e-13);
}

}  // namespace

TEST("an anchor holds theta, the Hessian there and its factor") {
    for_each_problem([](const Problem& problem) {
        if (problem.fit_intercept && problem.name.starts_with("margins"))
            return;  // singular in floating point
        const Shared anchor = anchor_at(problem, 0.1 * problem.theta);
        CHECK(anchor->theta() == 0.1 * problem.theta);
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

TEST("coordinates dropped, few or many, leave the factor of the others") {
    const Problem problem = make_problem("several panels", 400, 150, Logistic{}, true);
    const Index p = problem.penalty.size();  // up to p / 32 = 4 by erasing, more by factoring anew
    const Shared anchor = anchor_at(problem, problem.theta);
    const Matrix H = symmetric(anchor->hessian());
    for (const std::vector<Index>& dropped : {std::vector<Index>{},
                                              {0},
                                              {77},
                                              {p - 1},
                                              {3, 4},
                                              {0, 50, 99, p - 1},
                                              {0, 1, 2, 3, 4},
                                              range(0, p, 2),
                                              range(0, p - 1),
                                              range(0, p)}) {
        about = std::to_string(dropped.size()) + " dropped";
        std::vector<Index> kept;
        for (Index i = 0; i < p; ++i)
            if (std::find(dropped.begin(), dropped.end(), i) == dropped.end()) kept.push_back(i);
        const Shared narrow = anchor->drop(dropped);
        CHECK(narrow->theta() == problem.theta(kept));
        CHECK(symmetric(narrow->hessian()) == H(kept, kept));
        if (!kept.empty()) CHECK_AT_MOST(factor_error(*narrow), 1e-14);
        CHECK(narrow->factor().size() == static_cast<Index>(kept.size()));
    }
    CHECK_AT_MOST(factor_error(*anchor), 1e-14);
}

TEST("an edit that leaves H indefinite gives null, and the anchor stays in use") {
    const Problem problem = make_problem("duplicate columns", 30, 6, Squared{}, false);
    const double largest = problem.X.colwise().squaredNorm().maxCoeff();
    const Objective own = problem.objective();
    // Rows that were never part of it: the diagonal turns negative, or only an eigenvalue does.
    for (const double scale : {2.0, std::sqrt(1.0 + 0.5 / largest)}) {
        Problem foreign = problem;
        foreign.X *= scale;
        const Objective never = foreign.objective();
        const Shared anchor = anchor_at(problem, problem.theta);
        CHECK(anchor->edit(&never, nullptr) == nullptr);
        check_equal(*anchor, problem, 0.0);
        check_equal(*anchor->edit(&own, nullptr), subset(problem, {}), 1e3);
    }
}

TEST("an edit that leaves mostly rounding gives null, though the large rows leave one after the other") {
    Problem problem = make_problem("more rows than columns", 60, 5, Squared{}, false);
    problem.X.topRows(30) *= 45.0;  // H is 2000 times what the others will leave
    Problem most = subset(problem, range(0, 30)), rest = most;
    most.s.setConstant(0.75);
    rest.s.setConstant(0.25);
    const Objective J_most = most.objective(), J_rest = rest.objective();
    const Shared anchor = anchor_at(problem, problem.theta), quarter = anchor->edit(&J_most, nullptr);
    CHECK(quarter != nullptr);
    CHECK(quarter->edit(&J_rest, nullptr) == nullptr);
    const Objective narrow({{DenseRows<double>(rest.X.data(), 30, 5, 1, {{2, 3}}), nullptr, rest.s.data()}},
                           Squared{}, Vector::Zero(3), false);
    CHECK(quarter->drop({0, 1})->edit(&narrow, nullptr) == nullptr);
}

TEST("a Hessian that is singular is refused") {
    const RowMatrix X = RowMatrix::Ones(4, 2);
    const Objective J({{rows_of(X), nullptr, nullptr}}, Squared{}, Vector::Zero(2), false);
    CHECK(thrown<NotPositiveDefinite>([&] { Anchor anchor(J, Vector::Zero(2)); }) ==
          "Hessian is not positive definite (pivot 1): raise alpha above 0");
}
