#include "arrays.hpp"
#include "bind.hpp"
#include "objective.hpp"

namespace expunge::bindings {

namespace {

const double* column(const py::object& values, const char* name, Index n) {
    if (values.is_none()) return nullptr;
    if (!py::isinstance<Array>(values))
        throw py::type_error(std::string(name) + " must be contiguous float64");
    return vector(py::reinterpret_borrow<Array>(values), name, n).data();
}

}  // namespace

PyObjective::PyObjective(const py::list& blocks, const std::string& loss, const Array& penalty,
                         bool fit_intercept, const Columns& columns)
    : owners(blocks.attr("copy")()), core([&] {
          std::vector<Block> views;
          for (const auto& item : blocks) {
              const auto block = item.cast<py::tuple>();
              const auto X = block[0].cast<py::array>();
              views.push_back({rows(X, columns), column(block[1], "y", X.shape(0)),
                               column(block[2], "sample_weight", X.shape(0))});
          }
          return Objective(std::move(views), loss_named(loss), vector(penalty, "penalty", penalty.size()),
                           fit_intercept);
      }()) {}

void bind_objective(py::module_& m) {
    py::class_<Evaluation>(m, "Evaluation", py::module_local())
        .def(py::init([](double value, const Array& gradient) {
                 return Evaluation{value, vector(gradient, "gradient", gradient.size()), Vector()};
             }),
             py::arg("value"), py::arg("gradient").noconvert())
        .def_readonly("value", &Evaluation::value)
        .def_property_readonly("gradient", [](const Evaluation& at) { return to_numpy(at.gradient); })
        .def_property_readonly("residual", &Evaluation::residual);

    py::class_<PyObjective>(m, "Objective", py::module_local())
        .def(py::init<const py::list&, const std::string&, const Array&, bool, const Columns&>(),
             py::arg("blocks"), py::arg("loss"), py::arg("penalty").noconvert(), py::arg("fit_intercept"),
             py::arg("columns").noconvert() = py::none())
        .def(
            "evaluate",
            [](const PyObjective& J, const Array& theta) {
                const auto at = J.parameter(theta, "theta");
                py::gil_scoped_release nogil;
                return J.core.evaluate(at);
            },
            py::arg("theta").noconvert())
        .def(
            "hessian",
            [](const PyObjective& J, const Array& theta) {
                const auto at = J.parameter(theta, "theta");
                Matrix H;
                {
                    py::gil_scoped_release nogil;
                    H = J.core.hessian(at);
                }
                return to_numpy_symmetric(H);
            },
            py::arg("theta").noconvert())
        .def(
            "hvp",
            [](const PyObjective& J, const Array& theta, const Array& v) {
                const auto at = J.parameter(theta, "theta");
                const auto direction = J.parameter(v, "v");
                Vector product;
                {
                    py::gil_scoped_release nogil;
                    product = J.core.hvp(J.core.curvature(at), direction);
                }
                return to_numpy(product);
            },
            py::arg("theta").noconvert(), py::arg("v").noconvert())
        .def(
            "rounding_floor",
            [](const PyObjective& J, const Array& theta) {
                const auto at = J.parameter(theta, "theta");
                py::gil_scoped_release nogil;
                return J.core.rounding_floor(at);
            },
            py::arg("theta").noconvert());

    m.def(
        "gradient_difference",
        [](const PyObjective* before, const PyObjective* after, const Array& theta) {
            const auto at = vector(theta, "theta", theta.size());
            for (const PyObjective* side : {before, after})
                if (side) side->parameter(theta, "theta");
            py::gil_scoped_release nogil;
            return Objective::difference(before ? &before->core : nullptr, after ? &after->core : nullptr,
                                         at);
        },
        py::arg("before").none(true), py::arg("after").none(true), py::arg("theta").noconvert());

    m.def(
        "gram",
        [](const py::array& X, const Array& w) {
            const Rows view = rows(X, std::nullopt);
            const auto weights = vector(w, "w", X.shape(0));
            Matrix H = Matrix::Zero(X.shape(1), X.shape(1));
            {
                py::gil_scoped_release nogil;
                add_gram(view, weights.data(), H);
            }
            return to_numpy_symmetric(H);
        },
        py::arg("X").noconvert(), py::arg("w").noconvert());
}

}  // namespace expunge::bindings
