#pragma once
#include <algorithm>
#include <atomic>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "expunge/cholesky.hpp"
#include "expunge/errors.hpp"
#include "expunge/objective.hpp"

namespace expunge {

constexpr Index all_coordinates = std::numeric_limits<Index>::max();

// The positions below p that are not in `dropped`, which ascends.
std::vector<Index> complement(Index p, const std::vector<Index>& dropped);

// A value made when it is first asked for, by whichever thread asks; made again if that fails.
template <class T>
class Lazy {
public:
    template <class Make>
    const T& get(Make&& make) {
        const std::lock_guard lock(mutex_);
        if (!value_) value_.emplace(make());
        return *value_;
    }
    // Before others see it.
    void set(std::optional<T> value) { value_ = std::move(value); }
    // Null if it was not made yet.
    const T* peek() {
        const std::lock_guard lock(mutex_);
        return value_ ? &*value_ : nullptr;
    }

private:
    std::mutex mutex_;
    std::optional<T> value_;
};

// The Hessian of the current data at a fixed theta_a (E8). A complete anchor is H_a = H_0 + A S A^T: H_0 is
// factored once, and the columns of A are the rows that came and went since (E18). In high dimension an
// anchor is a preconditioner instead: the block over the coordinates that the data determine most, and the
// diagonal elsewhere; with K outputs one such block for all classes (E33). Immutable: an edit gives a new
// anchor, so a request that fails has changed nothing.
class Anchor : public std::enable_shared_from_this<Anchor> {
public:
    // `block`: how many coordinates the block has; complete if these are all. `curvature` is that of the
    // objective at theta. With K outputs and an intercept H has a null space, of a constant for all classes:
    // a complete anchor is of H and a multiple of its projection. Sums over classes of what is solved for are
    // 0 there, and do not depend on the multiple.
    Anchor(const Objective& objective, Vector theta, const VectorRef& curvature, Index block);
    explicit Anchor(const Objective& objective, Vector theta, Index block = all_coordinates)
        : Anchor(objective, theta, objective.curvature(theta), block) {}
    // A preconditioner without a block: this diagonal (p,).
    explicit Anchor(Vector diagonal);
    // Complete, from the lower triangle of H (p, p) at theta. It is factored when the factor is first needed.
    Anchor(Vector theta, Matrix H);

    // H changes by the Gram matrices, at theta_a, of the rows `before` and `after`; either may be null.
    // `rows` gives by how much their weights in it change. Where the curvature stays, as under corrected
    // labels (E6), the anchor stays. A few rows join A. Many rows are added into H_0, which is factored when
    // that is needed; it throws if H is no longer positive definite. `fold` adds all into H_0, also what A
    // holds already, and leaves dropped coordinates out: only H is kept. A factor that was there follows a
    // few rows by rotations (E22). A preconditioner stays as it is: it need not be that of the current data.
    std::shared_ptr<const Anchor> edit(const std::vector<Change::Rows>& rows, bool fold = false) const;
    std::shared_ptr<const Anchor> edit(const Objective* before, const Objective* after,
                                       bool fold = false) const;

    // Without the coordinates in `dropped` (ascending). A large factor is shared, not made anew.
    std::shared_ptr<const Anchor> drop(const std::vector<Index>& dropped) const;

    // Complete, with a penalty that is more by so much (p,): another factor.
    std::shared_ptr<const Anchor> penalised(const VectorRef& more) const;

    // The same Hessian at another theta, where it does not depend on theta.
    std::shared_ptr<const Anchor> move_to(Vector theta) const {
        require_size("theta", theta.size(), theta_.size());
        std::shared_ptr<Anchor> other(new Anchor(*this));
        other->theta_ = std::move(theta);
        return other;
    }

    // Makes the factor now: throws NotPositiveDefinite.
    void factor() const { held_->factor(); }
    bool has_factor() const;  // whether it does not
    // The same, from the rows of the objective where H itself lost the digits that it takes.
    void factor(const Objective& objective, const VectorRef& curvature) const;
    // Whether that was so: H alone, as saved, has no factor.
    bool factored_from_rows() const { return held_->from_rows; }
    bool factored() const { return held_->factored.peek() != nullptr; }

    // H^-1 b if complete, else the block's and the diagonal's.
    Vector solve(const VectorRef& b) const;

