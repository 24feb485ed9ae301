// Objectives of K outputs (E28): derivatives in long double, finite differences, the binary model, edits.
#include <algorithm>
#include <cmath>

#include "expunge/anchor.hpp"
#include "expunge/newton.hpp"
#include "problems.hpp"

using namespace expunge;
using namespace expunge::testing;

namespace {

constexpr Index classes[] = {2, 3, 10};

struct Multi {
    RowMatrix X;
    Vector y, s, penalty, theta;
    Index K;
    bool fit_intercept;

    Multi(Index n, Index d, Index outputs, bool intercept, unsigned seed = 11)
        : y(n), s(n), K(outputs), fit_intercept(intercept) {
        Random random(seed);
        X = random.matrix(n, d);
        for (Index i = 0; i < n; ++i) {
            y(i) = std::floor(random.uniform() * static_cast<double>(K));
            s(i) = i == 3 ? 0.0 : 0.25 + random.uniform();
        }
        const Index p = d + intercept;
        penalty = Vector::Zero(K * p);
        for (Index k = 0; k < K; ++k) penalty.segment(k * p, d).setLinSpaced(0.5, 1.5);
        theta = random.vector(K * p);
    }

    Index p() const { return X.cols() + fit_intercept; }
    Objective on(RowsView rows) const {
        return {{{std::move(rows), y.data(), s.data()}}, Logistic{}, penalty, fit_intercept,
                std::numeric_limits<double>::infinity(), Vector(),   nullptr, K};
    }
    Objective objective() const { return on(rows_of(X)); }
};

// E28 in long double, 1 - p as a sum.
Exact exact(const Multi& problem, const Vector& theta) {
    const Index n = problem.X.rows(), K = problem.K, p = problem.p(), d = problem.X.cols();
    const RealVector w = theta.cast<Real>(), penalty = problem.penalty.cast<Real>();
    Exact all{};
    all.gradient = penalty.cwiseProduct(w);
    all.value = w.dot(all.gradient) / 2;
    all.hessian = penalty.asDiagonal();
    for (Index i = 0; i < n; ++i) {
        const Real s = problem.s(i);
        if (s == 0) continue;
        RealVector x = RealVector::Ones(p), eta(K), e(K);
        x.head(d) = problem.X.row(i).transpose().cast<Real>();
        for (Index k = 0; k < K; ++k) eta(k) = x.dot(w.segment(k * p, p));
        const auto y = static_cast<Index>(problem.y(i));
        e = (eta.array() - eta.maxCoeff()).exp();
        const RealVector prob = e / e.sum();
        all.value += s * (std::log(e.sum()) + eta.maxCoeff() - eta(y));
        RealVector r = prob;
        r(y) = -(prob.sum() - prob(y));
        for (Index k = 0; k < K; ++k) {
            all.gradient.segment(k * p, p) += s * r(k) * x;
            for (Index l = 0; l < k; ++l) {
                const RealMatrix pair = s * prob(k) * prob(l) * x * x.transpose();
                all.hessian.block(k * p, l * p, p, p) -= pair;
                all.hessian.block(l * p, k * p, p, p) -= pair;
                all.hessian.block(k * p, k * p, p, p) += pair;
                all.hessian.block(l * p, l * p, p, p) += pair;
            }
        }
    }
    return all;
}

void for_each_multi(const std::function<void(const Multi&)>& visit) {
    for (const Index K : classes)
        for (const bool intercept : {false, true}) visit(Multi(60, 5, K, intercept));
}

}  // namespace

TEST("value, gradient, Hessian and products are those of long double, in every layout") {
    for_each_multi([](const Multi& problem) {
        const Exact truth = exact(problem, problem.theta);
        const Vector v = Random(5).vector(problem.theta.size());
        const Real scale = truth.hessian.norm();
        for (const Stored& layout : layouts(problem.X)) {
            const Objective J = problem.on(layout.rows);
            const Evaluation at = J.evaluate(problem.theta);
            CHECK_AT_MOST(std::abs(Real(at.value) - truth.value), 1e-14L * std::abs(truth.value));
            CHECK_AT_MOST(distance(at.gradient, truth.gradient), 1e-13L * scale);
            CHECK_AT_MOST(distance(at.gradient, truth.gradient), J.rounding_floor(problem.theta));
            const Matrix H = symmetric(J.hessian(problem.theta));
            CHECK_AT_MOST(distance(H, truth.hessian), 1e-14L * scale);
            CHECK_AT_MOST(distance(J.hvp(J.curvature(problem.theta), v), truth.hessian * v.cast<Real>()),
                          1e-13L * scale);
            CHECK_AT_MOST(distance(J.hvp_at(problem.theta, v), truth.hessian * v.cast<Real>()),
                          1e-13L * scale);
            CHECK_AT_MOST(distance(J.gram_diagonal(at.curvature) + J.penalty(), truth.hessian.diagonal()),
                          1e-13L * scale);
        }
    });
}

