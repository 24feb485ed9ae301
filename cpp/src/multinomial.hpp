#pragma once
// An Objective of K outputs (E28). Numbers of rows and classes lie class after class, of theta and gradients
// as well. Its Hessian is a sum over pairs k < l of classes, of weight s p_k p_l = c_k c_l and with rows
// (e_k - e_l) x_i: no digit of p (1 - p) cancels.
#include <initializer_list>
#include <vector>

#include "expunge/objective.hpp"

namespace expunge {

// The functions of Objective of the same names.
class Multinomial {
public:
    explicit Multinomial(const Objective& J)
        : J_(J), K_(J.outputs()), p_(J.parameters() / K_), d_(J.d_), n_(J.n_) {}

    Objective select(const std::vector<Index>& coordinates) const;
    Evaluation evaluate(const VectorRef& theta, double& largest_norm, Matrix* H) const;
    Evaluation evaluate_beside(const VectorRef& theta, const VectorRef& anchor, CurvatureChange& moved) const;
    Vector curvature(const VectorRef& theta) const;
    void add_gram(const VectorRef& curvature, Matrix& H) const;
    Vector gram_diagonal(const VectorRef& curvature) const;
    Vector hvp(const VectorRef& curvature, const VectorRef& v) const;
    Vector predict(const VectorRef& v) const;
    Vector transposed(const VectorRef& r) const;
    double rounding_floor(const VectorRef& theta) const;
    void add_change(const VectorRef& theta, double sign, const Objective* old, bool tallied,
                    Change& total) const;
    void add_slopes(const VectorRef& theta, double sign, const Objective* old, Vector& g) const;

    Index rows_with(const VectorRef& w) const;  // how many rows have a w > 0
    double total_curvature(const VectorRef& w) const;
    // W = s (diag p - p p^T) of each row is C C^T, C (K, K - 1), by elimination of one class after the other.
    void scaled_rows(const VectorRef& w, Eigen::Ref<Matrix> columns) const;

private:
    using Sums = Objective::Sums;
    using Here = Objective::Here;
    using Walk = Objective::Walk;
    using Fill = FunctionRef<void(const Here& here, double* eta, Sums& sums)>;

    void for_each_panel(std::initializer_list<const double*> thetas, Read read, Walk how, Index sets,
                        Fill visit, Objective::Collect collect) const;
    void add_transposed(std::initializer_list<const double*> thetas, Read read, Walk how, double sign,
                        Vector& g, Fill fill, Objective::More more) const;
    void add_panel(const Here& here, const double* r, Eigen::Ref<Vector> sums) const;
    void collect(const RowsView& rows, const VectorRef& sums, Read read, double sign, Vector& g) const;
    Index room_for(Index width) const { return width * RowsView::together(K_); }
    double longest(const VectorRef& theta) const;  // |theta_k| of a class

    const Objective& J_;
    Index K_, p_, d_, n_;  // p_ and d_ of one class
};

}  // namespace expunge
