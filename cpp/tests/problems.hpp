#pragma once
// Seeded problems, their derivatives in long double by the formulas of E1, and matrices stored in every way.
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <numbers>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "expunge/errors.hpp"
#include "expunge/objective.hpp"

namespace expunge::testing {

using Real = long double;
using RealVector = Eigen::Matrix<Real, Eigen::Dynamic, 1>;
using RealMatrix = Eigen::Matrix<Real, Eigen::Dynamic, Eigen::Dynamic>;

constexpr double poison = std::numeric_limits<double>::quiet_NaN();

class Random {
public:
    explicit Random(unsigned seed) : engine_(seed) {}
    // Not those of <random>, which are others in each standard library.
    double uniform() { return double(engine_() >> 11) * 0x1p-53; }
    double normal() {
        const double u = 1.0 - uniform(), v = uniform();
        return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
    }
    Vector vector(Index n) {
        return Vector::NullaryExpr(n, [this] { return normal(); });
    }
    // Values that float32 holds exactly.
    RowMatrix matrix(Index n, Index d) {
        return RowMatrix::NullaryExpr(n, d, [this] { return double(float(normal())); });
    }

private:
    std::mt19937_64 engine_;
};

// X with 7 of 10 entries 0, and all of its middle row and column.
RowMatrix mostly_zeros(RowMatrix X);

// X C-ordered and whole.
inline RowsView rows_of(const RowMatrix& X) {
    return RowsView::dense<double>(X.data(), X.rows(), X.cols(), 1, all_columns(X.cols()));
}

// ---- One objective, and a theta nowhere near its minimiser ----

struct Problem {
    std::string name;
    RowMatrix X;  // (n, d)
    Vector y, s, penalty, theta;
    Loss loss;
    bool fit_intercept;

    Objective on(RowsView rows) const {
        return {{{std::move(rows), y.data(), s.data()}}, loss, penalty, fit_intercept};
    }
    Objective objective() const { return on(rows_of(X)); }

    // A free intercept needs both classes.
    bool has_minimiser() const {
        return !fit_intercept || std::holds_alternative<Squared>(loss) ||
               (y.cwiseProduct(s).sum() > 0.0 && (1.0 - y.array()).matrix().dot(s) > 0.0);
    }
};

Problem make_problem(const std::string& shape, Index n, Index d, const Loss& loss, bool fit_intercept);

// Calls visit(problem) for every shape, loss and kind of intercept.
void for_each_problem(const std::function<void(const Problem&)>& visit);

// ---- E1 in long double ----

struct Derivatives {
    Real value, d1, d2;
};

Derivatives exact_loss(const Loss& loss, Real y, Real eta);

struct Exact {
    Real value;
    RealVector gradient, curvature;
    RealMatrix hessian;
    RealVector d1, eta_size;          // of each row: the loss's slope, |x|^T |theta|
    Real value_scale, hessian_scale;  // what relative rounding errors of the sums are relative to
};

Exact exact(const Problem& problem, const Vector& theta);

template <class A, class B>
Real distance(const A& a, const B& b) {
    return (a.template cast<Real>() - b.template cast<Real>()).norm();
}

// What is said of a pivot whose place in H holds this value.
inline std::string not_positive_definite(Index pivot, double value = 0.0) {
    return NotPositiveDefinite(pivot, value).what();
}

inline Matrix symmetric(const Matrix& lower) { return lower.selfadjointView<Eigen::Lower>(); }

// Derivative at 0 of function(amount); error O(step^4).
template <class Function>
auto central_difference(Function&& function, double step) {
    using Value = std::decay_t<decltype(function(step))>;
    const Value near = function(step) - function(-step), far = function(2 * step) - function(-2 * step);
    return Value((8.0 * near - far) / (12.0 * step));
}

// ---- X stored in every way ----

struct Stored {
    std::string name;
    std::shared_ptr<const void> memory;
    RowsView rows;
    Vector row_entries, column_entries;  // stored, (n,) of every row and (d,) of every column that is seen
};

// `width` columns from `origin`, of which `runs` are X; others hold large numbers, and the rest is poison.
template <class T>
Stored stored(const std::string& name, const RowMatrix& X, Index row_stride, Index column_stride, Index width,
              const Runs& runs);

template <class T, class I>
struct Csr {
    std::vector<T> data;
    std::vector<I> indices, indptr;
    Index width;

    RowsView rows(const Runs& runs) const {
        return RowsView::csr(data.data(), indices.data(), indptr.data(),
                             static_cast<Index>(indptr.size()) - 1, width, runs);
    }
};

// `width` columns, of which `runs` are X; the others hold `unseen`, or nothing where that is 0.
template <class T, class I>
Csr<T, I> csr(const RowMatrix& X, Index width, const Runs& runs, double unseen = 0.0,
              bool store_zeros = false);

template <class T, class I>
Stored stored_csr(const std::string& name, const RowMatrix& X, Index width, const Runs& runs,
                  bool store_zeros = false);

// X in CSR, between columns that are not seen.
Stored masked_csr(const RowMatrix& X);

// X, of values that float32 holds exactly, in every layout that a view takes.
std::vector<Stored> layouts(const RowMatrix& X);

// Calls visit(problem, its exact values at problem.theta, layout, objective) for every problem and layout.
void for_each_objective(
    const std::function<void(const Problem&, const Exact&, const Stored&, const Objective&)>& visit);

}  // namespace expunge::testing
