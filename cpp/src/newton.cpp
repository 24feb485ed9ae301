#include "expunge/newton.hpp"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "expunge/errors.hpp"

namespace expunge {

namespace {

constexpr double armijo = 1e-4;
constexpr double direct_contraction = 0.5;  // go on with a factor while each step cuts the residual to this
constexpr double direct_entries = 40.0;     // of X for each parameter, below which pairs take too much memory
constexpr double endgame = 1e-10;           // below this share of J, differences of J are rounding
constexpr int halvings = 40;

// The inverse of a Hessian, from an anchor of about it and what the gradient did along the steps made since
// (L-BFGS).
class InverseHessian {
public:
    void add(Vector step, Vector change) {
        if (step.dot(change) > 0.0) pairs_.push_back({std::move(step), std::move(change)});
    }
    void clear() { pairs_.clear(); }

    Vector multiply(const Anchor& anchor, Vector b) const {
        std::vector<double> weights;
        for (auto pair = pairs_.rbegin(); pair != pairs_.rend(); ++pair) {
            weights.push_back(pair->step.dot(b) / pair->step.dot(pair->change));
            b -= weights.back() * pair->change;
        }
        Vector x = anchor.solve(b);
        for (const Pair& pair : pairs_) {
            x += (weights.back() - pair.change.dot(x) / pair.step.dot(pair.change)) * pair.step;
            weights.pop_back();
        }
        return x;
    }

private:
    struct Pair {
        Vector step, change;
    };
    std::vector<Pair> pairs_;
};

// Whether a new factor gets to the tolerance sooner than going on with an old one: near the minimum a
// factor gives two digits a pass, while the step just made gave its digits at `passes`.
bool factor_pays(double before, double after, double tolerance, int passes, double factor_cost) {
    constexpr double digits_per_pass = 2.0, near_minimum = 5.0;
    const double gained = std::log10(before / after),
                 wanted = std::log10(after / std::max(tolerance, 1e-16 * after));
    return before > near_minimum * after && factor_cost + wanted / digits_per_pass < wanted * passes / gained;
}

void descend(Minimum& result, const Objective& J, Vector theta, double tolerance, int max_iter,
             std::shared_ptr<const Anchor> anchor, std::optional<Evaluation> start,
             const std::function<void()>& checkpoint, Index block) {
    auto evaluate = [&](const Vector& at) {
        ++result.passes;
        return J.evaluate(at);
    };
    Evaluation at = start ? std::move(*start) : evaluate(theta);
    start.reset();
    const double factor_cost = anchor_cost(J, block);
    const bool complete = block >= J.parameters();
    const int max_products = complete ? static_cast<int>(std::min(20.0, factor_cost)) : 1000;
    const bool always_factor = max_products < 2;
    bool refactor = !anchor || (complete && !anchor->complete());
    // Step with a factor near the minimum as it is: each step tells it more.
    bool direct =
        anchor && (anchor->complete() || direct_entries * static_cast<double>(J.parameters()) <= J.entries());
    bool fresh = false;                       // the factor is that of H at this very theta
    double previous = at.residual();          // one step ago, for the forcing term
    bool measured = at.curvature.size() > 0;  // `at` was read off the data, not carried over
    std::optional<double> floor;
    InverseHessian inverse;

    while (result.iterations < max_iter) {
        if (!(at.residual() > tolerance)) {
            if (measured) break;
            at = evaluate(theta);
            measured = true;
            continue;
        }
        if (!measured && !direct && !(complete && refactor)) {
            at = evaluate(theta);  // products need the curvature
            measured = true;
            continue;
        }
        checkpoint();
        ++result.iterations;
        if (refactor || (always_factor && !direct)) {
            anchor =
                std::make_shared<const Anchor>(J, theta, measured ? at.curvature : J.curvature(theta), block);
            result.passes += complete ? 1 : 2;
            refactor = false;
            fresh = true;
            direct = complete;
            inverse.clear();
        }
        const double residual = at.residual(), value = at.value;
        Solution step{Vector(), 0, true};
        if (direct) {
            step.x = -inverse.multiply(*anchor, at.gradient);
        } else {
            // Quadratic convergence, never solving below what the tolerance asks (Eisenstat, Walker).
            const double ratio = residual / previous;
            const double forcing = std::max(std::min(0.1, ratio * ratio), 0.3 * tolerance / residual);
            step = solve(J, at.curvature, at.gradient, *anchor, forcing * residual, max_products);
            step.x = -step.x;
            result.passes += step.products;
        }
        const double slope = at.gradient.dot(step.x);
        bool accepted = false;
        if (slope < 0.0 && step.x.allFinite()) {
            const bool compare_gradients = -slope < endgame * std::abs(at.value);
            double t = 1.0;
            for (int k = 0; k < (compare_gradients ? 2 : halvings) && !accepted; ++k, t *= 0.5) {
                const Vector candidate = theta + t * step.x;
                Evaluation next = evaluate(candidate);
                accepted = std::isfinite(next.value) &&
                           (compare_gradients ? next.residual() < residual
                                              : next.value <= at.value + armijo * t * slope);
                if (accepted) {
                    if (direct) inverse.add(candidate - theta, next.gradient - at.gradient);
                    theta = candidate;
                    at = std::move(next);
                }
            }
        }
        if (accepted) {
            const bool moved_far = value - at.value > 1e-2 * std::abs(value);
            previous = residual;
            direct = direct && at.residual() <= direct_contraction * residual;
            fresh = false;
            measured = true;
            floor.reset();
            refactor =
                !step.converged || (complete ? !direct && factor_pays(residual, at.residual(), tolerance,
                                                                      step.products + 1, factor_cost)
                                             : moved_far && step.products > 2.0 * factor_cost);
        } else if (!measured) {
            at = evaluate(theta);  // what was carried over may be rounding more than J
            measured = true;
        } else {
            // Either rounding is all that is left, or the factor misleads: a new factor decides.
            floor = J.rounding_floor(theta);
            ++result.passes;
            if (fresh || residual <= *floor) break;
            refactor = true;
        }
    }
    if (!floor && at.residual() <= tolerance && at.floor <= tolerance) floor = at.floor;
    if (!floor) {
        floor = J.rounding_floor(theta);
        ++result.passes;
    }
    result.floor = *floor;
    result.theta = std::move(theta);
    result.at = std::move(at);
    result.anchor = std::move(anchor);
}

}  // namespace

// Factoring is level-3 work, which runs about eight
// times as fast as the four operations that a product makes of an entry.
double anchor_cost(const Objective& J, Index block) {
    const auto p = static_cast<double>(J.parameters());
    const double m = std::min(p, static_cast<double>(block)), share = m / std::max(1.0, p);
    return J.gram_cost() * (m < p ? share * share : 1.0) + m * m * m / (96.0 * (J.entries() + 1.0)) + 1.0;
}

Solution solve(const Objective& J, const VectorRef& curvature, const VectorRef& b, const Anchor& anchor,
               double tolerance, int max_products) {
    Vector x = Vector::Zero(b.size()), r = b;
    if (r.norm() <= tolerance) return {std::move(x), 0, true};
    Vector z = anchor.solve(r), v = z;
    double rz = r.dot(z);
    for (int k = 1; k <= max_products; ++k) {
        const Vector Hv = J.hvp(curvature, v);
        const double vHv = v.dot(Hv);
        if (!std::isfinite(vHv) || !(vHv > 0.0) || !std::isfinite(rz)) return {std::move(x), k, false};
        const double a = rz / vHv;
        x += a * v;
        r -= a * Hv;
        if (r.norm() <= tolerance) return {std::move(x), k, true};
        z = anchor.solve(r);
        const double next = r.dot(z);
        v = z + (next / rz) * v;
        rz = next;
    }
    return {std::move(x), max_products, false};
}

Minimum minimize(const Objective& J, Vector theta, double tolerance, int max_iter,
                 std::shared_ptr<const Anchor> anchor, std::optional<Evaluation> start,
                 const std::function<void()>& checkpoint, Index block) {
    const bool from_zero = theta.isZero(0.0);
    const Index p = theta.size();
    Minimum result;
    try {
        descend(result, J, std::move(theta), tolerance, max_iter, std::move(anchor), std::move(start),
                checkpoint, block);
        if (from_zero || result.at.residual() <= std::max(tolerance, result.floor)) return result;
    } catch (const NotPositiveDefinite&) {
        if (from_zero) throw;
    }
    // A start so far out that J is flat there in floating point: 0 is a start that always works.
    if (result.theta.size() > 0 && result.iterations >= max_iter) return result;
    Minimum first = result;
    descend(result, J, Vector::Zero(p), tolerance, max_iter, nullptr, std::nullopt, checkpoint, block);
    if (first.theta.size() > 0 && !(result.at.residual() < first.at.residual())) {
        first.iterations = result.iterations;
        first.passes = result.passes;
        return first;
    }
    return result;
}

}  // namespace expunge
