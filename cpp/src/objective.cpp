#include "expunge/objective.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "expunge/errors.hpp"
#include "expunge/parallel.hpp"

namespace expunge {

namespace {

using Panel = std::array<double, max_panel_rows>;

constexpr Panel filled(double value) {
    Panel panel{};
    panel.fill(value);
    return panel;
}
constexpr Panel zeros = filled(0.0), ones = filled(1.0);

constexpr double worth_sharing = 2e5;  // entries, below which threads cost more than they bring
constexpr auto nothing = [](auto&&...) {};

// A bound that could not be found is none.
double known(double bound) { return std::isnan(bound) ? std::numeric_limits<double>::infinity() : bound; }

// |v|, also where the squares vanish.
double norm_of(const Vector& v) {
    const double norm = v.norm();
    return norm > 1e-140 ? norm : v.stableNorm();
}

// x is 0 at rows of weight 0, which are not there: it was 0 times what may have been infinite or NaN.
void leave_out(Index m, const double* s, double* x) {
    if (s == ones.data()) return;
    for (Index i = 0; i < m; ++i) x[i] = s[i] != 0.0 ? x[i] : 0.0;
}

// value = s loss, r = s d1, w = s d2 for m rows
template <class L>
EXPUNGE_LOOP void weighted_loss(Index m, const double* __restrict eta, const double* __restrict y,
                                const double* __restrict s, double* __restrict value, double* __restrict r,
                                double* __restrict w) {
    for (Index i = 0; i < m; ++i) {
        value[i] = s[i] * L::value(y[i], eta[i]);
        r[i] = s[i] * L::d1(y[i], eta[i]);
        w[i] = s[i] * L::d2(y[i], eta[i]);
    }
}

// The sum of values. Where it is not finite, rows that are not there leave all three first; elsewhere r and w
// are finite, as the loss is infinite or NaN wherever one of its derivatives is.
double sum_of(Index m, const double* s, Panel& value, Panel& r, double* w) {
    const auto sum = [&] { return Eigen::Map<const Vector>(value.data(), m).sum(); };
    if (const double found = sum(); std::isfinite(found)) return found;
    for (double* x : {value.data(), r.data(), w}) leave_out(m, s, x);
    return sum();
}

// r = s d1
template <class L>
EXPUNGE_LOOP void weighted_d1(Index m, const double* __restrict eta, const double* __restrict y,
                              const double* __restrict s, double* __restrict r) {
    for (Index i = 0; i < m; ++i) r[i] = s[i] * L::d1(y[i], eta[i]);
    leave_out(m, s, r);
}

// w = s d2
template <class L>
EXPUNGE_LOOP void weighted_d2(Index m, const double* __restrict eta, const double* __restrict y,
                              const double* __restrict s, double* __restrict w) {
    for (Index i = 0; i < m; ++i) w[i] = s[i] * L::d2(y[i], eta[i]);
    leave_out(m, s, w);
}

// E19, in units of u |x_i|: what is left of rounding in r = s d1 after so many additions.
template <class L>
EXPUNGE_LOOP void rounding_of(Index m, const double* __restrict r, const double* __restrict y,
                              const double* __restrict s, double additions,
                              const double* __restrict eta_rounding, double* __restrict rounding) {
    for (Index i = 0; i < m; ++i) {
        const double d1 = r[i] / (s[i] > 0.0 ? s[i] : 1.0);
        rounding[i] = s[i] * (additions * std::abs(d1) + L::d1_rounding(d1, eta_rounding[i], y[i]));
    }
}

// Of this thread, for all walks: they do not meet. (Each instance of a template would keep its own.)
struct Scratch {
    Workspace vectors, sums, ones;
};
Scratch& scratch() {
    thread_local Scratch memory;
    return memory;
}

auto as_vector(Panel& panel, Index m) { return Eigen::Map<Vector>(panel.data(), m); }

// From row `first` of a block on.
const double* targets(const Block& block, Index first) { return block.y ? block.y + first : zeros.data(); }
const double* weights(const Block& block, Index first) { return block.s ? block.s + first : ones.data(); }

// Calls f.operator()<L>() for the loss at hand: once a panel, so that loops know it and walks need not.
template <class F>
void with_loss(const Loss& loss, F&& f) {
    std::visit([&]<class L>(const L&) { f.template operator()<L>(); }, loss);
}

}  // namespace

// What the rows of a panel add up to, on their way to a total.
struct Objective::Sums {
    Eigen::Map<Vector> columns{nullptr, 0};  // of X^T r, (width,) for each set
    Eigen::Map<Vector> ones{nullptr, 0};     // of X^T w, (width,) where H has a row of the intercept, or (0,)
    double intercept = 0.0, weight = 0.0;    // of r, and of w
    double value = 0.0, rounding = 0.0;
    double largest_norm2 = 0.0;