TEST("gradients and Hessians are finite differences") {
    for_each_multi([](const Multi& problem) {
        const Objective J = problem.objective();
        const Vector v = Random(6).vector(problem.theta.size());
        const auto moved = [&](double t) { return Vector(problem.theta + t * v); };
        const double slope = central_difference([&](double t) { return J.evaluate(moved(t)).value; }, 1e-3);
        CHECK_AT_MOST(std::abs(slope - J.evaluate(problem.theta).gradient.dot(v)), 1e-7 * std::abs(slope));
        const Vector product =
            central_difference([&](double t) { return J.evaluate(moved(t)).gradient; }, 1e-3);
        CHECK_AT_MOST((product - J.hvp_at(problem.theta, v)).norm(), 1e-7 * product.norm());
    });
}

TEST("two classes under twice the penalty are the binary model") {
    for (const bool intercept : {false, true}) {
        Multi problem(60, 5, 2, intercept);
        problem.penalty = 2.0 * problem.penalty.head(problem.p()).replicate(2, 1).eval();
        const Vector w = Random(8).vector(problem.p());
        Vector theta(2 * problem.p());
        theta << -0.5 * w, 0.5 * w;
        const Objective binary({{rows_of(problem.X), problem.y.data(), problem.s.data()}}, Logistic{},
                               0.5 * problem.penalty.head(problem.p()), intercept);
        const Evaluation one = binary.evaluate(w), two = problem.objective().evaluate(theta);
        CHECK_AT_MOST(std::abs(one.value - two.value), 1e-12 * one.value);
        CHECK_AT_MOST((two.gradient.tail(problem.p()) - one.gradient).norm(), 1e-12 * one.gradient.norm());
        CHECK_AT_MOST((two.gradient.head(problem.p()) + one.gradient).norm(), 1e-12 * one.gradient.norm());
    }
}

TEST("margins of 800 overflow nothing, and tiny probabilities keep their digits") {
    for (const Index K : classes) {
        Multi problem(40, 3, K, true);
        problem.theta *= 800.0 / (problem.X * problem.theta.head(3)).lpNorm<Eigen::Infinity>();
        const Exact truth = exact(problem, problem.theta);
        const Objective J = problem.objective();
        const Evaluation at = J.evaluate(problem.theta);
        CHECK_AT_MOST(std::abs(Real(at.value) - truth.value), 1e-13L * std::abs(truth.value));
        CHECK_AT_MOST(distance(at.gradient, truth.gradient), J.rounding_floor(problem.theta));
        CHECK_AT_MOST(distance(symmetric(J.hessian(problem.theta)), truth.hessian),
                      1e-10L * truth.hessian.norm());
    }
}

TEST("a row of weight 0 is not there, whatever it holds") {
    for (const Index K : classes) {
        Multi problem(40, 3, K, true);
        const Evaluation without = problem.objective().evaluate(problem.theta);
        const Matrix H = problem.objective().hessian(problem.theta);
        problem.X.row(3).setConstant(1e300);
        const Evaluation at = problem.objective().evaluate(problem.theta);
        CHECK(at.value == without.value && at.gradient == without.gradient);
        CHECK(problem.objective().hessian(problem.theta) == H);
    }
}

