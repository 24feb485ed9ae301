#pragma once
#include <cstddef>
#include <limits>
#include <vector>

#include "expunge/losses.hpp"
#include "expunge/rows.hpp"

namespace expunge {

// Rows with their targets y (n,) and weights s (n,); nullptr stands for zeros and ones. Not owned.
struct Block {
    RowsView rows;
    const double* y;
    const double* s;
};

// J, its gradient and s_i d2_i, row by row, at one theta. With K outputs the last is sqrt(s_i) p_ik (n, K),
// class after class: the weight of a pair of classes is a product (E28).
struct Evaluation {
    double value = std::numeric_limits<double>::infinity();
    Vector gradient;                                         // (p,)
    Vector curvature;                                        // (n K,), or empty where rows were not read
    double floor = std::numeric_limits<double>::infinity();  // E19 from the largest row alone, if known
    double residual() const { return gradient.norm(); }
};

// What a + b loses when it is rounded, exactly.
inline double rounded_off(double a, double b) {
    const double sum = a + b, b_in_it = sum - a;
    return (a - (sum - b_in_it)) + (b - b_in_it);
}
// A sum of which so much was lost, at most: not less than the true one. Whole numbers stay.
inline double raised(double sum, double lost) { return lost > 0.0 ? sum + 2.0 * lost : sum; }

// What E10 needs to know of some rows beside their sums. Rounding errors are in units of u = 2^-53.
struct Tally {
    double rows = 0.0;               // how many have a positive weight
    double weight = 0.0;             // sum of the weights, rounded up
    double largest_norm = 0.0;       // of a row, extended by 1 with an intercept
    double gradient_rounding = 0.0;  // bound of the rounding error in their part of a gradient
    double hessian_rounding = 0.0;   // and in their part of a Hessian
    double value_rounding = 0.0;     // and in their part of J
};

// How far the curvatures of rows of positive weight are apart at two thetas, a and b (E26).
struct CurvatureChange {
    double largest = 0.0;  // kappa: |d2_b / d2_a - 1| of one row, infinite where it cannot be told
    double squares = 0.0;  // Q: sum of s (d2_b - d2_a)^2 / d2_a
    double weight = 0.0;   // sum of s d2_a

    void add(const CurvatureChange& other) {
        largest = largest < other.largest ? other.largest : largest;
        squares += other.squares;
        weight += other.weight;
    }
};

class Objective;

// The difference that replacing some rows makes at one theta (E3, E10): to J, to its gradient, and to the
// weights of the rows in the Hessian. Penalties are not counted.
struct Change {
    struct Rows {
        const Objective* rows;
        Vector curvature;  // (n K,): by how much the weights in the Hessian change; with the sign of that
    };
    double value = 0.0;
    Vector gradient;  // (p,)
    std::vector<Rows> rows;
    Tally before, after;
    Index edited = 0;  // rows on both sides
};

// All rows lie in it, intercept not counted: unlike their norms it does not depend on where columns have
// their zero.
struct Ball {
    Vector centre;  // (d,)
    double radius = 0.0;
};

// E1: J(theta; D) = sum_i s_i loss(y_i, eta_i) + 1/2 theta^T Lambda theta + b^T theta,
// eta_i = x_i^T theta + theta_0, on the sum scale. p = d, or d + 1 with the intercept, unpenalised, as last
// coordinate. With K > 1 outputs the loss is multinomial (E28), y the number of a class, and theta (K p,)
// holds such a theta of each class, one after the other.
class Objective {
public:
    // largest_norm: an upper bound of every |x_i|, or infinity where none is known. noise: b (p,), empty for
    // 0. ball: null where none is known.
    Objective(std::vector<Block> blocks, Loss loss, Vector penalty, bool fit_intercept,
              double largest_norm = std::numeric_limits<double>::infinity(), Vector noise = Vector(),
              std::shared_ptr<const Ball> ball = nullptr, Index outputs = 1);

