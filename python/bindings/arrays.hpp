#pragma once
// NumPy arrays seen as the core's views: typed and shape-checked here, converted never (that is
// expunge._arrays' work, so that a copy cannot hide).
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <vector>

#include "expunge/objective.hpp"

namespace expunge::bindings {

namespace py = pybind11;

using Array = py::array_t<double, py::array::c_style>;

inline std::string shape_text(const py::array& a) { return py::str(a.attr("shape")).cast<std::string>(); }

inline Eigen::Map<const Vector> vector(const Array& a, const char* name, Index size) {
    if (a.ndim() != 1 || a.shape(0) != size)
        throw std::invalid_argument(std::string(name) + " has shape " + shape_text(a) + ", expected (" +
                                    std::to_string(size) + ",)");
    return {a.data(), size};
}

inline Eigen::Map<const RowMatrix> square(const Array& a, const char* name) {
    if (a.ndim() != 2 || a.shape(0) != a.shape(1))
        throw std::invalid_argument(std::string(name) + " has shape " + shape_text(a) +
                                    ", expected a square matrix");
    return {a.data(), a.shape(0), a.shape(1)};
}

inline Array to_numpy(const Vector& v) { return Array(v.size(), v.data()); }

// The full symmetric matrix of a lower triangle.
inline Array to_numpy_symmetric(const Matrix& lower) {
    const Index p = lower.rows();
    Array full({p, p});
    Eigen::Map<Matrix>(full.mutable_data(), p, p) = lower.selfadjointView<Eigen::Lower>();
    return full;
}

// Kept columns (ascending) as runs; all of them for None.
inline Runs runs(const std::optional<py::array_t<std::int64_t, py::array::c_style>>& columns, Index width) {
    if (!columns) return all_columns(width);
    Runs runs;
    Index next = 0;
    for (py::ssize_t i = 0; i < columns->size(); ++i) {
        const auto j = static_cast<Index>(columns->at(i));
        if (j < next || j >= width) throw std::invalid_argument("columns must ascend within the width of X");
        if (!runs.empty() && j == next)
            ++runs.back().count;
        else
            runs.push_back({j, 1});
        next = j + 1;
    }
    return runs;
}

inline Rows rows(const py::array& X,
                 const std::optional<py::array_t<std::int64_t, py::array::c_style>>& columns) {
    if (X.ndim() != 2) throw std::invalid_argument("X has shape " + shape_text(X) + ", expected (n, d)");
    if (X.shape(0) > 0 && X.shape(1) > 0 &&
        (X.strides(0) % X.itemsize() != 0 || X.strides(1) % X.itemsize() != 0))
        throw std::invalid_argument("X must be aligned");
    const Index row = X.strides(0) / X.itemsize(), column = X.strides(1) / X.itemsize();
    const auto view = [&]<class T>(T) {
        return DenseRows<T>(static_cast<const T*>(X.data()), X.shape(0), row, column,
                            runs(columns, X.shape(1)));
    };
    if (py::isinstance<py::array_t<double>>(X)) return view(double{});
    if (py::isinstance<py::array_t<float>>(X)) return view(float{});
    throw py::type_error("X must hold float64 or float32");
}

}  // namespace expunge::bindings