    // If complete:
    Vector multiply(const VectorRef& v) const;  // H v
    Matrix hessian() const;                     // of the block, lower triangle
    const Vector& theta() const { return theta_; }
    const Vector& diagonal() const { return diagonal_; }
    bool cancelled() const;  // whether H is by now mostly rounding errors of rows that have left it
    // A lower bound of the least eigenvalue of H as it is held, or 0: from the trace of its inverse.
    double least_eigenvalue() const;
    // The same without a space that H maps to itself, `inverses` the sum of 1 / its eigenvalues there.
    double least_eigenvalue_beside(double inverses) const;
    // The same of what is left of H when its last coordinate is eliminated.
    double least_eigenvalue_of_columns() const;
    Vector last_column() const;  // of H (p,)
    double frobenius() const;    // an upper bound of the norms of H_0 and of all rows that came and went
    Index edits() const { return edits_; }  // columns of A
    // What H went through since it was assembled: bounds of what editing it rounded, in norm, and of the
    // trace of all Gram matrices that came and went.
    struct Past {
        double rounding = 0.0, trace = 0.0;
    };
    const Past& past() const { return past_; }
    double fold_rounding() const;  // the rounding error of adding the columns of A into H_0
    bool eliminated() const { return !gone_.empty(); }

    bool same_factor(const Anchor& other) const { return held_ == other.held_; }
    // The last column a of A.
    auto last_edit() const { return A_->rows.col(edits_ - 1); }
    // H^-1 (g + along a), given w, which is H^-1 g for the H before a joined.
    Vector follow(const Vector& w, double along) const;

    Index size() const { return diagonal_.size(); }
    bool complete() const { return theta_.size() == size(); }
    // Throws unless it is.
    void require_complete() const {
        if (!complete()) throw std::invalid_argument("the anchor holds no whole Hessian, but a block of one");
    }
    bool has_block() const { return of_each_ ? of_each_->has_block() : !block_.empty(); }

private:
    struct Held {
        explicit Held(Matrix hessian);
        const CholeskyFactor& factor() {
            return factored.get([&] { return CholeskyFactor(H); });
        }
        Matrix H;           // lower triangle
        Vector last;        // its last row, where it lies together
        double norm = 0.0;  // Frobenius
        bool from_rows = false;
        Lazy<CholeskyFactor> factored;
        Lazy<Vector> inverse_diagonal;
    };

    // For every column a of A, with H the Hessian before a joined: v = H^-1 a, and the pivot c = sign + a^T
    // v. That is 1 + h for a row that came and -(1 - h) for one that went, h its leverage. Then (H + sign a
    // a^T)^-1 = (I - v a^T / c) H^-1. Columns are only ever appended, and an anchor sees its first `edits_`:
    // so a stream of anchors shares one store.
    struct Edits {
        Edits(Index p, Index capacity)
            : rows(p, capacity), solutions(p, capacity), pivots(capacity), signs(capacity) {}
        Matrix rows, solutions;
        Vector pivots, signs;
        std::atomic<Index> used = 0;
    };

    Anchor() = default;
    Anchor(const Anchor&) = default;
    double inverse_gain_ = 0.0;   // by how much the edits changed the trace of the inverse
    double inverse_last_ = 0.0;   // of that, at the last coordinate
    double inverse_moved_ = 0.0;  // the first, added up without signs
    void add_to_past(double trace, Index terms);
    double rounding() const;  // of H as it is factored and edited, in norm, at most
    // Of the inverse as H is held, without the last coordinate if `columns`; and what rounding makes of it.
    std::pair<double, double> inverse_trace(bool columns) const;
    void hold(Matrix H);
    Vector correct(Vector x, Index edits) const;  // H_0^-1 b becomes (H_0 + the first `edits` of A)^-1 b
    Matrix held_hessian() const;                  // of what is held, edits included
    // How many columns A has room for. Each makes the next one dearer, and all share the cost of the factor
    // that follows. Measured at p = 100 to 1000: the total is least at p / 4, and flat from p / 3 to p / 6.
    Index capacity() const { return std::max<Index>(8, size() / 4); }
    bool append(const std::vector<Change::Rows>& changes, Index count);
    std::optional<CholeskyFactor> rotated(const std::vector<Change::Rows>& rows) const;

    std::shared_ptr<const Anchor> of_each_;  // of K outputs, if not complete: of one class; else null
    Vector theta_;                           // (p,) if complete, else empty
    Vector diagonal_;                        // (p,) of H
    Vector largest_;                         // (p,) if complete: the largest diagonal since H was assembled
    std::vector<Index> block_;               // the block's coordinates, ascending
    std::shared_ptr<Held> held_;
    std::shared_ptr<Edits> A_;
    Index edits_ = 0;
    double edited_ = 0.0;             // sum of squared norms of the columns of A
    Past past_;                       // nothing of it stays where edits fold
    std::vector<Index> kept_, gone_;  // positions in `held_` of the block, and of coordinates dropped since
    // H_JJ^-1 b = (H^-1 b)_J - W_J (W_K)^-1 (H^-1 b)_K for K gone, J kept, b zero on K, W = H^-1 E_K.
    Matrix W_;
    std::shared_ptr<const CholeskyFactor> corner_;  // of W_K
};

}  // namespace expunge