    Index rows() const { return n_; }
    Index parameters() const { return penalty_.size(); }
    Index outputs() const { return outputs_; }
    Index curvatures() const { return n_ * outputs_; }  // how many numbers tell the curvature of all rows
    double entries() const;                             // stored in X
    double gram_cost() const;                           // what add_gram costs, in Hessian-vector products
    const Vector& penalty() const { return penalty_; }
    bool fit_intercept() const { return fit_intercept_; }
    const Loss& loss() const { return loss_; }
    double largest_norm() const { return largest_norm_; }
    const Ball* ball() const { return ball_.get(); }
    double additions() const { return most_additions_; }  // that a term of a sum over rows takes part in
    bool same_rows(const Objective& other) const;
    bool dense() const;  // then a term takes part in as many in every column

    // The same objective over some of its coordinates, ascending: the others are left out of X.
    Objective select(const std::vector<Index>& coordinates) const;

    // J, gradient and curvature in one pass, summed by panels. `largest_norm`: the largest norm of a row,
    // or NaN, which becomes it.
    Evaluation evaluate(const VectorRef& theta) const;
    Evaluation evaluate(const VectorRef& theta, double& largest_norm) const;
    // The lower triangle of H (p, p) becomes the Hessian, penalty included. Dense rows are read once for all.
    Evaluation evaluate(const VectorRef& theta, double& largest_norm, Matrix& H) const;

    // The first of these, in a pass that also tells how far curvatures moved from the anchor (E26).
    Evaluation evaluate_beside(const VectorRef& theta, const VectorRef& anchor, CurvatureChange& moved) const;

    // s_i d2_i at theta, as Evaluation has it.
    Vector curvature(const VectorRef& theta) const;

    // H (p, p), lower triangle, += X^T diag(curvature) X; the penalty is not added.
    void add_gram(const VectorRef& curvature, Matrix& H) const;

    // Columns sqrt(w_i) x_i, x_i extended by 1, for every w_i > 0: (p, m). With K outputs the K - 1 columns
    // of each row with a w > 0.
    void scaled_rows(const VectorRef& w, Eigen::Ref<Matrix> columns) const;
    Index scaled_rows(const VectorRef& w) const;       // how many these are
    double total_curvature(const VectorRef& w) const;  // the sum of their weights, or of those of pairs

    // The diagonal of X^T diag(curvature) X (p,).
    Vector gram_diagonal(const VectorRef& curvature) const;

    // Hessian at theta, lower triangle, penalty included.
    Matrix hessian(const VectorRef& theta) const;

    // X^T diag(curvature) X v + Lambda v
    Vector hvp(const VectorRef& curvature, const VectorRef& v) const;
    // The same with the curvature at theta, in one pass.
    Vector hvp_at(const VectorRef& theta, const VectorRef& v) const;

    // This objective with the rows of one output, of weights (n,) from the curvature: the whole Hessian is
    // nearly that of it in each class (E33).
    Objective one_output() const;
    Vector shared_curvature(const VectorRef& curvature) const;

    // J does not change with a constant for the intercepts of all classes: their sum becomes 0.
    void centre(Vector& theta) const;

    // X v (n K,), X extended by 1 with an intercept; class after class.
    Vector predict(const VectorRef& v) const;
    // X^T r (p,), X extended likewise.
    Vector transposed(const VectorRef& r) const;

    // E23: the lower triangle of I + R X Lambda^-1 X^T R (n, n), R = diag(root). There is one only for a
    // single dense block with fewer rows than columns and a penalty on every coordinate.
    bool has_dual() const;
    Matrix dual(const VectorRef& root) const;

    // The largest sum over columns of w_j (x_j - m_j)^2 of a row of positive weight; w >= 0 and m (d,).
    double largest_norm2(const VectorRef& w, const VectorRef& m) const { return largest_norms2(w, m).first; }
    // And of w_j x_j^2.
    std::pair<double, double> largest_norms2(const VectorRef& w, const VectorRef& m) const;

