#include "problems.hpp"

namespace expunge::testing {

RowMatrix mostly_zeros(RowMatrix X) {
    Random random(static_cast<unsigned>(X.size()));
    X = X.unaryExpr([&](double x) { return random.uniform() < 0.7 ? 0.0 : x; }).eval();
    X.row(X.rows() / 2).setZero();
    X.col(X.cols() / 2).setZero();
    return X;
}

Problem make_problem(const std::string& shape, Index n, Index d, const Loss& loss, bool fit_intercept) {
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
    if (shape == "mostly zeros") problem.X = mostly_zeros(problem.X);
    if (shape == "margins of 800") {
        problem.X.col(0) = Vector::LinSpaced(n, -800.0, 800.0).cast<float>().cast<double>();
        problem.theta(0) = 1.0;
    }
    if (shape == "badly scaled")  // by powers of 2, which float32 holds
        for (Index j = 0; j < d; ++j) problem.X.col(j) *= std::ldexp(1.0, static_cast<int>(17 * j / d) - 10);
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

void for_each_problem(const std::function<void(const Problem&)>& visit) {
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
                               {"mostly zeros", 300, 11},
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

Derivatives exact_loss(const Loss& loss, Real y, Real eta) {
    if (std::holds_alternative<Squared>(loss)) return {(eta - y) * (eta - y) / 2, eta - y, 1};
    if (std::holds_alternative<Poisson>(loss))
        return {std::exp(eta) - y * eta, std::exp(eta) - y, std::exp(eta)};
    if (const Tweedie* of = std::get_if<Tweedie>(&loss)) {
        const Real a = 2 - Real(of->power), b = Real(of->power) - 1, up = std::exp(a * eta),
                   down = y * std::exp(-b * eta);
        return {(a > 0 ? up / a : eta) + down / b, up - down, a * up + b * down};
    }
    if (std::holds_alternative<SquaredHinge>(loss)) {
        const Real sign = 2 * y - 1, off = std::max(1 - sign * eta, Real(0));
        return {off * off, -2 * sign * off, Real(off > 0 ? 2 : 0)};
    }
    if (std::holds_alternative<Fractional>(loss)) {
        const Real e = std::exp(-std::abs(eta)), rest = eta > 0 ? 1 - y : -y, sigma = e / (1 + e);
        return {rest * eta + std::log1p(e), rest - (eta > 0 ? sigma : -sigma), sigma / (1 + e)};
    }
    const Real z = (1 - 2 * y) * eta;
    return {std::max(z, Real(0)) + std::log1p(std::exp(-std::abs(z))), (1 - 2 * y) / (1 + std::exp(-z)),
            1 / ((1 + std::exp(z)) * (1 + std::exp(-z)))};
}

Exact exact(const Problem& problem, const Vector& theta) {
    const Index n = problem.X.rows(), d = problem.X.cols(), p = theta.size();
    RealVector x = RealVector::Ones(p);
    Exact e{0, RealVector(p), RealVector(n), RealMatrix::Zero(p, p), RealVector(n), RealVector(n), 0, 0};
    for (Index j = 0; j < p; ++j) {
        const Real penalty = problem.penalty(j);
        e.value += penalty * theta(j) * theta(j) / 2;
        e.gradient(j) = penalty * theta(j);
        e.hessian(j, j) = penalty;
        e.hessian_scale += penalty;
    }
    e.value_scale = e.value;
    for (Index i = 0; i < n; ++i) {
        Real eta = 0, norm2 = 0, &eta_size = e.eta_size(i) = 0;
        for (Index j = 0; j < p; ++j) {
            if (j < d) x(j) = problem.X(i, j);
            eta += x(j) * theta(j);
            eta_size += std::abs(x(j) * theta(j));
            norm2 += x(j) * x(j);
        }
        const Real s = problem.s(i);
        const Derivatives at = exact_loss(problem.loss, problem.y(i), eta);
        e.value += s * at.value;
        e.curvature(i) = s * at.d2;
        e.d1(i) = at.d1;
        for (Index j = 0; j < p; ++j) {
            if (x(j) == 0) continue;
            e.gradient(j) += s * at.d1 * x(j);
            const Real weight = s * at.d2 * x(j);
            for (Index k = 0; k <= j; ++k) e.hessian(j, k) += weight * x(k);
        }
        e.value_scale += s * (at.value + std::abs(at.d1) * eta_size);
        e.hessian_scale += s * at.d2 * norm2 * (1 + eta_size);  // |d3| <= d2
    }
    e.hessian.triangularView<Eigen::StrictlyUpper>() = e.hessian.transpose();
    return e;
}

// What columns hold that are not seen: finite, as all of X is, since rows may be read whole.
template <class T>
constexpr T unseen = static_cast<T>(sizeof(T) == 4 ? 1e30 : 1e100);

template <class T>
Stored stored(const std::string& name, const RowMatrix& X, Index row_stride, Index column_stride, Index width,
              const Runs& runs) {
    const Index n = X.rows();
    const Index size = 1 + std::abs(row_stride) * (n - 1) + std::abs(column_stride) * (width - 1);
    auto memory = std::make_shared<std::vector<T>>(static_cast<std::size_t>(size), static_cast<T>(poison));
    T* origin = memory->data() + (row_stride < 0 ? -row_stride * (n - 1) : 0) +
                (column_stride < 0 ? -column_stride * (width - 1) : 0);
    for (Index c = 0; c < width; ++c)
        for (Index i = 0; i < n; ++i) origin[i * row_stride + c * column_stride] = unseen<T>;
    Index j = 0;
    for (const Run& run : runs)
        for (Index c = run.first; c < run.first + run.count; ++c, ++j)
            for (Index i = 0; i < n; ++i)
                origin[i * row_stride + c * column_stride] = static_cast<T>(X(i, j));
    return {name + (sizeof(T) == 4 ? " float32" : " float64"), memory,
            RowsView::dense<T>(origin, n, row_stride, column_stride, runs),
            Vector::Constant(n, static_cast<double>(X.cols())),
            Vector::Constant(X.cols(), static_cast<double>(n))};
}

template Stored stored<double>(const std::string&, const RowMatrix&, Index, Index, Index, const Runs&);
template Stored stored<float>(const std::string&, const RowMatrix&, Index, Index, Index, const Runs&);

template <class T, class I>
Csr<T, I> csr(const RowMatrix& X, Index width, const Runs& runs, double other, bool store_zeros) {
    constexpr Index nowhere = -1;
    std::vector<Index> position(static_cast<std::size_t>(width), nowhere);
    Index j = 0;
    for (const Run& run : runs)
        for (Index c = run.first; c < run.first + run.count; ++c) position[static_cast<std::size_t>(c)] = j++;
    Csr<T, I> matrix{{}, {}, {}, width};
    const auto store = [&](double x, Index column) {
        matrix.data.push_back(static_cast<T>(x));
        matrix.indices.push_back(static_cast<I>(column));
    };
    if (other != 0.0) store(poison, width);  // of rows before the first
    matrix.indptr.push_back(static_cast<I>(matrix.data.size()));
    for (Index i = 0; i < X.rows(); ++i) {
        for (Index c = 0; c < width; ++c) {
            const Index at = position[static_cast<std::size_t>(c)];
            const double x = at == nowhere ? (i % 3 == 1 ? 0.0 : other) : X(i, at);
            if (x != 0.0 || (store_zeros && at != nowhere)) store(x, c);
        }
        matrix.indptr.push_back(static_cast<I>(matrix.data.size()));
    }
    return matrix;
}

template <class T, class I>
Stored stored_csr(const std::string& name, const RowMatrix& X, Index width, const Runs& runs,
                  bool store_zeros) {
    const auto memory = std::make_shared<const Csr<T, I>>(csr<T, I>(X, width, runs, unseen<T>, store_zeros));
    Vector row_entries(X.rows());
    for (std::size_t i = 0; i + 1 < memory->indptr.size(); ++i)
        row_entries(static_cast<Index>(i)) = static_cast<double>(memory->indptr[i + 1] - memory->indptr[i]);
    Vector column_entries(X.cols());
    for (Index j = 0; j < X.cols(); ++j)
        column_entries(j) = static_cast<double>(store_zeros ? X.rows() : (X.col(j).array() != 0.0).count());
    return {name + (sizeof(T) == 4 ? " float32" : " float64") + (sizeof(I) == 4 ? " int32" : " int64"),
            memory, memory->rows(runs), std::move(row_entries), std::move(column_entries)};
}

#define EXPUNGE_CSR(T, I)                                                             \
    template Csr<T, I> csr<T, I>(const RowMatrix&, Index, const Runs&, double, bool); \
    template Stored stored_csr<T, I>(const std::string&, const RowMatrix&, Index, const Runs&, bool)
EXPUNGE_CSR(double, std::int32_t);
EXPUNGE_CSR(double, std::int64_t);
EXPUNGE_CSR(float, std::int32_t);
EXPUNGE_CSR(float, std::int64_t);
#undef EXPUNGE_CSR

namespace {

// All but the first, the last two and two in the middle, of d + 5 columns.
Runs several_runs(Index d) {
    const Index half = d / 2;
    Runs several{{1, d - half}};
    if (half > 0) several.push_back({d - half + 3, half});
    return several;
}

template <class T>
void add_dense(const RowMatrix& X, std::vector<Stored>& all) {
    const Index n = X.rows(), d = X.cols();
    const Runs whole = all_columns(d), inner{{2, d}}, several = several_runs(d);
    all.push_back(stored<T>("C", X, d, 1, d, whole));
    all.push_back(stored<T>("F", X, 1, n, d, whole));
    all.push_back(stored<T>("padded", X, d + 3, 1, d, whole));
    all.push_back(stored<T>("strided", X, 6 * d, 3, d, whole));
    all.push_back(stored<T>("reversed", X, -d, -1, d, whole));
    all.push_back(stored<T>("one run of columns", X, d + 5, 1, d + 5, inner));
    all.push_back(stored<T>("runs of columns", X, d + 5, 1, d + 5, several));
    all.push_back(stored<T>("runs of columns, F", X, 1, n, d + 5, several));
}

template <class T, class I>
void add_csr(const RowMatrix& X, std::vector<Stored>& all) {
    const Index d = X.cols();
    all.push_back(stored_csr<T, I>("CSR", X, d, all_columns(d)));
    all.push_back(stored_csr<T, I>("CSR, runs of columns", X, d + 5, several_runs(d)));
    all.push_back(stored_csr<T, I>("CSR, zeros stored", X, d, all_columns(d), true));
}

}  // namespace

Stored masked_csr(const RowMatrix& X) {
    return stored_csr<double, std::int32_t>("CSR, runs of columns", X, X.cols() + 5, several_runs(X.cols()));
}

std::vector<Stored> layouts(const RowMatrix& X) {
    std::vector<Stored> all;
    add_dense<double>(X, all);
    add_dense<float>(X, all);
    add_csr<double, std::int32_t>(X, all);
    add_csr<double, std::int64_t>(X, all);
    add_csr<float, std::int32_t>(X, all);
    add_csr<float, std::int64_t>(X, all);
    return all;
}

void for_each_objective(
    const std::function<void(const Problem&, const Exact&, const Stored&, const Objective&)>& visit) {
    struct Case {
        Problem problem;
        Exact exact;
        std::vector<Stored> layouts;
    };
    static const auto cases = [] {
        std::vector<Case> all;
        for_each_problem([&](const Problem& problem) {
            all.push_back({problem, exact(problem, problem.theta), layouts(problem.X)});
        });
        return all;
    }();
    for (const auto& [problem, exact, layouts] : cases) {
        for (const Stored& layout : layouts) {
            about = problem.name + ", " + layout.name;
            visit(problem, exact, layout, problem.on(layout.rows));
        }
    }
    about.clear();
}

}  // namespace expunge::testing