    void clear(double* memory, Index width, Index ones_width) {
        new (&columns) Eigen::Map<Vector>(memory, width);
        new (&ones) Eigen::Map<Vector>(memory + width, ones_width);
        columns.setZero();
        ones.setZero();
        intercept = weight = value = rounding = largest_norm2 = 0.0;
    }
    void add(const Sums& other) {
        columns += other.columns;
        ones += other.ones;
        intercept += other.intercept;
        weight += other.weight;
        value += other.value;
        rounding += other.rounding;
        largest_norm2 = std::max(largest_norm2, other.largest_norm2);
    }
};

// H (p, p) += X^T diag(w) X, X extended by 1, w (n,) set by the visit of a row.
struct Objective::Gram {
    Vector& w;
    Matrix& H;

    // The row of the intercept, from sums over rows.
    template <class Rows>
    void add_ones(const Rows& rows, const Sums& sums) const {
        const Index d = H.rows() - 1;
        Vector row = Vector::Zero(d);
        rows.collect(sums.ones, 1.0, row);
        H.row(d).head(d) += row.transpose();
        H(d, d) += sums.weight;
    }
};

Objective::Objective(std::vector<Block> blocks, Loss loss, VectorRef penalty, bool fit_intercept,
                     double largest_norm, Vector noise)
    : blocks_(std::move(blocks)), loss_(loss), penalty_(penalty), noise_(std::move(noise)),
      fit_intercept_(fit_intercept), largest_norm_(largest_norm) {
    d_ = penalty_.size() - (fit_intercept ? 1 : 0);
    if (d_ < 0) throw std::invalid_argument("the penalty is empty, and the intercept is one more parameter");
    if (noise_.size() > 0) require_size("noise", noise_.size(), parameters());
    for (const Block& block : blocks_) {
        std::visit(
            [&](const auto& rows) {
                if (rows.columns() != d_)
                    throw std::invalid_argument("X has " + std::to_string(rows.columns()) +
                                                " columns, expected " + std::to_string(d_));
                n_ += rows.rows();
                const auto p = static_cast<double>(rows.panel_rows()), n = static_cast<double>(rows.rows());
                most_additions_ += std::min(n, p) + std::ceil(n / p);
            },
            block.rows);
    }
}

double Objective::entries() const {
    double entries = 0.0;
    for (const Block& block : blocks_)
        entries += std::visit([](const auto& rows) { return rows.entries(); }, block.rows);
    return entries;
}

double Objective::gram_cost() const {
    double work = 0.0;
    for (const Block& block : blocks_)
        work += std::visit([](const auto& rows) { return rows.gram_work(); }, block.rows);
    return work / (entries() + 1.0);
}

Objective Objective::select(const std::vector<Index>& coordinates) const {
    require_ascending("coordinates", coordinates, parameters());
    std::vector<Index> columns = coordinates;
    const bool intercept = fit_intercept_ && !columns.empty() && columns.back() == d_;
    if (intercept) columns.pop_back();
    std::vector<Block> blocks;
    for (const Block& block : blocks_)
        blocks.push_back(
            {std::visit([&](const auto& rows) -> Rows { return rows.select(columns); }, block.rows), block.y,
             block.s});
    Vector noise;
    if (noise_.size() > 0) noise = noise_(coordinates);
    return {std::move(blocks), loss_, penalty_(coordinates), intercept, largest_norm_, std::move(noise)};
}

Objective Objective::sample(Index parts, std::vector<Vector>& weights) const {
    constexpr Index pieces = 8;
    std::vector<Block> blocks;
    for (const Block& block : blocks_) {
        const Index n = expunge::rows(block.rows), m = (n + parts - 1) / parts;
        for (Index k = 0; k < pieces; ++k) {
            const Index begin = m * k / pieces, size = m * (k + 1) / pieces - begin, first = n * k / pieces;
            if (size == 0) continue;
            Vector& s = weights.emplace_back(Vector::Ones(size));
            if (block.s) s = Eigen::Map<const Vector>(block.s + first, size);
            s *= static_cast<double>(n) / static_cast<double>(m);
            blocks.push_back({slice(block.rows, first, size), block.y ? block.y + first : nullptr, s.data()});
        }
    }
    return {std::move(blocks), loss_, penalty_, fit_intercept_, largest_norm_, noise_};
}

bool Objective::same_rows(const Objective& other) const {
    if (blocks_.size() != 1 || other.blocks_.size() != 1) return false;
    return std::visit(
        []<class A, class B>(const A& a, const B& b) {
            if constexpr (std::is_same_v<A, B>) return a.same_rows(b);
            return false;
        },
        blocks_[0].rows, other.blocks_[0].rows);
}

// A vector as panels take it, for `walk`.
auto Objective::spread(const VectorRef& theta) const {
    return [&](const auto& rows, Workspace& memory) { return rows.spread(theta.head(d_), memory); };
}

// Calls visit(rows, spread(rows, workspace), block, first, row number, panel of f(x_ij), m, sums), for m rows
// at a time, and collect(rows, sums) once panel_rows() of them are through (or the block ends). Panels
// are visited in any order and by several threads, but collected in the order of rows: results are the same
// for any number of threads. `sets`: how many sums over rows there are of each column, side by side in
// `sums`. With `gram`, dense rows join it while they are near, and panels are then collected by parts; the
// row of the intercept is summed up with the panels of any rows.
template <class Spread, class F, class Visit, class Collect, class MaybeGram>
void Objective::walk(Spread&& spread, F f, Walk how, Index sets, Visit&& visit, Collect&& collect,
                     MaybeGram asked_gram) const {
    constexpr bool asked = !std::is_same_v<MaybeGram, std::nullptr_t>;
    const Gram* const gram = asked_gram;
    Workspace &wide_vectors = scratch().vectors, &kept = scratch().sums;
    thread_local std::vector<Sums> sums;
    Workspace passing;
    Workspace& memory = wide() ? passing : kept;  // sums of a million columns are no scratch to keep
    Index row = 0;
    for (const Block& block : blocks_) {
        std::visit(
            [&](const auto& rows) {
                const VectorRef vectors = spread(rows, wide_vectors);
                const Index stride = rows.panel_rows(), step = rows.rows_in_cache(), n = rows.rows();
                const bool with_ones = asked && gram && fit_intercept_;
                const Index panels = (n + stride - 1) / stride, width = sets * rows.width();
                const Index ones = with_ones ? rows.width() : 0;
                std::vector<Sums>& all_sums = sums;  // this thread's
                double* columns = nullptr;
                const auto make_room = [&](Index count) {
                    columns = memory.take(count * (width + ones));
                    all_sums.resize(static_cast<std::size_t>(count));
                };
                const auto sum = [&](Index k) -> Sums& { return all_sums[static_cast<std::size_t>(k)]; };
                const auto cleared = [&](Index k) -> Sums& {
                    sum(k).clear(columns + k * (width + ones), width, ones);
                    return sum(k);
                };
                const auto add_rows = [&](Index start, Index stop, Sums& total) {
                    thread_local Workspace packed;
                    for (Index first = start; first < stop; first += step) {
                        const Index m = std::min(step, stop - first);
                        const auto panel = rows.panel(first, m, packed);
                        visit(rows, vectors, block, first, row + first, panel.map(f), m, total);
                        if constexpr (asked)
                            if (with_ones) {
                                const auto w = gram->w.segment(row + first, m);
                                panel.add_transposed(w, total.ones);
                                total.weight += w.sum();
                            }
                    }
                };
                const auto collect_sum = [&](Index k) {
                    collect(rows, sum(k));
                    if constexpr (asked)
                        if (with_ones) gram->add_ones(rows, sum(k));
                };
                if constexpr (asked && std::decay_t<decltype(rows)>::gram_by_panels) {
                    if (gram) {
                        const Index parts = rows.gram_parts();
                        make_room(2 * parts);
                        for (Index k = 0; k < parts; ++k) cleared(k);
                        const auto before = [&](Index part, Index first, Index m) {
                            Sums& panel = cleared(parts + part);
                            add_rows(first, first + m, panel);
                            sum(part).add(panel);
                        };
                        expunge::add_gram(block.rows, gram->w.data() + row, gram->H.topLeftCorner(d_, d_),
                                          before);
                        for (Index k = 0; k < parts; ++k) collect_sum(k);
                        row += n;
                        return;
                    }
                }
                const bool shared =
                    how == Walk::by_threads && threads() > 1 && rows.entries() >= worth_sharing;
                // Threads wait for each other after so many; what these sum up to stays in a cache.
                const Index in_cache = 65536 / std::max<Index>(1, width + ones);
                const Index together =
                    shared ? std::min(panels, std::max<Index>(4 * threads(), in_cache)) : 1;
                make_room(std::max<Index>(1, together));
                for (Index k = 0; k < panels; k += together) {
                    const Index count = std::min(together, panels - k);
                    const auto of_panel = [&](Index j) {
                        const Index start = (k + j) * stride;
                        add_rows(start, std::min(start + stride, n), cleared(j));
                    };
                    if (count == 1)
                        of_panel(0);
                    else
                        in_parallel(count, of_panel);
                    for (Index j = 0; j < count; ++j) collect_sum(j);
                }
                if constexpr (asked)
                    if (gram)
                        expunge::add_gram(block.rows, gram->w.data() + row, gram->H.topLeftCorner(d_, d_));
                row += n;
            },
            block.rows);
    }
}

// Calls visit(rows, panel of f(x_ij), row number, m, f(X) theta, y, s, sums).
template <class F, class Visit, class Collect, class MaybeGram>
void Objective::for_each_panel(const VectorRef& theta, F f, Walk how, Index sets, Visit&& visit,
                               Collect&& collect, MaybeGram gram) const {
    const double intercept = fit_intercept_ ? theta(d_) : 0.0;
    walk(
        spread(theta), f, how, sets,
        [&](const auto& rows, const VectorRef& coef, const Block& block, Index first, Index row,
            const auto& panel, Index m, Sums& sums) {
            alignas(64) Panel eta;
            auto x_theta = as_vector(eta, m);
            panel.multiply(coef, x_theta);
            x_theta.array() += intercept;
            visit(rows, panel, row, m, eta, targets(block, first), weights(block, first), sums);
        },
        collect, gram);
}

template <class Rows>
void Objective::collect(const Rows& rows, const Sums& sums, double sign, Vector& g) const {
    rows.collect(sums.columns, sign, g.head(d_));
    if (fit_intercept_) g(d_) += sign * sums.intercept;
}

// g (p,) += sign f(X)^T r, X extended by 1, where fill(rows, panel, row number, m, f(X) theta, y, s, r,
// sums) sets r; what else it sums is given to more(sums).
template <class F, class Fill, class More, class MaybeGram>
void Objective::add_transposed(const VectorRef& theta, F f, Walk how, double sign, Vector& g, Fill&& fill,
                               More&& more, MaybeGram gram) const {
    if (wide()) {  // theta first, then the sums: each has the cache for itself
        Vector r(n_);
        for_each_panel(
            theta, f, how, 0,
            [&](const auto& rows, const auto& panel, Index row, Index m, const Panel& eta, const double* y,
                const double* s, Sums& sums) {
                alignas(64) Panel here;
                fill(rows, panel, row, m, eta, y, s, here, sums);
                r.segment(row, m) = as_vector(here, m);
            },
            [&](const auto&, const Sums& sums) { more(sums); }, gram);
        add_transposed(f, how, sign, r, g);
        return;
    }
    for_each_panel(
        theta, f, how, 1,
        [&](const auto& rows, const auto& panel, Index row, Index m, const Panel& eta, const double* y,
            const double* s, Sums& sums) {
            alignas(64) Panel r;
            fill(rows, panel, row, m, eta, y, s, r, sums);
            panel.add_transposed(as_vector(r, m), sums.columns);
            sums.intercept += as_vector(r, m).sum();
        },
        [&](const auto& rows, const Sums& sums) {
            collect(rows, sums, sign, g);
            more(sums);
        },
        gram);
}

// Whether theta and a panel's sums do not fit the second-level cache together.
bool Objective::wide() const {
    constexpr Index fit = 65536;
    for (const Block& block : blocks_)
        if (std::visit([](const auto& rows) { return rows.width(); }, block.rows) > fit) return true;
    return false;
}

Evaluation Objective::evaluate(const VectorRef& theta) const {
    double largest_norm = largest_norm_;
    return evaluate(theta, largest_norm);
}

Evaluation Objective::evaluate(const VectorRef& theta, double& largest_norm) const {
    return evaluate(theta, largest_norm, nullptr);
}

Evaluation Objective::evaluate(const VectorRef& theta, double& largest_norm, Matrix& H) const {
    H.setZero(parameters(), parameters());
    Evaluation at = evaluate(theta, largest_norm, &H);
    H.diagonal() += penalty_;
    return at;
}

Evaluation Objective::evaluate(const VectorRef& theta, double& largest_norm, Matrix* H) const {
    require_size("theta", theta.size(), parameters());
    Evaluation at{0.0, Vector::Zero(parameters()), Vector(n_)};
    const auto gram = H ? std::optional(Gram{at.curvature, *H}) : std::nullopt;
    // E19 with no more known of x_i than its norm, or a bound of that, and how many entries it has at most:
    // |x|^T |theta| <= |x| |theta|.
    const bool measured = std::isnan(largest_norm), bounded = measured || std::isfinite(largest_norm);
    Index longest_row = 0;
    const auto measure = [&](const auto& rows) { longest_row = std::max(longest_row, rows.largest_row()); };
    for (const Block& block : blocks_)
        if (bounded) std::visit(measure, block.rows);
    const Vector every = Vector::Ones(measured ? d_ : 0);
    const double one = fit_intercept_ ? 1.0 : 0.0,
                 for_each_norm = (static_cast<double>(longest_row) + 3.0) * theta.norm();
    double rounding = 0.0, largest_norm2 = measured ? 0.0 : largest_norm * largest_norm;
    add_transposed(
        theta, Entry(), Walk::by_threads, 1.0, at.gradient,
        [&](const auto& rows, const auto& panel, Index row, Index m, const Panel& eta, const double* y,
            const double* s, Panel& r, Sums& sums) {
            alignas(64) Panel value;
            with_loss(loss_, [&]<class L>() {
                weighted_loss<L>(m, eta.data(), y, s, value.data(), r.data(), at.curvature.data() + row);
            });
            sums.value += sum_of(m, s, value, r, at.curvature.data() + row);
            if (!bounded) return;
            alignas(64) Panel norms, eta_rounding;
            auto norm = as_vector(norms, m);
            if (measured) {
                panel.map(Square()).multiply(rows.spread(every, scratch().ones), norm);
                double largest = larger_norm2(sums.largest_norm2, norm);
                if (!std::isfinite(largest)) {
                    leave_out(m, s, norms.data());
                    largest = larger_norm2(sums.largest_norm2, norm);
                }
                sums.largest_norm2 = largest;
            } else {
                norm.setConstant(largest_norm2);
            }
            norm = (norm.array() + one).sqrt();
            as_vector(eta_rounding, m) = for_each_norm * norm;
            with_loss(loss_, [&]<class L>() {
                rounding_of<L>(m, r.data(), y, s, most_additions_ + 3.0, eta_rounding.data(), value.data());
            });
            sums.rounding += norm.dot(as_vector(value, m));
        },
        [&](const Sums& sums) {
            at.value += sums.value;
            rounding += sums.rounding;
            largest_norm2 = std::max(largest_norm2, sums.largest_norm2);
        },
        gram ? &*gram : nullptr);
    if (measured) largest_norm = std::sqrt(largest_norm2);
    add_penalty(theta, at);
    if (std::isfinite(largest_norm)) at.floor = known(roundoff * rounding + penalty_rounding(theta));
    return at;
}

// 1/2 theta^T Lambda theta + b^T theta
void Objective::add_penalty(const VectorRef& theta, Evaluation& at) const {
    const Vector pull = penalty_.cwiseProduct(theta);
    at.value += 0.5 * theta.dot(pull);
    at.gradient += pull;
    if (noise_.size() == 0) return;
    at.value += noise_.dot(theta);
    at.gradient += noise_;
}

// Of the gradient of the same. Magnitudes, for Lambda theta was rounded before b took digits off it.
double Objective::penalty_rounding(const VectorRef& theta) const {
    Vector pull = penalty_.cwiseProduct(theta).cwiseAbs();
    if (noise_.size() > 0) pull += noise_.cwiseAbs();
    return 4.0 * roundoff * pull.norm();
}

Vector Objective::curvature(const VectorRef& theta) const {
    Vector curvature(n_);
    find_curvature(theta, curvature, nullptr);
    return curvature;
}

void Objective::find_curvature(const VectorRef& theta, Vector& curvature, const Gram* gram) const {
    require_size("theta", theta.size(), parameters());
    for_each_panel(
        theta, Entry(), Walk::by_threads, 0,
        [&](const auto&, const auto&, Index row, Index m, const Panel& eta, const double* y, const double* s,
            Sums&) {
            with_loss(loss_, [&]<class L>() { weighted_d2<L>(m, eta.data(), y, s, curvature.data() + row); });
        },
        nothing, gram);
}

void Objective::add_gram(const VectorRef& curvature, Matrix& H) const {
    require_size("curvature", curvature.size(), n_);
    require_size("H", H.rows(), parameters());
    require_size("H", H.cols(), parameters());
    Index row = 0;
    for (const Block& block : blocks_) {
        expunge::add_gram(block.rows, curvature.data() + row, H.topLeftCorner(d_, d_));
        row += expunge::rows(block.rows);
    }
    if (fit_intercept_) H.row(d_) += transposed(curvature).transpose();
}

void Objective::scaled_rows(const VectorRef& w, Eigen::Ref<Matrix> columns) const {
    thread_local Workspace packed, memory;
    require_size("w", w.size(), n_);
    require_size("a column", columns.rows(), parameters());
    require_size("columns", columns.cols(), (w.array() > 0.0).count());
    columns.setZero();
    Index row = 0, k = 0;
    for (const Block& block : blocks_)
        std::visit(
            [&](const auto& rows) {
                Eigen::Map<Vector> wide(memory.take(rows.width()), rows.width());
                for (Index i = 0; i < rows.rows(); ++i, ++row) {
                    if (!(w(row) > 0.0)) continue;
                    const double scale = std::sqrt(w(row));
                    auto column = columns.col(k++);
                    wide.setZero();
                    rows.panel(i, 1, packed).add_transposed(Vector::Constant(1, scale), wide);
                    rows.collect(wide, 1.0, column.head(d_));
                    if (fit_intercept_) column(d_) = scale;
                }
            },
            block.rows);
}

Matrix Objective::hessian(const VectorRef& theta) const {
    Matrix H = Matrix::Zero(parameters(), parameters());
    Vector curvature(n_);
    const Gram gram{curvature, H};
    find_curvature(theta, curvature, &gram);
    H.diagonal() += penalty_;
    return H;
}

Vector Objective::hvp(const VectorRef& curvature, const VectorRef& v) const {
    require_size("curvature", curvature.size(), n_);
    require_size("v", v.size(), parameters());
    Vector product = penalty_.cwiseProduct(v);
    if (wide()) {  // X v first, then the sums: each has the cache for itself
        add_transposed(Entry(), Walk::by_threads, 1.0, curvature.binaryExpr(predict(v), &weighted), product);
        return product;
    }
    const double offset = fit_intercept_ ? v(d_) : 0.0;
    walk(
        spread(v), Entry(), Walk::by_threads, 1,
        [&](const auto&, const VectorRef& coef, const Block&, Index, Index row, const auto& panel, Index m,
            Sums& sums) {
            sums.intercept += panel.add_product(curvature.segment(row, m), coef, offset, sums.columns);
        },
        [&](const auto& rows, const Sums& sums) { collect(rows, sums, 1.0, product); });
    return product;
}

Vector Objective::hvp_at(const VectorRef& theta, const VectorRef& v) const {
    require_size("theta", theta.size(), parameters());
    require_size("v", v.size(), parameters());
    Vector product = penalty_.cwiseProduct(v);
    const bool apart = wide();  // the two vectors first, then the sums: each has the cache for itself
    Vector r(apart ? n_ : 0);
    const double intercept = fit_intercept_ ? theta(d_) : 0.0, offset = fit_intercept_ ? v(d_) : 0.0;
    walk([&](const auto& rows, Workspace& memory) { return rows.spread(theta.head(d_), v.head(d_), memory); },
         Entry(), Walk::by_threads, apart ? 0 : 1,
         [&](const auto&, const VectorRef& both, const Block& block, Index first, Index row,
             const auto& panel, Index m, Sums& sums) {
             alignas(64) Panel eta, x_v, w;
             panel.multiply(both, as_vector(eta, m), as_vector(x_v, m));
             as_vector(eta, m).array() += intercept;
             as_vector(x_v, m).array() += offset;
             with_loss(loss_, [&]<class L>() {
                 weighted_d2<L>(m, eta.data(), targets(block, first), weights(block, first), w.data());
             });
             for (Index i = 0; i < m; ++i) w[i] = weighted(w[i], x_v[i]);
             if (apart) {
                 r.segment(row, m) = as_vector(w, m);
             } else {
                 panel.add_transposed(as_vector(w, m), sums.columns);
                 sums.intercept += as_vector(w, m).sum();
             }
         },
         [&](const auto& rows, const Sums& sums) {
             if (!apart) collect(rows, sums, 1.0, product);
         });
    if (apart) add_transposed(Entry(), Walk::by_threads, 1.0, r, product);
    return product;
}

Vector Objective::predict(const VectorRef& v) const {
    require_size("v", v.size(), parameters());
    Vector predicted(n_);
    for_each_panel(
        v, Entry(), Walk::by_threads, 0,
        [&](const auto&, const auto&, Index row, Index m, Panel& eta, const double*, const double*, Sums&) {
            predicted.segment(row, m) = as_vector(eta, m);
        },
        nothing);
    return predicted;
}

// g (p,) += sign f(X)^T r, X extended by 1.
template <class F>
void Objective::add_transposed(F f, Walk how, double sign, const VectorRef& r, Vector& g) const {
    require_size("a vector over rows", r.size(), n_);
    const Vector none;
    walk([&](const auto&, Workspace&) -> VectorRef { return none; }, f, how, 1,
         [&](const auto&, const VectorRef&, const Block&, Index, Index row, const auto& panel, Index m,
             Sums& sums) {
             panel.add_transposed(r.segment(row, m), sums.columns);
             sums.intercept += r.segment(row, m).sum();
         },
         [&](const auto& rows, const Sums& sums) { collect(rows, sums, sign, g); });
}

Vector Objective::transposed(const VectorRef& r) const {
    Vector g = Vector::Zero(parameters());
    add_transposed(Entry(), Walk::by_threads, 1.0, r, g);
    return g;
}

Vector Objective::gram_diagonal(const VectorRef& curvature) const {
    Vector diagonal = Vector::Zero(parameters());
    add_transposed(Square(), Walk::by_threads, 1.0, curvature, diagonal);
    if (diagonal.allFinite()) return diagonal;
    // A square overflows. One by one, rows that are not there can be left out.
    thread_local Workspace packed, memory;
    diagonal.setZero();
    Index row = 0;
    for (const Block& block : blocks_)
        std::visit(
            [&](const auto& rows) {
                Eigen::Map<Vector> sums(memory.take(rows.width()), rows.width());
                sums.setZero();
                for (Index i = 0; i < rows.rows(); ++i, ++row)
                    if (curvature(row) != 0.0)
                        rows.panel(i, 1, packed)
                            .map(Square())
                            .add_transposed(curvature.segment(row, 1), sums);
                rows.collect(sums, 1.0, diagonal.head(d_));
            },
            block.rows);
    if (fit_intercept_) diagonal(d_) = curvature.sum();
    return diagonal;
}

bool Objective::has_dual() const {
    const auto has_transpose = [](const auto& rows) {
        if constexpr (requires { rows.transposed(); }) return rows.has_transpose();
        return false;
    };
    return blocks_.size() == 1 && n_ < d_ && penalty_.head(d_).minCoeff() > 0.0 &&
           std::visit(has_transpose, blocks_[0].rows);
}

Matrix Objective::dual(const VectorRef& root) const {
    require_size("root", root.size(), n_);
    if (!has_dual()) throw std::invalid_argument("these rows have no dual");
    const Vector inverse = penalty_.head(d_).cwiseInverse();
    Matrix K = Matrix::Zero(n_, n_);
    std::visit(
        [&](const auto& rows) {
            if constexpr (requires { rows.transposed(); })
                expunge::add_gram(rows.transposed(), inverse.data(), K);
        },
        blocks_[0].rows);
    for (Index j = 0; j < n_; ++j)
        for (Index i = j; i < n_; ++i) K(i, j) = weighted(root(j) * root(i), K(i, j));
    K.diagonal().array() += 1.0;
    return K;
}

double Objective::gram_norm_bound() const {
    Vector sums = Vector::Zero(parameters());
    add_transposed(
        Vector::Ones(parameters()), Magnitude(), Walk::by_threads, 1.0, sums,
        [&](const auto&, const auto&, Index, Index m, const Panel& x_ones, const double*, const double* s,
            Panel& r, Sums&) {
            for (Index i = 0; i < m; ++i) r[i] = weighted(s[i], x_ones[i]);
        },
        nothing);
    return sums.size() > 0 ? sums.maxCoeff() : 0.0;
}

// How many additions a term of each coordinate's sum goes through, at most (p,).
Vector Objective::additions_by_coordinate() const {
    Vector k = Vector::Zero(parameters());
    for (const Block& block : blocks_)
        std::visit([&](const auto& rows) { rows.add_additions(k.head(d_)); }, block.rows);
    if (fit_intercept_) k(d_) = most_additions_;
    return k;
}

double Objective::rounding_floor(const VectorRef& theta) const {
    require_size("theta", theta.size(), parameters());
    Vector d1(n_);
    for_each_panel(
        theta, Entry(), Walk::by_threads, 0,
        [&](const auto&, const auto&, Index row, Index m, const Panel& eta, const double* y, const double*,
            Sums&) {
            with_loss(loss_,
                      [&]<class L>() { weighted_d1<L>(m, eta.data(), y, ones.data(), d1.data() + row); });
        },
        nothing);
    // |X|^T |s d1|, and |X|^T of what rounding in eta leaves in s d1
    const double ones_column = fit_intercept_ ? 1.0 : 0.0;
    Vector sums = Vector::Zero(parameters()), predictors = sums;
    for_each_panel(
        theta.cwiseAbs(), Magnitude(), Walk::by_threads, 2,
        [&](const auto& rows, const auto& panel, Index row, Index m, const Panel& x_theta, const double* y,
            const double* s, Sums& of) {
            alignas(64) Panel slope, rounding;
            with_loss(loss_, [&]<class L>() {
                for (Index i = 0; i < m; ++i) {
                    const double stored = static_cast<double>(panel.stored(i)) + ones_column;
                    const double r = d1(row + i);
                    rounding[i] = s[i] * L::d1_rounding(r, (stored + 2.0) * x_theta[i], y[i]);
                    slope[i] = s[i] * std::abs(r);
                }
            });
            leave_out(m, s, slope.data());
            leave_out(m, s, rounding.data());
            panel.add_transposed(as_vector(slope, m), of.columns.head(rows.width()));
            panel.add_transposed(as_vector(rounding, m), of.columns.tail(rows.width()));
            of.intercept += as_vector(slope, m).sum();
            of.rounding += as_vector(rounding, m).sum();
        },
        [&](const auto& rows, const Sums& of) {
            rows.collect(of.columns.head(rows.width()), 1.0, sums.head(d_));
            rows.collect(of.columns.tail(rows.width()), 1.0, predictors.head(d_));
            if (!fit_intercept_) return;
            sums(d_) += of.intercept;
            predictors(d_) += of.rounding;
        });
    const Vector additions = additions_by_coordinate().array() + 3.0;
    return known(norm_of(roundoff * (additions.cwiseProduct(sums) + predictors)) + penalty_rounding(theta));
}

Tally Objective::count() const {
    Tally tally;
    for (const Block& block : blocks_) {
        const Index n = expunge::rows(block.rows);
        for (Index i = 0; i < n; ++i) {
            const double s = block.s ? block.s[i] : 1.0;
            tally.rows += s > 0.0;
            tally.weight += s;
        }
    }
    return tally;
}

// What the rows bring, `sign` times; where `old` has the same rows, less what they bring with its targets and
// weights. E10: each row brings u s |x| (k |d1| + d2 d |x|^T |theta|) to a gradient, k the additions that it
// goes through, and u s |x|^2 (k d2 + |d3| d |x|^T |theta|) to a Hessian; d2 and d3 where they are largest
// among all that eta may be (E19).
void Objective::add_change(const VectorRef& theta, double sign, const Objective* old, bool tallied,
                           Change& total) const {
    thread_local Workspace wide_ones, wide_theta;
    const Vector ones_of = Vector::Ones(tallied ? d_ : 0), sizes = theta.head(d_).cwiseAbs();
    const double one = fit_intercept_ ? 1.0 : 0.0, offset = fit_intercept_ ? std::abs(theta(d_)) : 0.0;
    const double additions = most_additions_ + 3.0, d = static_cast<double>(parameters()) + 2.0;
    Vector& curvature = total.rows.emplace_back(Change::Rows{this, Vector(n_)}).curvature;
    alignas(64) Panel value, w, old_r, norm2, predictor, rounding;
    // value, r and w of one side; norm2 and predictor, d |x|^T |theta|, are those of its rows.
    const auto side = [&](double side_sign, Index m, const Panel& eta, const double* y, const double* s,
                          Panel& r, Tally& tally) {
        with_loss(loss_, [&]<class L>() {
            weighted_loss<L>(m, eta.data(), y, s, value.data(), r.data(), w.data());
            total.value += side_sign * sum_of(m, s, value, r, w.data());
            if (!tallied) return;
            rounding_of<L>(m, r.data(), y, s, additions, predictor.data(), rounding.data());
            for (Index i = 0; i < m; ++i) {
                if (!(s[i] > 0.0)) continue;
                const double x2 = norm2[i] + one, x = std::sqrt(x2);
                tally.largest_norm = std::max(tally.largest_norm, x);
                tally.gradient_rounding += x * rounding[i];
                const double in_d2 =
                    L::max_d3 > 0.0 ? moved(w[i] / s[i], L::max_d3, L::max_d2, predictor[i]) : 0.0;
                tally.hessian_rounding += x2 * (additions * w[i] + s[i] * in_d2);
            }
            tally.gradient_rounding = known(tally.gradient_rounding);
            tally.hessian_rounding = known(tally.hessian_rounding);
        });
    };
    add_transposed(
        theta, Entry(), Walk::alone, sign, total.gradient,
        [&](const auto& rows, const auto& panel, Index row, Index m, const Panel& eta, const double* y,
            const double* s, Panel& r, Sums&) {
            if (tallied) {
                panel.map(Square()).multiply(rows.spread(ones_of, wide_ones), as_vector(norm2, m));
                panel.map(Magnitude()).multiply(rows.spread(sizes, wide_theta), as_vector(predictor, m));
                as_vector(predictor, m).array() = d * (as_vector(predictor, m).array() + offset);
            }
            auto change = curvature.segment(row, m);
            side(sign, m, eta, y, s, r, sign > 0.0 ? total.after : total.before);
            change = sign * as_vector(w, m);
            if (!old) return;
            const Block& was = old->blocks_[0];
            side(-sign, m, eta, targets(was, row), weights(was, row), old_r, total.before);
            change -= as_vector(w, m);
            as_vector(r, m) -= as_vector(old_r, m);
        },
        nothing);
}

Change Objective::change(const Objective* before, const Objective* after, const VectorRef& theta,
                         bool tallied) {
    Change total;
    total.gradient = Vector::Zero(theta.size());
    for (const auto& [side, tally] : {std::pair(before, &total.before), std::pair(after, &total.after)}) {
        if (!side) continue;
        require_size("theta", theta.size(), side->parameters());
        *tally = side->count();
        total.edited += side->rows();
    }
    const bool same = before && after && before->same_rows(*after);
    if (after) after->add_change(theta, 1.0, same ? before : nullptr, tallied, total);
    if (before && !same) before->add_change(theta, -1.0, nullptr, tallied, total);
    return total;
}

Evaluation Objective::difference(const Objective* before, const Objective* after, const VectorRef& theta) {
    Change total = change(before, after, theta, false);
    return {total.value, std::move(total.gradient), Vector()};
}

// g (p,) += sign X^T r; where `old` has the same rows, less r with its targets and weights.
void Objective::add_slopes(const VectorRef& theta, double sign, const Objective* old, Vector& g) const {
    add_transposed(
        theta, Entry(), Walk::by_threads, sign, g,
        [&](const auto&, const auto&, Index row, Index m, const Panel& eta, const double* y, const double* s,
            Panel& r, Sums&) {
            with_loss(loss_, [&]<class L>() {
                weighted_d1<L>(m, eta.data(), y, s, r.data());
                if (!old) return;
                const Block& was = old->blocks_[0];
                alignas(64) Panel old_r;
                weighted_d1<L>(m, eta.data(), targets(was, row), weights(was, row), old_r.data());
                as_vector(r, m) -= as_vector(old_r, m);
            });
        },
        nothing);
}

Vector Objective::gradient_difference(const Objective* before, const Objective* after,
                                      const VectorRef& theta) {
    for (const Objective* side : {before, after})
        if (side) require_size("theta", theta.size(), side->parameters());
    Vector g = Vector::Zero(theta.size());
    const bool same = before && after && before->same_rows(*after);
    if (after) after->add_slopes(theta, 1.0, same ? before : nullptr, g);
    if (before && !same) before->add_slopes(theta, -1.0, nullptr, g);
    return g;
}

}  // namespace expunge
