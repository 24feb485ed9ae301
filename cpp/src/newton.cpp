#include "expunge/newton.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <deque>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "expunge/distance.hpp"
#include "expunge/errors.hpp"

namespace expunge {

namespace {

constexpr double armijo = 1e-4;
constexpr std::size_t most_pairs = 20;   // older steps tell of another Hessian
constexpr double direct_entries = 40.0;  // of X for each parameter: below that, pairs take too much memory
constexpr double dear = 4.0;  // a factor that costs more products is not made before the diagonal failed
constexpr int patience = 8;   // so many steps with an old factor ...
constexpr double worthwhile = 0.25;  // ... must bring the residual down to this share
constexpr double direct_contraction =
    0.5;                              // a step that reduces the residual to this share needs no new factor
constexpr double near_minimum = 5.0;  // after a step that gains this factor, the next ones gain as much
constexpr double endgame = 1e-10;     // differences of J below this share of J are rounding errors
constexpr int halvings = 40;
constexpr double digits_of_products =
    1e-10;  // below this share, the residual that CG tracks is mostly rounding error

// An approximate inverse of a Hessian (L-BFGS): from an anchor of about that Hessian, scaled, and from how
// the gradient changed along the last steps.
class InverseHessian {
public:
    void add(const Anchor& anchor, Vector step, Vector change) {
        const double curvature = step.dot(change);
        if (!(curvature > 0.0)) return;
        scale_ = curvature / change.dot(anchor.solve(change));
        if (pairs_.size() == most_pairs) pairs_.pop_front();
        pairs_.push_back({std::move(step), std::move(change), curvature});
    }
    void clear() {
        pairs_.clear();
        scale_ = 1.0;
    }

