#pragma once
// The distance to the minimum in standard errors (E41).
#include <memory>
#include <vector>

#include "expunge/anchor.hpp"
#include "expunge/objective.hpp"

namespace expunge {

// Bounds in the norm of H^-1: of any vector of length 1, and of every row.
struct InverseNorms {
    double any, row;

    // By the least eigenvalue of H. No row is longer than R.
    static InverseNorms by_eigenvalue(double least, double R);
    // By the least penalty of a coefficient. `intercept`: the diagonal entry of H there, infinite where there
    // is none. With one, R counts it, and the other entries of its column are, over that one, a mean of rows:
    // in the ball of this radius in which they lie.
    static InverseNorms by_penalty(double lambda, double intercept, double R, double radius);
    // The same of K outputs, with `intercepts`, the least eigenvalue of their part of H but for the constant.
    static InverseNorms by_penalty(double lambda, double intercepts, double R, Index K);
};

// A lower bound of the least eigenvalue of C (p, p), its lower triangle, or 0.
double least_eigenvalue(const Matrix& C);

// How long rows x are in norms |(x - m)_j / sqrt(e_j)|, without what an intercept extends them by: about the
// centre m of a ball, e = 1; or with e the diagonal of H and the penalty, both in x less its mean m by
// curvature. With an intercept neither depends on where columns have their zero, and the latter two do not on
// their units, penalties in them.
class RowNorms {
public:
    explicit RowNorms(const Ball& ball);
    RowNorms(const Objective& J, const Anchor& H);  // passes over the rows of J, of which H is
    // Of an H and a penalty (p,), in whose norms no row is longer.
    RowNorms(const Anchor& H, const Vector& penalty, bool fit_intercept, std::vector<double> longest);

    RowNorms join(const Objective& rows) const;  // more rows
    // The same rows, and those of `other`, in the norms of another H. They are not looked at again.
    RowNorms move_to(const Anchor& H, const Vector& penalty, bool fit_intercept, const RowNorms& other) const;

    // No predictor changes by more, where theta does by `change`.
    double reach(const VectorRef& change) const;
    // Of every row in the norm of H^-1; infinite where there is no bound. `error`: of H, in norm. H is
    // factored twice or more where e is not 1.
    double in_inverse(const Anchor& H, double error) const;

    const std::vector<double>& longest() const { return longest_; }  // in each norm
    bool about_ball() const { return norms_->e.empty(); }

private:
    struct Norms {
        Vector m;               // (d,)
        std::vector<Vector> e;  // (p,) each, that of H first; none for 1
        std::vector<Vector> inverse;
    };
    static Norms norms_of(const Anchor& H, Vector penalty, bool fit_intercept);
    double longest_of(const Objective& rows, std::size_t norm) const;
    double by_trace(const Anchor& H, double lost) const;
    double by_diagonal(const Anchor& H, double lost, std::size_t norm) const;

    std::shared_ptr<const Norms> norms_;
    std::vector<double> longest_;
};

// No less than the norm, and a power of two but for 2^-30 of it: a norm of 1 stays about 1.
double norm_above(double norm);
double power_of_two_above(double value);  // the least that is not below

// E41: a bound of |theta - theta*|_H where the Newton decrement is at most nu; infinite where there is none.
double standard_errors(double nu, double row);

// The same in standard errors of a least-squares fit, of which `squares` (s (y - eta)^2) are left at theta.
double in_residual_spread(double distance, double squares, double weight);

// A lower bound of the squares in J, which is half of them and of `penalty`; J may be off by `error`.
double squares_in(double J, double penalty, double error);
// The rounding error of J for a squared loss, at most: n rows of this weight, and no predictor above `reach`.
double value_error(double J, double n, double weight, double reach, Index p);

// The bound by the penalty alone, without a factor. No row is longer than `longest`, intercept not counted.
// `at`: J at theta, with its curvature; `floor` bounds the rounding error of its gradient. `measured`: the
// rows themselves are looked at, in two passes; the bound is sharper then, and depends on units as little as
// RowNorms.
double distance_by_penalty(const Objective& J, double longest, const VectorRef& theta, const Evaluation& at,
                           double floor, bool measured = false);

}  // namespace expunge
