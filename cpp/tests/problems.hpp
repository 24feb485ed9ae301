#pragma once
// Seeded problems, their derivatives in long double by the formulas of E1, and matrices stored in every way.
#include <cmath>
#include <cstddef>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "expunge/objective.hpp"

namespace expunge::testing {

using Real = long double;
using RealVector = Eigen::Matrix<Real, Eigen::Dynamic, 1>;
using RealMatrix = Eigen::Matrix<Real, Eigen::Dynamic, Eigen::Dynamic>;

constexpr double poison = std::numeric_limits<double>::quiet_NaN();
constexpr double u = 0x1p-53;

class Random {
public:
    explicit Random(unsigned seed) : engine_(seed) {}
    double normal() { return std::normal_distribution<double>()(engine_); }
    double uniform() { return std::uniform_real_distribution<double>()(engine_); }
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

// X C-ordered and whole.
inline Rows rows_of(const RowMatrix& X) {
    return DenseRows<double>(X.data(), X.rows(), X.cols(), 1, all_columns(X.cols()));
}

// ---- One objective, and a theta nowhere near its minimiser ----

struct Problem {
    std::string name;
    RowMatrix X;  // (n, d)
    Vector y, s, penalty, theta;
    Loss loss;
    bool fit_intercept;

    Objective on(Rows rows) const {
        return {{{std::move(rows), y.data(), s.data()}}, loss, penalty, fit_intercept};
    }
    Objective objective() const { return on(rows_of(X)); }