    Vector multiply(const Anchor& anchor, Vector b) const {
        std::vector<double> weights;
        for (auto pair = pairs_.rbegin(); pair != pairs_.rend(); ++pair) {
            weights.push_back(pair->step.dot(b) / pair->curvature);
            b -= weights.back() * pair->change;
        }
        Vector x = scale_ * anchor.solve(b);
        for (const Pair& pair : pairs_) {
            x += (weights.back() - pair.change.dot(x) / pair.curvature) * pair.step;
            weights.pop_back();
        }
        return x;
    }

private:
    struct Pair {
        Vector step, change;
        double curvature;  // step^T change
    };
    std::deque<Pair> pairs_;
    double scale_ = 1.0;
};

// Whether a new factor reaches the tolerance sooner than the old one, which took so many passes from one
// residual to the other. Near the minimum a new factor gives two digits a pass.
bool factor_pays(double before, double after, double tolerance, double passes, double factor_cost) {
    constexpr double digits_per_pass = 2.0;
    const double gained = std::log10(before / after),
                 wanted = std::log10(after / std::max(tolerance, 1e-16 * after));
    return factor_cost + wanted / digits_per_pass < wanted * passes / std::max(gained, 1e-3);
}

// Whether an anchor is the diagonal, where a block was asked for.
bool is_stopgap(const Anchor& anchor, Index block) { return block > 0 && !anchor.has_block(); }

// The diagonal of H (p,), to start from. With fewer rows than parameters, if it is nearly a multiple of the
// penalty, it becomes that multiple of the penalty which is the mean curvature in the span of the rows. Steps
// then stay in that span, outside of which H is the penalty alone, and the first step is not too long.
Vector diagonal_of_hessian(const Objective& J, const VectorRef& curvature) {
    constexpr double even = 2.0;
    Vector diagonal = J.gram_diagonal(curvature);
    const Index d = diagonal.size() - (J.fit_intercept() ? 1 : 0);
    const auto penalty = J.penalty().head(d);
    if (J.rows() < d && penalty.minCoeff() > 0.0) {
        const Vector ratio = diagonal.head(d).cwiseQuotient(penalty);
        if (ratio.maxCoeff() <= even * ratio.mean())
            diagonal.head(d) = ratio.sum() / static_cast<double>(J.rows()) * penalty;
    }
    return diagonal + J.penalty();
}

// Whether what rounding may hide cannot be seen either: a thousandth of a standard error. Where a row or
// column is far larger than the others, it may hide all that they say of theta.
bool is_near(const Objective& J, double largest_norm, const Vector& theta, const Evaluation& at,
             double floor) {
    constexpr double unseen = 1e-3;
    return distance_by_penalty(J, largest_norm, theta, at, floor) <= unseen;
}

constexpr double unknown = std::numeric_limits<double>::quiet_NaN();  // not asked for yet

void descend(Minimum& result, const Objective& J, Vector theta, double tolerance, int max_iter,
             std::shared_ptr<const Anchor> anchor, std::optional<Evaluation> start,
             const std::function<void()>& checkpoint, Index block) {
    auto evaluate = [&](const Vector& at) {
        ++result.passes;
        return J.evaluate(at, result.largest_norm);
    };
    const double factor_cost = anchor_cost(J, block);
    const bool complete = block >= J.parameters(), quadratic = is_quadratic(J);
    const int max_products = complete ? static_cast<int>(std::min(20.0, factor_cost)) : 1000;
    const bool always_factor = max_products < 2;
    const bool pairs_pay =  // with a constant H, products tell more
        !quadratic && direct_entries * static_cast<double>(J.parameters()) <= J.entries();
    const bool diagonal_first = !anchor && pairs_pay && (factor_cost > dear || J.rows() < J.parameters());
    std::optional<Matrix> hessian;  // at theta, summed in the first pass, where the first step needs it
    if (!anchor && complete && !diagonal_first && !start && J.outputs() == 1) hessian.emplace();
    Evaluation at = start     ? std::move(*start)
                    : hessian ? J.evaluate(theta, result.largest_norm, *hessian)
                              : evaluate(theta);
    if (hessian) ++result.passes;
    start.reset();
    if (diagonal_first && at.curvature.size() > 0) {
        anchor = std::make_shared<const Anchor>(diagonal_of_hessian(J, at.curvature));
        ++result.passes;
    }
    // Steps with an old factor: from each step it learns.
    bool direct = anchor && (anchor->complete() || pairs_pay);
    bool refactor = !anchor || (complete && !anchor->complete() && !direct);
    std::vector<double> residuals{at.residual()};  // since the factor is old
    bool fresh = false;                            // the factor is that of H at this very theta
    double previous = at.residual();               // one step ago, for the forcing term
    bool measured = at.curvature.size() > 0;       // `at` was read off the data, not carried over
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
            if (hessian) {
                anchor = std::make_shared<const Anchor>(theta, std::move(*hessian));
                anchor->factor(J, at.curvature);
                hessian.reset();
            } else {
                anchor = std::make_shared<const Anchor>(J, theta,
                                                        measured ? at.curvature : J.curvature(theta), block);
                result.passes += complete ? 1 : 2;
            }
            refactor = false;
            fresh = true;
            direct = complete || pairs_pay;
            residuals = {at.residual()};
            inverse.clear();
        }
        const double residual = at.residual(), value = at.value;
        Solution step{Vector(), 0, true};
        if (direct) {
            step.x = -inverse.multiply(*anchor, at.gradient);
        } else {
            // Quadratic convergence, never solving below what the tolerance asks (Eisenstat, Walker).
            const double ratio = residual / previous;
            const double model = quadratic ? digits_of_products : std::min(0.1, ratio * ratio);
            const double forcing = std::max(model, 0.3 * tolerance / residual);
            step = solve(J, at.curvature, at.gradient, *anchor, forcing * residual, max_products);
            step.x = -step.x;
            result.passes += step.products;
        }
        J.centre(step.x);
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
                    if (direct) inverse.add(*anchor, candidate - theta, next.gradient - at.gradient);
                    theta = candidate;
                    at = std::move(next);
                }
            }
        }
        if (accepted) {
            const bool moved_far = value - at.value > 1e-2 * std::abs(value);
            previous = residual;
            fresh = false;
            measured = true;
            floor.reset();
            refactor = !step.converged;
            if (direct) {
                residuals.push_back(at.residual());
                const auto steps = static_cast<std::ptrdiff_t>(residuals.size()) - 1;
                const double earlier =
                    residuals[static_cast<std::size_t>(std::max<std::ptrdiff_t>(0, steps - patience))];
                direct = 2 * result.iterations < max_iter &&
                         (steps < patience || at.residual() <= worthwhile * earlier);
                refactor = complete && !moved_far && at.residual() > direct_contraction * residual &&
                           factor_pays(earlier, at.residual(), tolerance,
                                       double(std::min<std::ptrdiff_t>(steps, patience)), factor_cost);
                refactor = refactor || (!direct && is_stopgap(*anchor, block));
            } else if (complete) {
                refactor = refactor ||
                           (near_minimum * at.residual() < residual &&
                            factor_pays(residual, at.residual(), tolerance, step.products + 1, factor_cost));
            } else {
                refactor = refactor || (moved_far && step.products > 2.0 * factor_cost);
            }
        } else if (!measured) {
            at = evaluate(theta);  // the value carried over may be mostly rounding error
            measured = true;
        } else {
            // Either only rounding errors are left, or the factor is wrong: a new factor decides.
            floor = J.rounding_floor(theta);
            ++result.passes;
            const bool factored = fresh || !complete;
            if (residual <= *floor && (factored || is_near(J, result.largest_norm, theta, at, *floor))) break;
            if (direct && !complete) {
                direct = false;
            } else {
                if (fresh) break;
                refactor = true;
            }
        }
    }
    if (!floor && at.residual() <= tolerance && at.floor <= tolerance) floor = at.floor;
    result.floor = floor.value_or(unknown);
    result.theta = std::move(theta);
    result.at = std::move(at);
    result.anchor = std::move(anchor);
}

