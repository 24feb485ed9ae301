#include "expunge/objective.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "expunge/errors.hpp"
#include "expunge/parallel.hpp"
#include "multinomial.hpp"
#include "walk.hpp"

namespace expunge {

namespace {

constexpr double worth_sharing = 2e5;  // entries below which threads cost more than they save

}  // namespace

// H (p, p) += X^T diag(w) X, X extended by 1, w (n,) set by the visit of a row.
struct Objective::Gram {
    Vector& w;
    Matrix& H;

    // The row of the intercept, from sums over rows.
    void add_ones(const RowsView& rows, const Sums& sums) const {
        const Index d = H.rows() - 1;
        Vector row = Vector::Zero(d);
        rows.collect(sums.ones, 1.0, row);
        H.row(d).head(d) += row.transpose();
        H(d, d) += sums.weight;
    }
};

Objective::Objective(std::vector<Block> blocks, Loss loss, Vector penalty, bool fit_intercept,
                     double largest_norm, Vector noise, std::shared_ptr<const Ball> ball, Index outputs)
    : blocks_(std::move(blocks)), loss_(loss), penalty_(std::move(penalty)), noise_(std::move(noise)),
      fit_intercept_(fit_intercept), outputs_(outputs), largest_norm_(largest_norm), ball_(std::move(ball)) {
    if (outputs < 1 || penalty_.size() % outputs != 0)
        throw std::invalid_argument("the penalty has " + std::to_string(penalty_.size()) + " numbers for " +
                                    std::to_string(outputs) + " outputs");
    if (outputs > 1 && !std::holds_alternative<Logistic>(loss))
        throw std::invalid_argument("only the logistic loss has more than one output");
    d_ = penalty_.size() / outputs - (fit_intercept ? 1 : 0);
    if (d_ < 0) throw std::invalid_argument("the penalty is empty, and the intercept is one more parameter");
    if (noise_.size() > 0) require_size("noise", noise_.size(), parameters());
    if (ball_) require_size("the centre", ball_->centre.size(), d_);
    for (const Block& block : blocks_) {
        const RowsView& rows = block.rows;
        if (rows.columns() != d_)
            throw std::invalid_argument("X has " + std::to_string(rows.columns()) + " columns, expected " +
                                        std::to_string(d_));
        n_ += rows.rows();
        const auto p = static_cast<double>(rows.panel_rows()), n = static_cast<double>(rows.rows());
        most_additions_ += std::min(n, p) + std::ceil(n / p) + rows.entry_roundings();
        entry_roundings_ = std::max(entry_roundings_, rows.entry_roundings());
    }
}

double Objective::entries() const {
    double entries = 0.0;
    for (const Block& block : blocks_) entries += block.rows.entries();
    return entries;
}

double Objective::gram_cost() const {
    double work = 0.0;
    for (const Block& block : blocks_) work += block.rows.gram_work();
    const double pairs = outputs_ > 1 ? 0.5 * static_cast<double>(outputs_ - 1) : 1.0;  // for each output
    return pairs * work / (entries() + 1.0);
}

Objective Objective::select(const std::vector<Index>& coordinates) const {
    require_ascending("coordinates", coordinates, parameters());
    if (outputs_ > 1) return Multinomial(*this).select(coordinates);
    std::vector<Index> columns = coordinates;
    const bool intercept = fit_intercept_ && !columns.empty() && columns.back() == d_;
    if (intercept) columns.pop_back();
    std::vector<Block> blocks;
    for (const Block& block : blocks_) blocks.push_back({block.rows.select(columns), block.y, block.s});
    Vector noise;
    if (noise_.size() > 0) noise = noise_(coordinates);
    return {std::move(blocks), loss_, penalty_(coordinates), intercept, largest_norm_, std::move(noise)};
}

Objective Objective::sample(Index parts, std::vector<Vector>& weights) const {
    constexpr Index pieces = 8;
    std::vector<Block> blocks;
    for (const Block& block : blocks_) {
        const Index n = block.rows.rows(), m = (n + parts - 1) / parts;
        for (Index k = 0; k < pieces; ++k) {
            const Index begin = m * k / pieces, size = m * (k + 1) / pieces - begin, first = n * k / pieces;
            if (size == 0) continue;
            Vector& s = weights.emplace_back(Vector::Ones(size));
            if (block.s) s = Eigen::Map<const Vector>(block.s + first, size);
            s *= static_cast<double>(n) / static_cast<double>(m);
            blocks.push_back({slice(block.rows, first, size), block.y ? block.y + first : nullptr, s.data()});
        }
    }
    return {std::move(blocks), loss_, penalty_, fit_intercept_, largest_norm_, noise_, nullptr, outputs_};
}

bool Objective::same_rows(const Objective& other) const {
    if (blocks_.size() != 1 || other.blocks_.size() != 1) return false;
    return blocks_[0].rows.same_rows(other.blocks_[0].rows);
}

bool Objective::dense() const {
    for (const Block& block : blocks_)
        if (!block.rows.dense()) return false;
    return true;
}

// Calls visit(m rows, spread(rows, memory), sums) for some rows at a time, and collect(rows, sums) after
// every panel_rows() rows and at the end of a block. Several threads visit panels in any order, but they are
// collected in the order of rows: results are the same for any number of threads. `sets`: how many sums there
// are of each column, side by side in `sums`. With `gram`, dense rows are added to it while they are in the
// cache, and panels are then collected by parts. The row of the intercept is summed with the panels of any
// rows.
void Objective::walk(Spread spread, Read read, Walk how, Index sets, Visit visit, Collect collect,
                     const Gram* gram) const {
    Workspace passing;
    Workspace& memory =
        wide() ? passing : scratch().sums;  // sums of a million columns are no scratch to keep
    Index row = 0;
    for (const Block& block : blocks_) {
        walk(block, row, memory, spread, read, how, sets, visit, collect, gram);
        row += block.rows.rows();
    }
}

// The same for one block, whose first row has number `row`. Sums are in `memory`.
void Objective::walk(const Block& block, Index row, Workspace& memory, Spread spread, Read read, Walk how,
                     Index sets, Visit visit, Collect collect, const Gram* gram) const {
    thread_local std::vector<Sums> of_this_thread;
    const RowsView& rows = block.rows;
    const VectorRef vectors = spread(rows, scratch().vectors);
    const Index stride = rows.panel_rows(), step = rows.rows_in_cache(), n = rows.rows();
    const bool with_ones = gram && fit_intercept_;
    const Index width = sets * (rows.width() + (outputs_ > 1 ? 1 : 0)), ones = with_ones ? rows.width() : 0;
    PanelSums sums{memory, of_this_thread, width, ones};
    const auto add_rows = [&](Index start, Index stop, Sums& total) {
        thread_local Workspace packed;
        for (Index first = start; first < stop; first += step) {
            const Index m = std::min(step, stop - first);
            const RowPanel panel = rows.panel(first, m, packed, read);
            visit({rows, panel, row + first, m, targets(block, first), weights(block, first)}, vectors,
                  total);
            if (with_ones) {
                const auto w = gram->w.segment(row + first, m);
                panel.add_transposed(w, total.ones);
                total.weight += kernels().sum(m, w.data());
            }
        }
    };
    const auto collect_sum = [&](Index k) {
        collect(rows, sums.of(k));
        if (with_ones) gram->add_ones(rows, sums.of(k));
    };
    if (gram && rows.gram_by_panels()) {
        const Index parts = rows.gram_parts();
        sums.make_room(2 * parts);
        for (Index k = 0; k < parts; ++k) sums.cleared(k);
        rows.add_gram(gram->w.data() + row, gram->H.topLeftCorner(d_, d_),
                      [&](Index part, Index first, Index m) {
                          Sums& panel = sums.cleared(parts + part);
                          add_rows(first, first + m, panel);
                          sums.of(part).add(panel);
                      });
        for (Index k = 0; k < parts; ++k) collect_sum(k);
        return;
    }
    const bool shared = how == Walk::by_threads && threads() > 1 && rows.entries() >= worth_sharing;
    // After so many panels threads wait for each other: their sums then stay in a cache.
    const Index panels = (n + stride - 1) / stride, in_cache = 65536 / std::max<Index>(1, width + ones);
    const Index together = shared ? std::min(panels, std::max<Index>(4 * threads(), in_cache)) : 1;
    sums.make_room(std::max<Index>(1, together));
    for (Index k = 0; k < panels; k += together) {
        const Index count = std::min(together, panels - k);
        const auto of_panel = [&](Index j) {
            const Index start = (k + j) * stride;
            add_rows(start, std::min(start + stride, n), sums.cleared(j));
        };
        if (count == 1)
            of_panel(0);
        else
            in_parallel(count, of_panel);
        for (Index j = 0; j < count; ++j) collect_sum(j);
    }
    if (gram) rows.add_gram(gram->w.data() + row, gram->H.topLeftCorner(d_, d_));
}

// Calls visit(m rows, f(X) theta, sums).
void Objective::for_each_panel(const VectorRef& theta, Read read, Walk how, Index sets, VisitPredicted visit,
                               Collect collect, const Gram* gram) const {
    const double intercept = fit_intercept_ ? theta(d_) : 0.0;
    walk([&](const RowsView& rows, Workspace& memory) { return rows.spread(theta.head(d_), memory); }, read,
         how, sets,
         [&](const Here& here, const VectorRef& coef, Sums& sums) {
             alignas(64) Panel eta;
             here.panel.multiply(coef, as_vector(eta, here.m), intercept);
             visit(here, eta.data(), sums);
         },
         collect, gram);
}

void Objective::collect(const RowsView& rows, const Sums& sums, double sign, Vector& g) const {
    rows.collect(sums.columns, sign, g.head(d_));
    if (fit_intercept_) g(d_) += sign * sums.intercept;
}

// g (p,) += sign f(X)^T r, X extended by 1. fill(m rows, f(X) theta, r, sums) sets r; its other sums go to
// more(sums).
void Objective::add_transposed(const VectorRef& theta, Read read, Walk how, double sign, Vector& g, Fill fill,
                               More more, const Gram* gram) const {
    if (wide()) {  // theta first, then the sums: each has the cache for itself
        Vector r(n_);
        for_each_panel(
            theta, read, how, 0,
            [&](const Here& here, double* eta, Sums& sums) { fill(here, eta, r.data() + here.row, sums); },
            [&](const RowsView&, const Sums& sums) { more(sums); }, gram);
        add_transposed(read, how, sign, r, g);
        return;
    }
    for_each_panel(
        theta, read, how, 1,
        [&](const Here& here, double* eta, Sums& sums) {
            alignas(64) Panel r;
            fill(here, eta, r.data(), sums);
            here.panel.add_transposed(as_vector(r, here.m), sums.columns);
            sums.intercept += kernels().sum(here.m, r.data());
        },
        [&](const RowsView& rows, const Sums& sums) {
            collect(rows, sums, sign, g);
            more(sums);
        },
        gram);
}

// g (p,) += sign f(X)^T r, X extended by 1.
void Objective::add_transposed(Read read, Walk how, double sign, const VectorRef& r, Vector& g) const {
    const Vector none;
    walk([&](const RowsView&, Workspace&) -> VectorRef { return none; }, read, how, 1,
         [&](const Here& here, const VectorRef&, Sums& sums) {
             here.panel.add_transposed(r.segment(here.row, here.m), sums.columns);
             sums.intercept += kernels().sum(here.m, r.data() + here.row);
         },
         [&](const RowsView& rows, const Sums& sums) { collect(rows, sums, sign, g); });
}

Index Objective::largest_row() const {
    Index largest = 0;
    for (const Block& block : blocks_) largest = std::max(largest, block.rows.largest_row());
    return largest;
}

// Whether theta and a panel's sums do not fit the second-level cache together.
bool Objective::wide() const {
    constexpr Index fit = 65536;
    for (const Block& block : blocks_)
        if (outputs_ * block.rows.width() > fit) return true;
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
    if (outputs_ > 1) return Multinomial(*this).evaluate(theta, largest_norm, H);
    Evaluation at{0.0, Vector::Zero(parameters()), Vector(n_)};
    const auto gram = H ? std::optional(Gram{at.curvature, *H}) : std::nullopt;
    // E19 when only the norm of x_i, or a bound of it, and the largest number of entries are known:
    // |x|^T |theta| <= |x| |theta|.
    const bool measured = std::isnan(largest_norm), bounded = measured || std::isfinite(largest_norm);
    const Vector every = Vector::Ones(measured ? d_ : 0);
    const double one = fit_intercept_ ? 1.0 : 0.0,
                 for_each_norm =
                     bounded ? (static_cast<double>(largest_row()) + 3.0 + entry_roundings_) * theta.norm()
                             : 0.0;
    double rounding = 0.0, largest_norm2 = measured ? 0.0 : largest_norm * largest_norm;
    add_transposed(
        theta, Read::entry, Walk::by_threads, 1.0, at.gradient,
        [&](const Here& here, const double* eta, double* r, Sums& sums) {
            alignas(64) Panel value;
            sums.value += weighted_loss(loss_, here.m, eta, here.y, here.s, value.data(), r,
                                        at.curvature.data() + here.row);
            if (!bounded) return;
            alignas(64) Panel norms;
            if (measured)
                here.measure(every, norms, sums);
            else
                as_vector(norms, here.m).setConstant(largest_norm2);
            sums.rounding +=
                kernels().sum_of_rounding(key(loss_), here.m, r, here.y, here.s, most_additions_ + 3.0,
                                          for_each_norm, one, norms.data());
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
    const Index p = theta.size();
    at.value += 0.5 * kernels().dot(p, theta.data(), pull.data());
    kernels().add_scaled(p, 1.0, pull.data(), at.gradient.data());
    if (noise_.size() == 0) return;
    at.value += kernels().dot(p, noise_.data(), theta.data());
    kernels().add_scaled(p, 1.0, noise_.data(), at.gradient.data());
}

// The rounding error of its gradient. Magnitudes are added, because Lambda theta is rounded before b may
// cancel its digits.
double Objective::penalty_rounding(const VectorRef& theta) const {
    Vector pull = penalty_.cwiseProduct(theta).cwiseAbs();
    if (noise_.size() > 0) pull += noise_.cwiseAbs();
    return 4.0 * roundoff * pull.norm();
}

Vector Objective::curvature(const VectorRef& theta) const {
    require_size("theta", theta.size(), parameters());
    if (outputs_ > 1) return Multinomial(*this).curvature(theta);
    Vector curvature(n_);
    find_curvature(theta, curvature, nullptr);
    return curvature;
}

void Objective::find_curvature(const VectorRef& theta, Vector& curvature, const Gram* gram) const {
    for_each_panel(
        theta, Read::entry, Walk::by_threads, 0,
        [&](const Here& here, const double* eta, Sums&) {
            kernels().weighted_d2(key(loss_), here.m, eta, here.y, here.s, here.weighted(),
                                  curvature.data() + here.row);
        },
        nothing, gram);
}

void Objective::add_gram(const VectorRef& curvature, Matrix& H) const {
    require_size("curvature", curvature.size(), curvatures());
    require_size("H", H.rows(), parameters());
    require_size("H", H.cols(), parameters());
    if (outputs_ > 1) return Multinomial(*this).add_gram(curvature, H);
    Index row = 0;
    for (const Block& block : blocks_) {
        block.rows.add_gram(curvature.data() + row, H.topLeftCorner(d_, d_));
        row += block.rows.rows();
    }
    if (fit_intercept_) H.row(d_) += transposed(curvature).transpose();
}

void Objective::scaled_rows(const VectorRef& w, Eigen::Ref<Matrix> columns) const {
    thread_local Workspace packed, memory;
    require_size("w", w.size(), curvatures());
    require_size("a column", columns.rows(), parameters());
    require_size("columns", columns.cols(), scaled_rows(w));
    columns.setZero();
    if (outputs_ > 1) return Multinomial(*this).scaled_rows(w, columns);
    Index row = 0, k = 0;
    for (const Block& block : blocks_) {
        const RowsView& rows = block.rows;
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
    }
}

Index Objective::scaled_rows(const VectorRef& w) const {
    if (outputs_ > 1) return (outputs_ - 1) * Multinomial(*this).rows_with(w);
    return (w.array() > 0.0).count();
}

double Objective::total_curvature(const VectorRef& w) const {
    return outputs_ > 1 ? Multinomial(*this).total_curvature(w) : w.sum();
}

Matrix Objective::hessian(const VectorRef& theta) const {
    require_size("theta", theta.size(), parameters());
    Matrix H = Matrix::Zero(parameters(), parameters());
    Vector curvature(n_);
    const Gram gram{curvature, H};
    if (outputs_ > 1)
        add_gram(this->curvature(theta), H);
    else
        find_curvature(theta, curvature, &gram);
    H.diagonal() += penalty_;
    return H;
}

Vector Objective::hvp(const VectorRef& curvature, const VectorRef& v) const {
    require_size("curvature", curvature.size(), curvatures());
    require_size("v", v.size(), parameters());
    if (outputs_ > 1) return Multinomial(*this).hvp(curvature, v);
    Vector product = penalty_.cwiseProduct(v);
    if (wide()) {  // X v first, then the sums: each has the cache for itself
        Vector r = predict(v);
        kernels().weigh(n_, curvature.data(), 0.0, r.data());
        add_transposed(Read::entry, Walk::by_threads, 1.0, r, product);
        return product;
    }
    const double offset = fit_intercept_ ? v(d_) : 0.0;
    walk([&](const RowsView& rows, Workspace& memory) { return rows.spread(v.head(d_), memory); },
         Read::entry, Walk::by_threads, 1,
         [&](const Here& here, const VectorRef& coef, Sums& sums) {
             sums.intercept +=
                 here.panel.add_product(curvature.segment(here.row, here.m), coef, offset, sums.columns);
         },
         [&](const RowsView& rows, const Sums& sums) { collect(rows, sums, 1.0, product); });
    return product;
}

Vector Objective::hvp_at(const VectorRef& theta, const VectorRef& v) const {
    require_size("theta", theta.size(), parameters());
    require_size("v", v.size(), parameters());
    if (outputs_ > 1) return Multinomial(*this).hvp(curvature(theta), v);
    Vector product = penalty_.cwiseProduct(v);
    const bool apart = wide();  // the two vectors first, then the sums: each has the cache for itself
    Vector r(apart ? n_ : 0);
    const double intercept = fit_intercept_ ? theta(d_) : 0.0, offset = fit_intercept_ ? v(d_) : 0.0;
    walk([&](const RowsView& rows,
             Workspace& memory) { return rows.spread(theta.head(d_), v.head(d_), memory); },
         Read::entry, Walk::by_threads, apart ? 0 : 1,
         [&](const Here& here, const VectorRef& both, Sums& sums) {
             alignas(64) Panel eta, x_v, w;
             const Index m = here.m;
             here.panel.multiply(both, as_vector(eta, m), as_vector(x_v, m), intercept, offset);
             kernels().weighted_d2(key(loss_), m, eta.data(), here.y, here.s, here.weighted(), w.data());
             const double sum = kernels().weigh(m, w.data(), 0.0, x_v.data());
             if (apart) {
                 r.segment(here.row, m) = as_vector(x_v, m);
             } else {
                 here.panel.add_transposed(as_vector(x_v, m), sums.columns);
                 sums.intercept += sum;
             }
         },
         [&](const RowsView& rows, const Sums& sums) {
             if (!apart) collect(rows, sums, 1.0, product);
         });
    if (apart) add_transposed(Read::entry, Walk::by_threads, 1.0, r, product);
    return product;
}

Vector Objective::predict(const VectorRef& v) const {
    require_size("v", v.size(), parameters());
    if (outputs_ > 1) return Multinomial(*this).predict(v);
    Vector predicted(n_);
    for_each_panel(
        v, Read::entry, Walk::by_threads, 0,
        [&](const Here& here, double* eta, Sums&) {
            predicted.segment(here.row, here.m) = as_vector(eta, here.m);
        },
        nothing);
    return predicted;
}

Vector Objective::transposed(const VectorRef& r) const {
    require_size("a vector over rows", r.size(), curvatures());
    if (outputs_ > 1) return Multinomial(*this).transposed(r);
    Vector g = Vector::Zero(parameters());
    add_transposed(Read::entry, Walk::by_threads, 1.0, r, g);
    return g;
}

std::pair<double, double> Objective::largest_norms2(const VectorRef& w, const VectorRef& m) const {
    double about_m = 0.0, about_0 = 0.0;
    for (const Block& block : blocks_) {
        const auto [one, other] = block.rows.largest_norms2(w, m, block.s);
        about_m = std::max(about_m, one);
        about_0 = std::max(about_0, other);
    }
    return {about_m, about_0};
}

Vector Objective::gram_diagonal(const VectorRef& curvature) const {
    require_size("curvature", curvature.size(), curvatures());
    if (outputs_ > 1) return Multinomial(*this).gram_diagonal(curvature);
    Vector diagonal = Vector::Zero(parameters());
    add_transposed(Read::square, Walk::by_threads, 1.0, curvature, diagonal);
    if (diagonal.allFinite()) return diagonal;
    // A square overflows. Row by row, rows of weight 0 can be left out.
    thread_local Workspace packed, memory;
    diagonal.setZero();
    Index row = 0;
    for (const Block& block : blocks_) {
        const RowsView& rows = block.rows;
        Eigen::Map<Vector> sums(memory.take(rows.width()), rows.width());
        sums.setZero();
        for (Index i = 0; i < rows.rows(); ++i, ++row)
            if (curvature(row) != 0.0)
                rows.panel(i, 1, packed).map(Read::square).add_transposed(curvature.segment(row, 1), sums);
        rows.collect(sums, 1.0, diagonal.head(d_));
    }
    if (fit_intercept_) diagonal(d_) = curvature.sum();
    return diagonal;
}

bool Objective::has_dual() const {
    return outputs_ == 1 && blocks_.size() == 1 && n_ < d_ && penalty_.head(d_).minCoeff() > 0.0 &&
           blocks_[0].rows.has_transpose();
}

Matrix Objective::dual(const VectorRef& root) const {
    require_size("root", root.size(), n_);
    if (!has_dual()) throw std::invalid_argument("these rows have no dual");
    const Vector inverse = penalty_.head(d_).cwiseInverse();
    Matrix K = Matrix::Zero(n_, n_);
    blocks_[0].rows.transposed().add_gram(inverse.data(), K);
    for (Index j = 0; j < n_; ++j)
        for (Index i = j; i < n_; ++i) K(i, j) = weighted(root(j) * root(i), K(i, j));
    K.diagonal().array() += 1.0;
    return K;
}

}  // namespace expunge
