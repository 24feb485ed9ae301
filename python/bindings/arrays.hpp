#pragma once
// NumPy arrays seen as the core's views: typed and shape-checked here, converted never (that is
// expunge._arrays' work, so that a copy cannot hide).
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "expunge/objective.hpp"

namespace expunge::bindings {

namespace py = pybind11;

using Array = py::array_t<double, py::array::c_style>;

// Whether the entries are T's, in this machine's order of bytes.
template <class T>
bool holds(const py::array& a) {
    const py::dtype type = a.dtype();
    return type.num() == py::dtype::num_of<T>() && type.byteorder() == '=';
}

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

// The lower triangle, column-major: block by block to stay in cache.
inline Matrix lower_triangle(const Eigen::Map<const RowMatrix>& full) {
    constexpr Index block = 32;
    const Index p = full.rows();
    Matrix lower(p, p);
    for (Index j = 0; j < p; j += block)
        for (Index i = j; i < p; i += block) {
            const Index rows = std::min(block, p - i), columns = std::min(block, p - j);
            lower.block(i, j, rows, columns) = full.block(i, j, rows, columns);
        }
    return lower;
}

// The upper triangle of a matrix becomes the mirror of its lower one, in blocks again.
inline void mirror(Eigen::Map<Matrix> H) {
    constexpr Index block = 32;
    const Index p = H.rows();
    for (Index j = 0; j < p; j += block) {
        const Index columns = std::min(block, p - j);
        auto corner = H.block(j, j, columns, columns);
        corner.triangularView<Eigen::StrictlyUpper>() = corner.transpose();
        for (Index i = j + columns; i < p; i += block) {
            const Index rows = std::min(block, p - i);
            H.block(j, i, columns, rows) = H.block(i, j, rows, columns).transpose();
        }
    }
}

// The full symmetric matrix of a lower triangle.
inline Array to_numpy_symmetric(const Matrix& lower) {
    Array full({lower.rows(), lower.rows()});
    Eigen::Map<Matrix> H(full.mutable_data(), lower.rows(), lower.rows());
    H.triangularView<Eigen::Lower>() = lower;
    mirror(H);
    return full;
}

using Columns = std::optional<py::array_t<bool, py::array::c_style>>;

// A mask of columns as runs; all of them for None.
inline Runs runs(const Columns& columns, Index width) {
    if (!columns) return all_columns(width);
    if (columns->ndim() != 1 || columns->shape(0) != width)
        throw std::invalid_argument("columns has shape " + shape_text(*columns) + ", expected (" +
                                    std::to_string(width) + ",) to match X");
    const bool* seen = columns->data();
    if (std::find(seen, seen + width, false) == seen + width) return all_columns(width);
    Runs runs;
    for (Index j = 0; j < width; ++j)
        if (seen[j]) append(runs, j);
    return runs;
}

inline Rows dense_rows(const py::array& X, const Columns& columns) {
    if (X.ndim() != 2) throw std::invalid_argument("X has shape " + shape_text(X) + ", expected (n, d)");
    if (X.shape(0) > 0 && X.shape(1) > 0 &&
        (X.strides(0) % X.itemsize() != 0 || X.strides(1) % X.itemsize() != 0))
        throw std::invalid_argument("X must be aligned");
    const Index row = X.strides(0) / X.itemsize(), column = X.strides(1) / X.itemsize();
    const auto view = [&]<class T>(T) {
        return DenseRows<T>(static_cast<const T*>(X.data()), X.shape(0), row, column,
                            runs(columns, X.shape(1)));
    };
    if (holds<double>(X)) return view(double{});
    if (holds<float>(X)) return view(float{});
    throw py::type_error("X must hold float64 or float32");
}

// A SciPy matrix in canonical CSR (expunge._arrays sees to that) and what keeps its memory alive.
struct Csr {
    explicit Csr(const py::object& X)
        : data(X.attr("data").cast<py::array>()), indices(X.attr("indices").cast<py::array>()),
          indptr(X.attr("indptr").cast<py::array>()) {
        const auto shape = X.attr("shape").cast<std::pair<Index, Index>>();
        n = shape.first, width = shape.second;
        for (const py::array& part : {data, indices, indptr})
            if (part.ndim() != 1 || !(part.flags() & py::array::c_style))
                throw std::invalid_argument("the parts of a CSR matrix must be contiguous");
        if (indptr.shape(0) != n + 1 || indices.shape(0) != data.shape(0))
            throw std::invalid_argument("the parts of a CSR matrix do not fit each other");
    }

    // visit(data, indices, indptr), typed
    template <class Visit>
    decltype(auto) visit(Visit&& visit) const {
        const auto indexed = [&]<class T>(const T* values) {
            if (py::isinstance<py::array_t<std::int32_t>>(indices) &&
                py::isinstance<py::array_t<std::int32_t>>(indptr))
                return visit(values, static_cast<const std::int32_t*>(indices.data()),
                             static_cast<const std::int32_t*>(indptr.data()));
            if (py::isinstance<py::array_t<std::int64_t>>(indices) &&
                py::isinstance<py::array_t<std::int64_t>>(indptr))
                return visit(values, static_cast<const std::int64_t*>(indices.data()),
                             static_cast<const std::int64_t*>(indptr.data()));
            throw py::type_error("a CSR matrix must be indexed by int32 or int64 alike");
        };
        if (holds<double>(data)) return indexed(static_cast<const double*>(data.data()));
        if (holds<float>(data)) return indexed(static_cast<const float*>(data.data()));
        throw py::type_error("X must hold float64 or float32");
    }

    py::array data, indices, indptr;
    Index n, width;
};

// Raises unless the rows of a CSR matrix follow each other within its entries.
template <class I>
void require_order(const I* indptr, const Csr& csr) {
    bool rows_follow = indptr[0] == 0 && indptr[csr.n] <= csr.indices.shape(0);
    for (Index i = 0; i < csr.n; ++i) rows_follow &= indptr[i] <= indptr[i + 1];
    if (!rows_follow) throw std::invalid_argument(outside_of_X);
}

// A view of an array or a CSR matrix. `owners` gets what must outlive it.
inline Rows rows(const py::object& X, const Columns& columns, py::list& owners, bool canonical = true) {
    if (py::isinstance<py::array>(X)) {
        owners.append(X);
        return dense_rows(py::reinterpret_borrow<py::array>(X), columns);
    }
    const Csr csr(X);
    for (const py::array& part : {csr.data, csr.indices, csr.indptr}) owners.append(part);
    return csr.visit([&]<class T, class I>(const T* data, const I* indices, const I* indptr) -> Rows {
        if (!canonical) require_order(indptr, csr);
        return SparseRows<T, I>(data, indices, indptr, csr.n, csr.width, runs(columns, csr.width), canonical);
    });
}

}  // namespace expunge::bindings
