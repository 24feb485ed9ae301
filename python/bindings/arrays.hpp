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

#include "expunge/kernels.hpp"
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

// Whether numbers lie where the machine reads them best: what else the compiler makes of a loop may fail.
inline bool is_aligned(const py::array& a) {
    return (a.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0;
}
inline void require_aligned(const py::array& a, const char* name) {
    if (!is_aligned(a)) throw std::invalid_argument(std::string(name) + " must be aligned: pass a copy");
}

inline std::string shape_text(const py::array& a) { return py::str(a.attr("shape")).cast<std::string>(); }

inline Eigen::Map<const Vector> vector(const Array& a, const char* name, Index size) {
    if (a.ndim() != 1 || a.shape(0) != size)
        throw std::invalid_argument(std::string(name) + " has shape " + shape_text(a) + ", expected (" +
                                    std::to_string(size) + ",)");
    require_aligned(a, name);
    return {a.data(), size};
}

inline Eigen::Map<const RowMatrix> square(const Array& a, const char* name) {
    if (a.ndim() != 2 || a.shape(0) != a.shape(1))
        throw std::invalid_argument(std::string(name) + " has shape " + shape_text(a) +
                                    ", expected a square matrix");
    require_aligned(a, name);
    return {a.data(), a.shape(0), a.shape(1)};
}

inline Array to_numpy(const Vector& v) { return Array(v.size(), v.data()); }

inline Matrix lower_triangle(const Eigen::Map<const RowMatrix>& full) {
    Matrix lower(full.rows(), full.rows());
    kernels().copy_lower(full.rows(), full.data(), lower.data());
    return lower;
}

// The full symmetric matrix of a lower triangle.
inline Array to_numpy_symmetric(const Matrix& lower) {
    Array full({lower.rows(), lower.rows()});
    kernels().symmetric_of_lower(lower.rows(), lower.data(), full.mutable_data());
    return full;
}

using Columns = std::optional<py::array_t<bool, py::array::c_style>>;

// A mask of columns as runs; all of them for None.
inline Runs runs(const Columns& columns, Index width) {
    if (!columns) return all_columns(width);
    if (columns->ndim() != 1 || columns->shape(0) != width)
        throw std::invalid_argument("columns has shape " + shape_text(*columns) + ", expected (" +
                                    std::to_string(width) + ",) to match X");
    // NumPy takes any byte for a bool, C++ does not.
    const auto* seen = static_cast<const unsigned char*>(static_cast<const py::array&>(*columns).data());
    if (std::find(seen, seen + width, 0) == seen + width) return all_columns(width);
    Runs runs;
    for (Index j = 0; j < width; ++j)
        if (seen[j]) append(runs, j);
    return runs;
}

inline RowsView dense_rows(const py::array& X, const Columns& columns) {
    if (X.ndim() != 2) throw std::invalid_argument("X has shape " + shape_text(X) + ", expected (n, d)");
    const bool whole_strides = X.strides(0) % X.itemsize() == 0 && X.strides(1) % X.itemsize() == 0;
    if (!is_aligned(X) || (X.size() > 0 && !whole_strides)) throw std::invalid_argument("X must be aligned");
    const Index row = X.strides(0) / X.itemsize(), column = X.strides(1) / X.itemsize();
    const auto view = [&]<class T>(T) {
        return RowsView::dense(static_cast<const T*>(X.data()), X.shape(0), row, column,
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
            if (part.ndim() != 1 || !(part.flags() & py::array::c_style) || !is_aligned(part))
                throw std::invalid_argument("the parts of a CSR matrix must be contiguous and aligned");
        if (n < 0 || width < 0 || indptr.shape(0) - 1 != n || indices.shape(0) != data.shape(0))
            throw std::invalid_argument("the parts of a CSR matrix do not fit each other");
    }

    // canonical: whether its indices were looked at; else its rows are, which must follow each other.
    RowsView rows(const Columns& columns, bool canonical) const {
        const auto view = [&]<class T, class I>(const T* values, I) {
            return RowsView::csr(values, static_cast<const I*>(indices.data()),
                                 static_cast<const I*>(indptr.data()), n, width, runs(columns, width),
                                 canonical, data.shape(0));
        };
        const auto indexed = [&]<class T>(const T* values) {
            const auto by = [&]<class I>(I) {
                return py::isinstance<py::array_t<I>>(indices) && py::isinstance<py::array_t<I>>(indptr);
            };
            if (by(std::int32_t())) return view(values, std::int32_t());
            if (by(std::int64_t())) return view(values, std::int64_t());
            throw py::type_error("a CSR matrix must be indexed by int32 or int64 alike");
        };
        const auto typed = [&] {
            if (holds<double>(data)) return indexed(static_cast<const double*>(data.data()));
            if (holds<float>(data)) return indexed(static_cast<const float*>(data.data()));
            throw py::type_error("X must hold float64 or float32");
        };
        RowsView rows = typed();
        if (!canonical) rows.require_order();
        return rows;
    }

    py::array data, indices, indptr;
    Index n, width;
};

using Shift = std::optional<Array>;

// A view of an array or a CSR matrix, less the shift (its width,). `owners` gets what must outlive it.
inline RowsView rows(const py::object& X, const Columns& columns, py::list& owners, bool canonical = true,
                     const Shift& shift = std::nullopt) {
    Index width = 0;
    const auto view = [&]() -> RowsView {
        if (py::isinstance<py::array>(X)) {
            owners.append(X);
            const auto array = py::reinterpret_borrow<py::array>(X);
            RowsView dense = dense_rows(array, columns);
            width = array.shape(1);
            return dense;
        }
        const Csr csr(X);
        for (const py::array& part : {csr.data, csr.indices, csr.indptr}) owners.append(part);
        width = csr.width;
        return csr.rows(columns, canonical);
    }();
    if (!shift) return view;
    owners.append(*shift);
    return view.less(vector(*shift, "shift", width).data());
}

}  // namespace expunge::bindings