    // X extended by a column of ones where there is an intercept (n, p).
    RealMatrix design() const {
        RealMatrix A = RealMatrix::Ones(X.rows(), penalty.size());
        A.leftCols(X.cols()) = X.cast<Real>();
        return A;
    }
    // A free intercept needs both classes.
    bool has_minimiser() const {
        return !fit_intercept || std::holds_alternative<Squared>(loss) ||
               (y.cwiseProduct(s).sum() > 0.0 && (1.0 - y.array()).matrix().dot(s) > 0.0);
    }
};

inline Problem make_problem(const std::string& shape, Index n, Index d, const Loss& loss,
                            bool fit_intercept) {
    Random random(
        static_cast<unsigned>(1000 * n + 10 * d + 2 * static_cast<Index>(loss.index()) + fit_intercept));
    const Index p = d + fit_intercept;
    Problem problem{
        shape + (loss.index() ? ", logistic" : ", squared") + (fit_intercept ? ", intercept" : ""),
        random.matrix(n, d),
        Vector(n),
        Vector::Ones(n),
        Vector::Constant(p, 0.75),
        random.vector(p) / std::sqrt(double(d)),
        loss,
        fit_intercept};
    if (shape == "duplicate columns") problem.X.rightCols(d / 2) = problem.X.leftCols(d / 2).eval();
    if (shape == "margins of 800") {
        problem.X.col(0) = Vector::LinSpaced(n, -800.0, 800.0).cast<float>().cast<double>();
        problem.theta(0) = 1.0;
    }
    if (shape == "weights") {
        for (Index i = 0; i < n; ++i) problem.s(i) = i % 5 == 0 ? 0.0 : 3.0 * random.uniform();
        for (Index j = 0; j < d; ++j) problem.penalty(j) = 0.1 + 10.0 * random.uniform();
    }
    if (fit_intercept) problem.penalty(d) = 0.0;
    const Vector eta = problem.X * random.vector(d) / std::sqrt(double(d));
    for (Index i = 0; i < n; ++i) {
        if (loss.index() == 0)
            problem.y(i) = eta(i) + 0.5 * random.normal();
        else if (shape == "separable")
            problem.y(i) = eta(i) > 0.0;
        else
            problem.y(i) = i < 2 ? double(i) : random.uniform() < 1.0 / (1.0 + std::exp(-eta(i)));
    }
    if (shape == "separable") problem.penalty.head(d).setConstant(0x1p-20);
    return problem;
}

// Calls visit(problem) for every shape, loss and kind of intercept.
template <class Visit>
void for_each_problem(Visit&& visit) {
    struct Shape {
        const char* name;
        Index n, d;
    };
    for (const Shape& shape : {Shape{"fewer rows than columns", 7, 12},
                               {"more rows than columns", 60, 5},
                               {"one column", 20, 1},
                               {"one row", 1, 4},
                               {"separable", 40, 3},
                               {"duplicate columns", 30, 6},
                               {"margins of 800", 24, 4},
                               {"weights", 50, 6},
                               {"several panels", 1000, 37}}) {
        for (const Loss& loss : {Loss(Squared{}), Loss(Logistic{})}) {
            for (const bool fit_intercept : {false, true}) {
                const Problem problem = make_problem(shape.name, shape.n, shape.d, loss, fit_intercept);
                about = problem.name;
                visit(problem);
                about.clear();
            }
        }
    }
}

// ---- E1 in long double ----

struct Derivatives {
    Real value, d1, d2;
};

inline Derivatives exact_loss(const Loss& loss, Real y, Real eta) {
    if (std::holds_alternative<Squared>(loss)) return {(eta - y) * (eta - y) / 2, eta - y, 1};
    const Real z = (1 - 2 * y) * eta;
    return {std::max(z, Real(0)) + std::log1p(std::exp(-std::abs(z))), (1 - 2 * y) / (1 + std::exp(-z)),
            1 / ((1 + std::exp(z)) * (1 + std::exp(-z)))};
}

struct Exact {
    Real value;
    RealVector gradient, curvature;
    RealMatrix hessian;
    Real value_scale, hessian_scale;  // what relative rounding errors of the sums are relative to
};

inline Exact exact(const Problem& problem, const Vector& theta) {
    const RealMatrix A = problem.design();
    const RealVector t = theta.cast<Real>(), penalty = problem.penalty.cast<Real>();
    const RealVector eta = A * t, eta_size = A.cwiseAbs() * t.cwiseAbs();
    Exact e{t.dot(penalty.cwiseProduct(t)) / 2,
            penalty.cwiseProduct(t),
            RealVector(A.rows()),
            penalty.asDiagonal(),
            0,
            0};
    e.value_scale = e.value;
    e.hessian_scale = penalty.norm();
    for (Index i = 0; i < A.rows(); ++i) {
        const Real s = problem.s(i);
        const Derivatives at = exact_loss(problem.loss, problem.y(i), eta(i));
        e.value += s * at.value;
        e.gradient += s * at.d1 * A.row(i).transpose();
        e.curvature(i) = s * at.d2;
        e.hessian += s * at.d2 * A.row(i).transpose() * A.row(i);
        e.value_scale += s * (at.value + std::abs(at.d1) * eta_size(i));
        e.hessian_scale += s * at.d2 * A.row(i).squaredNorm() * (1 + eta_size(i));  // |d3| <= d2
    }
    return e;
}

template <class A, class B>
Real distance(const A& a, const B& b) {
    return (a.template cast<Real>() - b.template cast<Real>()).norm();
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
    Rows rows;
};

// `width` columns from `from`, of which `runs` are X; whatever is not X is poison.
template <class T>
Stored stored(const std::string& name, const RowMatrix& X, Index row_stride, Index column_stride, Index width,
              const Runs& runs) {
    const Index n = X.rows();
    const Index size = 1 + std::abs(row_stride) * (n - 1) + std::abs(column_stride) * (width - 1);
    auto memory = std::make_shared<std::vector<T>>(static_cast<std::size_t>(size), static_cast<T>(poison));
    T* origin = memory->data() + (row_stride < 0 ? -row_stride * (n - 1) : 0) +
                (column_stride < 0 ? -column_stride * (width - 1) : 0);
    Index j = 0;
    for (const Run& run : runs)
        for (Index c = run.first; c < run.first + run.count; ++c, ++j)
            for (Index i = 0; i < n; ++i)
                origin[i * row_stride + c * column_stride] = static_cast<T>(X(i, j));
    return {name + (sizeof(T) == 4 ? " float32" : " float64"), memory,
            DenseRows<T>(origin, n, row_stride, column_stride, runs)};
}

template <class T>
void add_layouts(const RowMatrix& X, std::vector<Stored>& all) {
    const Index n = X.rows(), d = X.cols(), half = d / 2;
    const Runs whole = all_columns(d), inner{{2, d}};
    Runs several{{1, d - half}};
    if (half > 0) several.push_back({d - half + 3, half});
    all.push_back(stored<T>("C", X, d, 1, d, whole));
    all.push_back(stored<T>("F", X, 1, n, d, whole));
    all.push_back(stored<T>("padded", X, d + 3, 1, d, whole));
    all.push_back(stored<T>("strided", X, 6 * d, 3, d, whole));
    all.push_back(stored<T>("reversed", X, -d, -1, d, whole));
    all.push_back(stored<T>("one run of columns", X, d + 5, 1, d + 5, inner));
    all.push_back(stored<T>("runs of columns", X, d + 5, 1, d + 5, several));
    all.push_back(stored<T>("runs of columns, F", X, 1, n, d + 5, several));
}

// X, of values that float32 holds exactly, in every layout that a view takes.
inline std::vector<Stored> layouts(const RowMatrix& X) {
    std::vector<Stored> all;
    add_layouts<double>(X, all);
    add_layouts<float>(X, all);
    return all;
}

}  // namespace expunge::testing
