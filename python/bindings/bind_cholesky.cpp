#include <optional>

#include "arrays.hpp"
#include "bind.hpp"
#include "expunge/cholesky.hpp"

namespace expunge::bindings {

void bind_cholesky(py::module_& m) {
    py::class_<CholeskyFactor>(m, "CholeskyFactor", py::module_local())
        .def(py::init([](const Array& H) {
                 const auto full = square(H, "H");
                 py::gil_scoped_release nogil;
                 return CholeskyFactor(full);
             }),
             py::arg("H").noconvert())
        .def(
            "solve",
            [](const CholeskyFactor& factor, const Array& b) {
                if (b.ndim() < 1 || b.ndim() > 2 || b.shape(0) != factor.size())
                    throw std::invalid_argument("b has shape " + shape_text(b) + ", expected (" +
                                                std::to_string(factor.size()) + ",) or (" +
                                                std::to_string(factor.size()) + ", k)");
                Array x(std::vector<py::ssize_t>(b.shape(), b.shape() + b.ndim()));
                const Index p = factor.size(), k = b.ndim() == 2 ? b.shape(1) : 1;
                const Eigen::Map<const RowMatrix> from(b.data(), p, k);
                Eigen::Map<RowMatrix> to(x.mutable_data(), p, k);
                py::gil_scoped_release nogil;
                if (k == 1) {
                    to = factor.solve(from.col(0));
                } else {
                    Matrix columns = from;
                    factor.solve_in_place(columns);
                    to = columns;
                }
                return x;
            },
            py::arg("b").noconvert())
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