void measure_floor(Minimum& result, const Objective& J) {
    if (!std::isnan(result.floor)) return;
    result.floor = J.rounding_floor(result.theta);
    ++result.passes;
}

struct Sample {
    static constexpr Index parts = 8;
    std::vector<Vector> weights;
    Objective objective;
    explicit Sample(const Objective& J) : objective(J.sample(parts, weights)) {}
};

// How large a block of the Hessian a sample of rows determines well enough. 0 where a sample does not pay:
// one step from anywhere minimises a quadratic, and fewer rows than parameters can be fitted however they are
// drawn.
Index sampled_block(const Objective& J, Index block) {
    constexpr double entries = 1e5;
    constexpr Index rows = 4;  // for a coordinate
    const Index p = J.parameters(), known = J.rows() / (Sample::parts * rows);
    if (is_quadratic(J) || J.entries() < entries || J.rows() < p || (block >= p && p > known)) return 0;
    return std::min(block, known);
}

// A theta near the minimum, and an anchor of about the Hessian there, from a sample of the rows; no anchor
// where the sample gives none. The diagonal is enough if it took the sample to its minimum in few steps.
Minimum minimum_of_sample(const Objective& J, double tolerance, int max_iter,
                          const std::function<void()>& checkpoint, Index block) {
    constexpr double share = 1e-3;  // of the residual at 0: the error of sampling is larger
    const Sample sample(J);
    Minimum near;
    try {
        Vector zero = Vector::Zero(J.parameters());
        Evaluation at = sample.objective.evaluate(zero);
        const double enough = std::max(tolerance, share * at.residual());
        descend(near, sample.objective, std::move(zero), enough, max_iter, nullptr, std::move(at), checkpoint,
                block);
        if (!near.theta.allFinite() || near.at.curvature.size() == 0) return {};
        if (near.anchor && is_stopgap(*near.anchor, block) && near.iterations <= patience) return near;
        near.anchor = std::make_shared<const Anchor>(sample.objective, near.theta, near.at.curvature, block);
        return near;
    } catch (const NotPositiveDefinite&) {
    }
    return {};
}