    // E36, of a squared hinge: how far theta may move, at least, before the curvature of a row jumps.
    double kink_gap(const VectorRef& theta) const;

    // An upper bound of |S^1/2 X|^2, X extended by 1: the largest sum of a row of |X|^T S |X| (E4).
    double gram_norm_bound() const;

    // E19: a bound of the rounding error in the gradient of `evaluate`.
    double rounding_floor(const VectorRef& theta) const;

    // The two numbers of a tally that are known without reading X.
    Tally count() const;

    // What replacing the rows `before` by `after` changes at theta; either may be null, each is read once.
    // Where both share their rows, because only labels or weights change, each row gives one difference.
    // `tallied`: whether tallies are taken.
    static Change change(const Objective* before, const Objective* after, const VectorRef& theta,
                         bool tallied = true);

    // E3: J_after - J_before on these rows alone, and the gradient of that.
    static Evaluation difference(const Objective* before, const Objective* after, const VectorRef& theta);

    // The gradient of that alone (p,), by several threads.
    static Vector gradient_difference(const Objective* before, const Objective* after,
                                      const VectorRef& theta);

    // An estimate of this objective from one row in `parts`, taken in a few pieces of each block. Larger
    // weights make up for the other rows; they are appended to `weights`, which must outlive the sample.
    Objective sample(Index parts, std::vector<Vector>& weights) const;

private:
    struct Sums;
    struct PanelSums;
    struct Here;
    struct Gram;
    enum class Walk { alone, by_threads };
    using Spread = FunctionRef<VectorRef(const RowsView& rows, Workspace& memory)>;
    using Visit = FunctionRef<void(const Here& here, const VectorRef& vectors, Sums& sums)>;
    using VisitPredicted = FunctionRef<void(const Here& here, double* eta, Sums& sums)>;
    using Fill = FunctionRef<void(const Here& here, const double* eta, double* r, Sums& sums)>;
    using Collect = FunctionRef<void(const RowsView& rows, const Sums& sums)>;
    using More = FunctionRef<void(const Sums& sums)>;
    Evaluation evaluate(const VectorRef& theta, double& largest_norm, Matrix* H) const;
    void find_curvature(const VectorRef& theta, Vector& curvature, const Gram* gram) const;
    void add_penalty(const VectorRef& theta, Evaluation& at) const;
    double penalty_rounding(const VectorRef& theta) const;
    void walk(Spread spread, Read read, Walk how, Index sets, Visit visit, Collect collect,
              const Gram* gram = nullptr) const;
    void walk(const Block& block, Index row, Workspace& memory, Spread spread, Read read, Walk how,
              Index sets, Visit visit, Collect collect, const Gram* gram) const;
    void for_each_panel(const VectorRef& theta, Read read, Walk how, Index sets, VisitPredicted visit,
                        Collect collect, const Gram* gram = nullptr) const;
    void add_transposed(const VectorRef& theta, Read read, Walk how, double sign, Vector& g, Fill fill,
                        More more, const Gram* gram = nullptr) const;
    void add_transposed(Read read, Walk how, double sign, const VectorRef& r, Vector& g) const;
    bool wide() const;
    void collect(const RowsView& rows, const Sums& sums, double sign, Vector& g) const;
    void add_slopes(const VectorRef& theta, double sign, const Objective* old, Vector& g) const;
    void add_change(const VectorRef& theta, double sign, const Objective* old, bool tallied,
                    Change& total) const;
    Vector additions_by_coordinate() const;
    Index largest_row() const;

    friend class Multinomial;

    std::vector<Block> blocks_;
    Loss loss_;
    Vector penalty_, noise_;  // (p,), 0 at the intercept; noise_ may be empty
    bool fit_intercept_;
    Index outputs_;
    double largest_norm_;
    std::shared_ptr<const Ball> ball_;
    Index n_ = 0, d_ = 0;
    double most_additions_ = 0.0;  // over all columns
    double entry_roundings_ = 0.0;
};

}  // namespace expunge