TEST("a difference is that of two gradients, and anchors follow rows and weights, and no labels") {
    for_each_multi([](const Multi& problem) {
        Multi other = problem;
        for (Index i = 0; i < 4; ++i) other.y(i) = std::fmod(other.y(i) + 1.0, static_cast<double>(other.K));
        const auto rows = [&](const Multi& of, Index first, Index m) {  // of one X
            return Objective(
                {{slice(rows_of(problem.X), first, m), of.y.data() + first, of.s.data() + first}}, Logistic{},
                Vector::Zero(of.penalty.size()), of.fit_intercept, std::numeric_limits<double>::infinity(),
                Vector(), nullptr, of.K);
        };
        const auto anchor = std::make_shared<const Anchor>(problem.objective(), problem.theta);
        const Objective was = rows(problem, 0, 4), now = rows(other, 0, 4);
        const Vector g = Objective::gradient_difference(&was, &now, problem.theta);
        CHECK_AT_MOST((g - (other.objective().evaluate(problem.theta).gradient -
                            problem.objective().evaluate(problem.theta).gradient))
                          .norm(),
                      1e-12);
        CHECK(anchor->edit(&was, &now) == anchor);  // E29
        Multi heavier = problem;
        for (Index i = 0; i < 4; ++i) heavier.s(i) = i % 2 ? 0.5 * problem.s(i) : 2.0 * problem.s(i);
        const Objective weighed = rows(heavier, 0, 4);
        for (const bool fold : {false, true}) {
            const auto edited = anchor->edit(&was, &weighed, fold);
            const Matrix moved = symmetric(edited->hessian()) - symmetric(anchor->hessian()),
                         expected = symmetric(heavier.objective().hessian(problem.theta)) -
                                    symmetric(problem.objective().hessian(problem.theta));
            CHECK_AT_MOST((moved - expected).norm(), 1e-12 * symmetric(anchor->hessian()).norm());
            const auto without = anchor->edit(&was, nullptr, fold);
            const Matrix left = symmetric(anchor->hessian()) - symmetric(was.hessian(problem.theta));
            CHECK_AT_MOST((symmetric(without->hessian()) - left).norm(), 1e-12 * left.norm());
            const Vector b = Random(9).vector(left.rows());
            CHECK_AT_MOST((left * without->solve(b) - b).norm(), 1e-9 * b.norm());
        }
    });
}

TEST("every preconditioner leads to the minimum, and one factor for all classes is positive") {
    for_each_multi([](const Multi& problem) {
        const Objective J = problem.objective();
        const Minimum whole = minimize(J, Vector::Zero(problem.theta.size()), 1e-10, 100);
        CHECK_AT_MOST(whole.at.residual(), 1e-10);
        for (const Index block : {Index(0), Index(2), problem.p()}) {
            const Minimum other = minimize(
                J, Vector::Zero(problem.theta.size()), 1e-10, 200, nullptr, std::nullopt, [] {}, block);
            CHECK_AT_MOST(other.at.residual(), 1e-10);
            CHECK_AT_MOST((other.theta - whole.theta).norm(), 1e-9);
        }
        double sum = 0.0;  // of intercepts
        for (Index k = 0; problem.fit_intercept && k < problem.K; ++k)
            sum += whole.theta((k + 1) * problem.p() - 1);
        CHECK_AT_MOST(std::abs(sum), 1e-10);
    });
}

TEST("the same coordinates of every class are selected and dropped") {
    const Multi problem(60, 5, 3, true);
    const Objective J = problem.objective();
    std::vector<Index> kept;
    for (Index k = 0; k < 3; ++k)
        for (const Index j : {0, 2, 4, 5}) kept.push_back(k * 6 + j);
    const Objective narrow = J.select(kept);
    CHECK(narrow.parameters() == 12 && narrow.outputs() == 3);
    Vector theta = problem.theta;
    for (Index k = 0; k < 3; ++k) theta(k * 6 + 1) = theta(k * 6 + 3) = 0.0;
    CHECK_AT_MOST((narrow.evaluate(theta(kept)).gradient - J.evaluate(theta).gradient(kept)).norm(), 1e-12);
    CHECK(thrown<std::invalid_argument>([&] { J.select({0, 1, 2, 3, 4, 5}); }) ==
          "the same coordinates of every class are to be kept");
    const Anchor shared(J, problem.theta, 4);
    CHECK(thrown<std::invalid_argument>([&] { shared.drop({0, 6}); }) ==
          "the same coordinates of every class are to be dropped");
    CHECK(shared.drop({1, 3, 7, 9, 13, 15})->size() == 12);
}