// E23: the inverse of H for weights w of the rows, R = diag(w)^1/2, from a factor of n x n numbers.
class DualFactor {
public:
    DualFactor(const Objective& J, const VectorRef& curvature)
        : J_(J), root_(curvature.cwiseSqrt()), factor_(J.dual(root_)) {
        if (J.fit_intercept()) of_ones_ = inner(Vector::Ones(J.rows()));
    }

    Vector solve(const VectorRef& b) const {
        const Index d = b.size() - (J_.fit_intercept() ? 1 : 0);
        const auto penalty = J_.penalty().head(d);
        Vector x = Vector::Zero(b.size());
        x.head(d) = b.head(d).cwiseQuotient(penalty);
        Vector eta = J_.predict(x);
        if (J_.fit_intercept()) {
            x(d) = (b(d) - of_ones_.dot(eta)) / of_ones_.sum();
            eta.array() += x(d);
        }
        x.head(d) -= J_.transposed(inner(eta)).head(d).cwiseQuotient(penalty);
        return x;
    }

private:
    // R K^-1 R
    Vector inner(const VectorRef& v) const {
        return root_.cwiseProduct(factor_.solve(root_.cwiseProduct(v)));
    }

    const Objective& J_;
    Vector root_;  // (n,)
    CholeskyFactor factor_;
    Vector of_ones_;
};

// What a factor in the dual costs, in Hessian-vector products.
double dual_cost(const Objective& J) {
    const auto n = static_cast<double>(J.rows());
    return n / 32.0 + n * n * n / (96.0 * (J.entries() + 1.0)) + 1.0;
}

// Minimises from zero in the dual. The factor is exact, so a step leaves only rounding errors. Returns
// whether the tolerance was reached. Does nothing where `products`, without a factor, reach it as soon.
bool minimize_in_dual(Minimum& result, const Objective& J, double tolerance, int max_iter,
                      const std::function<void()>& checkpoint, bool products) {
    constexpr double progress = 0.5, products_per_digit = 10.0;
    result.theta = Vector::Zero(J.parameters());
    result.at = J.evaluate(result.theta, result.largest_norm);
    result.passes = 1;
    const double digits = std::log10(result.at.residual() / tolerance);
    if (products && dual_cost(J) > products_per_digit * digits) return false;
    try {
        std::optional<DualFactor> factor;
        while (result.at.residual() > tolerance && result.iterations < max_iter) {
            checkpoint();
            if (!factor) {
                factor.emplace(J, result.at.curvature);
                result.passes += static_cast<int>(dual_cost(J));
            }
            ++result.iterations;
            Vector theta = result.theta - factor->solve(result.at.gradient);
            Evaluation at = J.evaluate(theta, result.largest_norm);
            result.passes += 2;
            if (!(at.residual() < result.at.residual())) break;
            const bool stalled = at.residual() > progress * result.at.residual();
            result.theta = std::move(theta);
            result.at = std::move(at);
            if (stalled) break;
        }
    } catch (const NotPositiveDefinite&) {
    }
    result.floor = result.at.floor <= tolerance ? result.at.floor : unknown;
    measure_floor(result, J);
    return result.at.residual() <= std::max(tolerance, result.floor);
}

}  // namespace

bool is_quadratic(const Objective& J) {
    return std::visit([](auto loss) { return loss.max_d3 == 0.0; }, J.loss());
}

// Factoring is level-3 work. It runs about eight times as fast as the four operations of a product on an
// entry.
double anchor_cost(const Objective& J, Index block) {
    const auto p = static_cast<double>(J.parameters());
    const auto K = static_cast<double>(J.outputs());
    if (K > 1.0 && static_cast<double>(block) < p) return anchor_cost(J.one_output(), block) / K;
    const double m = std::min(p, static_cast<double>(block)), share = m / std::max(1.0, p);
    return J.gram_cost() * (m < p ? share * share : 1.0) + m * m * m / (96.0 * (K * J.entries() + 1.0)) + 1.0;
}

