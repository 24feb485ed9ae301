#include "expunge/newton.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "expunge/errors.hpp"

namespace expunge {

namespace {

constexpr double armijo = 1e-4;
constexpr double chord_contraction = 0.1;  // keep a factor while each step with it cuts the residual tenfold
constexpr double endgame = 1e-10;          // below this share of J, differences of J are rounding
constexpr int halvings = 40;

struct Direction {
    Vector p;
    int products;
    bool converged;
};

// H p = -g by conjugate gradients, preconditioned with the factor of a nearby H, to
// |H p + g| <= forcing |g|. Every iterate is a descent direction.
Direction newton_direction(const Objective& J, const Evaluation& at, const CholeskyFactor& factor,
                           double forcing, int max_products) {
    Vector p = Vector::Zero(at.gradient.size());
    Vector r = -at.gradient, z = factor.solve(r), v = z;
    double rz = r.dot(z);
    const double target = forcing * r.norm();
    for (int k = 1; k <= max_products; ++k) {
        const Vector Hv = J.hvp(at.curvature, v);
        const double vHv = v.dot(Hv);
        if (!std::isfinite(vHv) || !(vHv > 0.0) || !std::isfinite(rz)) return {std::move(p), k, false};
        const double a = rz / vHv;
        p += a * v;
        r -= a * Hv;
        if (r.norm() <= target) return {std::move(p), k, true};
        z = factor.solve(r);
        const double next = r.dot(z);
        v = z + (next / rz) * v;
        rz = next;
    }
    return {std::move(p), max_products, false};
}

// What assembling and factoring H costs, in Hessian-vector products: level-3 work runs about eight
// times as fast as the 4 n p of a product.
double hessian_cost(const Objective& J) {
    const auto n = static_cast<double>(std::max<Index>(1, J.rows())), p = static_cast<double>(J.parameters());
    return (n * p * p + p * p * p / 3.0) / (8.0 * 4.0 * n * p) + 1.0;
}

// Whether a new factor gets to the tolerance sooner than going on with an old one: near the minimum a
// factor gives two digits a pass, while the step just made gave its digits at `passes`.
bool factor_pays(double before, double after, double tolerance, int passes, double factor_cost) {
    constexpr double digits_per_pass = 2.0, near_minimum = 5.0;
    const double gained = std::log10(before / after),
                 wanted = std::log10(after / std::max(tolerance, 1e-16 * after));
    return before > near_minimum * after && factor_cost + wanted / digits_per_pass < wanted * passes / gained;
}

void descend(Minimum& result, const Objective& J, Vector theta, double tolerance, int max_iter,
             std::shared_ptr<const Anchor> anchor, const std::optional<Evaluation>& start,
             const std::function<void()>& checkpoint) {
    auto evaluate = [&](const Vector& at) {
        ++result.passes;
        return J.evaluate(at);
    };
    Evaluation at = start ? *start : evaluate(theta);
    const double factor_cost = hessian_cost(J);
    const int max_products = static_cast<int>(std::min(20.0, factor_cost));
    const bool always_factor = max_products < 2;
    bool refactor = !anchor;
    bool direct = at.curvature.size() == 0;  // step with the factor as it is
    bool fresh = false;                      // the factor is that of H at this very theta
    double previous = at.residual();         // one step ago, for the forcing term
    bool measured = !direct;                 // `at` was read off the data, not carried over
    std::optional<double> floor;

    while (result.iterations < max_iter) {
        if (!(at.residual() > tolerance)) {
            if (measured) break;
            at = evaluate(theta);
            measured = true;
            continue;
        }
        checkpoint();
        ++result.iterations;
        if (refactor || (always_factor && !direct)) {
            anchor = std::make_shared<const Anchor>(J, theta);
            ++result.passes;
            refactor = false;
            fresh = direct = true;
        }
        const double residual = at.residual();
        Direction step{Vector(), 0, true};
        if (direct) {
            step.p = -anchor->factor().solve(at.gradient);
        } else {
            // Quadratic convergence, never solving below what the tolerance asks (Eisenstat, Walker).
            const double ratio = residual / previous;
            const double forcing = std::max(std::min(0.1, ratio * ratio), 0.3 * tolerance / residual);
            step = newton_direction(J, at, anchor->factor(), forcing, max_products);
            result.passes += step.products;
        }
        const double slope = at.gradient.dot(step.p);
        bool accepted = false;
        if (slope < 0.0 && step.p.allFinite()) {
            const bool compare_gradients = -slope < endgame * std::abs(at.value);
            double t = 1.0;
            for (int k = 0; k < (compare_gradients ? 2 : halvings) && !accepted; ++k, t *= 0.5) {
                const Vector candidate = theta + t * step.p;
                Evaluation next = evaluate(candidate);
                accepted = std::isfinite(next.value) &&
                           (compare_gradients ? next.residual() < residual
                                              : next.value <= at.value + armijo * t * slope);
                if (accepted) {
                    theta = candidate;
                    at = std::move(next);
                }
            }
        }
        if (accepted) {
            previous = residual;
            direct = direct && at.residual() <= chord_contraction * residual;
            fresh = false;
            measured = true;
            floor.reset();
            refactor = !step.converged || (!direct && factor_pays(residual, at.residual(), tolerance,
                                                                  step.products + 1, factor_cost));
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

Minimum minimize(const Objective& J, const Vector& theta, double tolerance, int max_iter,
                 std::shared_ptr<const Anchor> anchor, const std::optional<Evaluation>& start,
                 const std::function<void()>& checkpoint) {
    const bool from_zero = theta.isZero(0.0);
    Minimum result;
    try {
        descend(result, J, theta, tolerance, max_iter, std::move(anchor), start, checkpoint);
        if (from_zero || result.at.residual() <= std::max(tolerance, result.floor)) return result;
    } catch (const NotPositiveDefinite&) {
        if (from_zero) throw;
    }
    // A start so far out that J is flat there in floating point: 0 is a start that always works.
    if (result.theta.size() > 0 && result.iterations >= max_iter) return result;
    Minimum first = result;
    descend(result, J, Vector::Zero(theta.size()), tolerance, max_iter, nullptr, std::nullopt, checkpoint);
    if (first.theta.size() > 0 && !(result.at.residual() < first.at.residual())) {
        first.iterations = result.iterations;
        first.passes = result.passes;
        return first;
    }
    return result;
}

}  // namespace expunge
