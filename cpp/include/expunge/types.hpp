#pragma once
#include <Eigen/Core>

namespace expunge {

using Index = Eigen::Index;
using Vector = Eigen::VectorXd;
using VectorRef = Eigen::Ref<const Vector>;
using Matrix = Eigen::MatrixXd;  // column-major; symmetric matrices keep their lower triangle only
using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr double roundoff = 0x1p-53;  // u, the unit roundoff of float64

}  // namespace expunge
