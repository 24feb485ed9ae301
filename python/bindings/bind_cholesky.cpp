#include <optional>

#include "arrays.hpp"
#include "bind.hpp"
#include "expunge/cholesky.hpp"

namespace expunge::bindings {

namespace {

// (p,) or (p, k) as columns.
Eigen::Map<const RowMatrix> columns(const Array& a, const char* name, Index p) {
    if (a.ndim() < 1 || a.ndim() > 2 || a.shape(0) != p)
        throw std::invalid_argument(std::string(name) + " has shape " + shape_text(a) + ", expected (" +
                                    std::to_string(p) + ",) or (" + std::to_string(p) + ", k)");
    require_aligned(a, name);
    return {a.data(), p, a.ndim() == 2 ? a.shape(1) : 1};
}

}  // namespace

void bind_cholesky(py::module_& m) {
    py::class_<CholeskyFactor>(m, "CholeskyFactor", py::module_local(), py::is_final())
        .def(py::init([](const Array& H) {
                 const auto full = square(H, "H");
                 py::gil_scoped_release nogil;
                 return CholeskyFactor(lower_triangle(full));
             }),
             py::arg("H").noconvert())
        .def(
            "solve",
            [](const CholeskyFactor& factor, const Array& b) {
                const auto from = columns(b, "b", factor.size());
                const Index p = from.rows(), k = from.cols();
                Array x(std::vector<py::ssize_t>(b.shape(), b.shape() + b.ndim()));
                Eigen::Map<RowMatrix> to(x.mutable_data(), p, k);
                py::gil_scoped_release nogil;
                if (k == 1) {
                    to = factor.solve(from.col(0));
                } else {
                    Matrix solved = from;
                    factor.solve_in_place(solved);
                    to = solved;
                }
                return x;
            },
            py::arg("b").noconvert())
        .def(
            "update",
            [](CholeskyFactor& factor, const Array& V) {
                const auto added = columns(V, "V", factor.size());
                py::gil_scoped_release nogil;
                factor.update(added);
            },
            py::arg("V").noconvert())
        .def(
            "downdate",
            [](CholeskyFactor& factor, const Array& V) {
                const auto removed = columns(V, "V", factor.size());
                py::gil_scoped_release nogil;
                factor.downdate(removed);
            },
            py::arg("V").noconvert())
        .def(
            "append",
            [](CholeskyFactor& factor, const Array& h) {
                const auto row = vector(h, "h", factor.size() + 1);
                py::gil_scoped_release nogil;
                factor.append(row);
            },
            py::arg("h").noconvert())
        .def("delete", &CholeskyFactor::erase, py::arg("i"), py::call_guard<py::gil_scoped_release>())
        .def_property_readonly("lower",
                               [](const CholeskyFactor& factor) {
                                   const Index p = factor.size();
                                   Array L({p, p});
                                   Eigen::Map<RowMatrix>(L.mutable_data(), p, p) =
                                       factor.lower().triangularView<Eigen::Lower>();
                                   return L;
                               })
        .def_property_readonly("shape", [](const CholeskyFactor& factor) {
            return py::make_tuple(factor.size(), factor.size());
        });
}

}  // namespace expunge::bindings
