#pragma once
#include <Eigen/Core>
#include <type_traits>

#include "expunge/kernels.hpp"

namespace expunge {

static_assert(std::is_same_v<Index, Eigen::Index>);
using Vector = Eigen::VectorXd;
using VectorRef = Eigen::Ref<const Vector>;
using Matrix = Eigen::MatrixXd;  // column-major; symmetric matrices keep their lower triangle only
using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

}  // namespace expunge
