#include <memory>
#include <optional>

#include "bind.hpp"
#include "expunge/newton.hpp"
#include "objective.hpp"

namespace expunge::bindings {

namespace {
using SharedAnchor = std::shared_ptr<Anchor>;

// pybind11 holds no pointers to const; Python sees only const methods.
SharedAnchor shared(std::shared_ptr<const Anchor> anchor) { return std::const_pointer_cast<Anchor>(anchor); }
}  // namespace

void bind_newton(py::module_& m) {
    py::class_<Anchor, SharedAnchor>(m, "Anchor", py::module_local(), py::is_final())
        .def(py::init([](const PyObjective& J, const Array& theta, std::optional<Index> block,
                         const Evaluation* at) {
                 const auto from = J.parameter(theta, "theta");
                 const bool known = at && at->curvature.size() == J.core().curvatures();
                 py::gil_scoped_release nogil;
                 return std::make_shared<Anchor>(J.core(), from,
                                                 known ? at->curvature : J.core().curvature(from),
                                                 block.value_or(all_coordinates));
             }),
             py::arg("objective"), py::arg("theta").noconvert(), py::arg("block") = py::none(),
             py::arg("at").none(true) = py::none())
        .def(
            "edit",
            [](const Anchor& anchor, const PyObjective* before, const PyObjective* after) {
                py::gil_scoped_release nogil;
                return shared(
                    anchor.edit(before ? &before->core() : nullptr, after ? &after->core() : nullptr));
            },
            py::arg("before").none(true), py::arg("after").none(true))
        .def(
            "drop",
            [](const Anchor& anchor, const std::vector<Index>& dropped) {
                py::gil_scoped_release nogil;
                return shared(anchor.drop(dropped));
            },
            py::arg("dropped"))
        .def(
            "solve",
            [](const Anchor& anchor, const Array& b) {
                const auto rhs = vector(b, "b", anchor.size());
                Vector x;
                {
                    py::gil_scoped_release nogil;
                    x = anchor.solve(rhs);
                }
                return to_numpy(x);
            },
            py::arg("b").noconvert())
        .def(
            "move_to",
            [](const Anchor& anchor, const Array& theta) {
                return shared(anchor.move_to(vector(theta, "theta", anchor.theta().size())));
            },
            py::arg("theta").noconvert())
        .def_property_readonly("size", &Anchor::size)
        .def_property_readonly("factored", &Anchor::factored)
        .def_property_readonly(
            "has_factor", py::cpp_function(&Anchor::has_factor, py::call_guard<py::gil_scoped_release>()))
        .def_property_readonly("factored_from_rows", &Anchor::factored_from_rows)
        .def_property_readonly("cancelled", &Anchor::cancelled)
        .def_property_readonly("complete", &Anchor::complete)
        .def_property_readonly("theta", [](const Anchor& anchor) { return to_numpy(anchor.theta()); })
        .def_property_readonly("hessian",
                               [](const Anchor& anchor) { return to_numpy_symmetric(anchor.hessian()); });

    py::class_<Minimum>(m, "Minimum", py::module_local(), py::is_final())
        .def_property_readonly("theta", [](const Minimum& min) { return to_numpy(min.theta); })
        .def_readonly("at", &Minimum::at)
        .def_property_readonly("value", [](const Minimum& min) { return min.at.value; })
        .def_property_readonly("gradient", [](const Minimum& min) { return to_numpy(min.at.gradient); })
        .def_property_readonly("residual", [](const Minimum& min) { return min.at.residual(); })
        .def_readonly("floor", &Minimum::floor)
        .def_readonly("largest_norm", &Minimum::largest_norm)
        .def_readonly("iterations", &Minimum::iterations)
        .def_readonly("passes", &Minimum::passes)
        .def_property_readonly("anchor", [](const Minimum& min) { return shared(min.anchor); });

    m.def(
        "minimize",
        [](const PyObjective& J, const Array& theta, double tolerance, int max_iter,
           const std::optional<SharedAnchor>& anchor, const Evaluation* start, std::optional<Index> block,
           bool dual) {
            const auto from = J.parameter(theta, "theta");
            py::gil_scoped_release nogil;
            const auto checkpoint = [] {
                py::gil_scoped_acquire gil;  // Ctrl-C is heard between iterations
                if (PyErr_CheckSignals() != 0) throw py::error_already_set();
            };
            return minimize(J.core(), Vector(from), tolerance, max_iter, anchor ? *anchor : nullptr,
                            start ? std::optional(*start) : std::nullopt, checkpoint,
                            block.value_or(all_coordinates), dual);
        },
        py::arg("objective"), py::arg("theta").noconvert(), py::arg("tolerance"), py::arg("max_iter"),
        py::arg("anchor") = py::none(), py::arg("start").none(true) = py::none(),
        py::arg("block") = py::none(), py::arg("dual") = false);

    m.def(
        "solve",
        [](const PyObjective& J, const Array& curvature, const Array& b, const SharedAnchor& anchor,
           double tolerance, int max_products) {
            const auto weights = vector(curvature, "curvature", J.core().curvatures());
            const auto rhs = J.parameter(b, "b");
            Solution solution;
            {
                py::gil_scoped_release nogil;
                solution = solve(J.core(), weights, rhs, *anchor, tolerance, max_products);
            }
            return py::make_tuple(to_numpy(solution.x), solution.products, solution.converged);
        },
        py::arg("objective"), py::arg("curvature").noconvert(), py::arg("b").noconvert(),
        py::arg("anchor").none(false), py::arg("tolerance"), py::arg("max_products"));
}

}  // namespace expunge::bindings