Solution solve(const Objective& J, const VectorRef& curvature, const VectorRef& b, const Anchor& anchor,
               double tolerance, int max_products) {
    require_size("curvature", curvature.size(), J.curvatures());
    require_size("b", b.size(), J.parameters());
    require_size("the anchor", anchor.size(), J.parameters());
    Vector x = Vector::Zero(b.size()), r = b;
    if (r.norm() <= tolerance) return {std::move(x), 0, true};
    Vector v = anchor.solve(r);
    double rz = r.dot(v);
    for (int k = 1; k <= max_products; ++k) {
        {  // few vectors at a time: with a million parameters they fill the memory
            const Vector Hv = J.hvp(curvature, v);
            const double vHv = v.dot(Hv);
            if (!std::isfinite(vHv) || !(vHv > 0.0) || !std::isfinite(rz)) return {std::move(x), k, false};
            const double a = rz / vHv;
            x += a * v;
            r -= a * Hv;
        }
        if (r.norm() <= tolerance) return {std::move(x), k, true};
        const Vector z = anchor.solve(r);
        const double next = r.dot(z);
        v = z + (next / rz) * v;
        rz = next;
    }
    return {std::move(x), max_products, false};
}

Minimum minimize(const Objective& J, Vector theta, double tolerance, int max_iter,
                 std::shared_ptr<const Anchor> anchor, std::optional<Evaluation> start,
                 const std::function<void()>& checkpoint, Index block, bool dual) {
    const Index p = theta.size();
    require_size("theta", p, J.parameters());
    if (anchor) require_size("the anchor", anchor->size(), p);
    if (start) {
        require_size("the start's gradient", start->gradient.size(), p);
        if (start->curvature.size() > 0)
            require_size("the start's curvature", start->curvature.size(), J.curvatures());
    }
    if (block < 0)
        throw std::invalid_argument("a block has 0 coordinates or more, got " + std::to_string(block));
    const bool from_zero = theta.isZero(0.0);
    const bool enough = start && start->residual() <= tolerance;  // then theta stays
    Minimum result;
    result.largest_norm = std::isfinite(J.largest_norm()) ? J.largest_norm() : unknown;
    if (dual && from_zero && !anchor && !enough && is_quadratic(J) && J.has_dual()) {
        if (minimize_in_dual(result, J, tolerance, max_iter, checkpoint, block < p)) return result;
        theta = result.theta;
        start = std::move(result.at);
    }
    std::shared_ptr<const Anchor> of_sample;
    const Index sampled = from_zero && !anchor && !enough ? sampled_block(J, block) : 0;
    if (sampled > 0) {
        if (const Minimum near = minimum_of_sample(J, tolerance, max_iter, checkpoint, sampled);
            near.anchor) {
            theta = near.theta;
            anchor = of_sample = near.anchor;
            start.reset();
            result.passes = (near.passes + Sample::parts - 1) / Sample::parts;
        }
    }
    try {
        descend(result, J, std::move(theta), tolerance, max_iter, std::move(anchor), std::move(start),
                checkpoint, block);
        measure_floor(result, J);
        if (result.anchor && (result.anchor == of_sample || is_stopgap(*result.anchor, block)))
            result.anchor.reset();  // it is that of the sample, or of a diagonal
        if ((from_zero && !of_sample) || result.at.residual() <= std::max(tolerance, result.floor))
            return result;
    } catch (const NotPositiveDefinite&) {
        if (from_zero && !of_sample) throw;
    }
    // The start is so far out that J is flat there in floating point. From 0 it always works.
    if (result.theta.size() > 0 && result.iterations >= max_iter) return result;
    Minimum first = result;
    descend(result, J, Vector::Zero(p), tolerance, max_iter, nullptr, std::nullopt, checkpoint, block);
    measure_floor(result, J);
    if (first.theta.size() > 0 && !(result.at.residual() < first.at.residual())) {
        first.iterations = result.iterations;
        first.passes = result.passes;
        return first;
    }
    return result;
}

}  // namespace expunge
