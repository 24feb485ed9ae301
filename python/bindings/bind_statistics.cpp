#include <memory>
#include <optional>
#include <string>

#include "bind.hpp"
#include "expunge/statistics.hpp"
#include "objective.hpp"

namespace expunge::bindings {

namespace {

using Blocks = std::optional<py::list>;
using Tallies = AnchoredStatistics::Tallies;

// Rows of a request, to which no penalty belongs.
struct RowsAlone {
    RowsAlone(const Blocks& blocks, const AnchoredStatistics& statistics, const Columns& columns,
              const Shift& shift = std::nullopt) {
        const auto& s = statistics.state();
        if (blocks)
            objective.emplace(*blocks, s.loss, Vector::Zero(s.penalty.size()), s.fit_intercept, columns,
                              std::nullopt, Vector(), true, shift, nullptr, s.outputs);
    }
    const Objective* get() const { return objective ? &objective->core() : nullptr; }
    std::optional<PyObjective> objective;
};

std::string name_of(const AnchoredStatistics::State& s) {
    if (s.outputs > 1) return "softmax";
    const std::string name = std::visit([](auto l) -> std::string { return l.name; }, s.loss);
    const double power = key(s.loss).power;
    return power == 0.0 ? name : name + "(" + std::string(py::repr(py::float_(power))) + ")";
}

}  // namespace

void bind_statistics(py::module_& m) {
    py::class_<Tallies>(m, "Tallies", py::module_local(), py::is_final())
        .def(py::init([](double value, double rows, double weight, double largest_norm,
                         double gradient_rounding, double gradient_norm, double hessian_rounding,
                         double edits, double value_rounding) {
                 return Tallies{value,
                                rows,
                                weight,
                                largest_norm,
                                gradient_rounding,
                                gradient_norm,
                                hessian_rounding,
                                edits,
                                value_rounding};
             }),
             py::arg("value"), py::arg("rows"), py::arg("weight"), py::arg("largest_norm"),
             py::arg("gradient_rounding"), py::arg("gradient_norm"), py::arg("hessian_rounding"),
             py::arg("edits"), py::arg("value_rounding"))
        .def_readonly("value", &Tallies::value)
        .def_readonly("rows", &Tallies::rows)
        .def_readonly("weight", &Tallies::weight)
        .def_readonly("largest_norm", &Tallies::largest_norm)
        .def_readonly("gradient_rounding", &Tallies::gradient_rounding)
        .def_readonly("gradient_norm", &Tallies::gradient_norm)
        .def_readonly("hessian_rounding", &Tallies::hessian_rounding)
        .def_readonly("edits", &Tallies::edits)
        .def_readonly("value_rounding", &Tallies::value_rounding)
        .def("__eq__", [](const Tallies& a, const Tallies& b) { return a == b; }, py::is_operator());

    py::class_<AnchoredStatistics>(m, "AnchoredStatistics", py::module_local(), py::is_final())
        .def(py::init([](const PyObjective& J, const std::shared_ptr<Anchor>& anchor, const Evaluation& at,
                         double floor, double largest_norm) {
                 py::gil_scoped_release nogil;
                 return AnchoredStatistics(J.core(), anchor, at, floor, largest_norm);
             }),
             py::arg("objective"), py::arg("anchor").none(false), py::arg("at"), py::arg("floor"),
             py::arg("largest_norm"))
        .def_static(
            "restore",
            [](const Array& theta, const Array& hessian, const Array& gradient, const std::string& loss,
               const Array& penalty, bool fit_intercept, const Tallies& tallies,
               const std::vector<double>& row_lengths, Index outputs) {
                const Index p = theta.size();
                const auto H = square(hessian, "hessian");
                auto anchor = std::make_shared<const Anchor>(vector(theta, "theta", p), Matrix(H));
                return AnchoredStatistics(
                           AnchoredStatistics::State{anchor, loss_of(loss, outputs),
                                                     vector(penalty, "penalty", p), fit_intercept,
                                                     vector(gradient, "gradient", p), tallies, outputs})
                    .know_rows(row_lengths);
            },
            py::arg("theta").noconvert(), py::arg("hessian").noconvert(), py::arg("gradient").noconvert(),
            py::arg("loss"), py::arg("penalty").noconvert(), py::arg("fit_intercept"), py::arg("tallies"),
            py::arg("row_lengths") = std::vector<double>(), py::arg("outputs") = 1)
        .def(
            "edit",
            [](const AnchoredStatistics& statistics, const Blocks& before, const Blocks& after,
               const Columns& columns, const Array& theta, bool fold, const Shift& shift) {
                const auto here = vector(theta, "theta", statistics.state().penalty.size());
                const RowsAlone was(before, statistics, columns, shift),
                    now(after, statistics, columns, shift);
                py::gil_scoped_release nogil;
                return statistics.edit(was.get(), now.get(), here, fold);
            },
            py::arg("before").none(true), py::arg("after").none(true), py::arg("columns").noconvert(),
            py::arg("theta").noconvert(), py::arg("fold") = false, py::arg("shift").noconvert() = py::none())
        // Rows alone, without E3 at a theta.
        .def(
            "replace",
            [](const AnchoredStatistics& statistics, const Blocks& before, const Blocks& after) {
                const RowsAlone was(before, statistics, std::nullopt), now(after, statistics, std::nullopt);
                py::gil_scoped_release nogil;
                return statistics.edit(was.get(), now.get());
            },
            py::arg("before").none(true), py::arg("after").none(true))
        // Raises unless H_a is positive definite.
        .def(
            "factor", [](const AnchoredStatistics& statistics) { statistics.state().anchor->factor(); },
            py::call_guard<py::gil_scoped_release>())
        .def("fold",
             [](const AnchoredStatistics& statistics) {
                 py::gil_scoped_release nogil;
                 return statistics.fold();
             })
        .def("round_up",
             [](const AnchoredStatistics& statistics) {
                 py::gil_scoped_release nogil;
                 return statistics.round_up();
             })
        .def(
            "move_to",
            [](const AnchoredStatistics& statistics, const Array& theta) {
                Vector at = vector(theta, "theta", statistics.state().penalty.size());
                py::gil_scoped_release nogil;
                return statistics.move_to(std::move(at));
            },
            py::arg("theta").noconvert())
        .def(
            "penalise",
            [](const AnchoredStatistics& statistics, const Array& penalty) {
                Vector with = vector(penalty, "penalty", statistics.state().penalty.size());
                py::gil_scoped_release nogil;
                return statistics.penalise(std::move(with));
            },
            py::arg("penalty").noconvert())
        .def(
            "measure",
            [](const AnchoredStatistics& statistics, const Array& theta, const Evaluation& at, double floor) {
                Vector here = vector(theta, "theta", statistics.state().penalty.size());
                py::gil_scoped_release nogil;
                return statistics.measure(std::move(here), at, floor);
            },
            py::arg("theta").noconvert(), py::arg("at"), py::arg("floor"))
        .def(
            "measure_beside",
            [](const AnchoredStatistics& statistics, const PyObjective& J, const Array& theta) {
                Vector at = J.parameter(theta, "theta");
                py::gil_scoped_release nogil;
                return statistics.measure_beside(J.core(), std::move(at));
            },
            py::arg("objective"), py::arg("theta").noconvert())
        .def(
            "measure_rows",
            [](const AnchoredStatistics& statistics, const PyObjective& J) {
                py::gil_scoped_release nogil;
                return statistics.measure_rows(J.core());
            },
            py::arg("objective"))
        .def_property_readonly("row_lengths", &AnchoredStatistics::row_lengths)
        .def(
            "merge",
            [](const AnchoredStatistics& statistics, const AnchoredStatistics& other) {
                py::gil_scoped_release nogil;
                return statistics.merge(other);
            },
            py::arg("other"))
        .def(
            "drop",
            [](const AnchoredStatistics& statistics, const std::vector<Index>& dropped) {
                py::gil_scoped_release nogil;
                return statistics.drop(dropped);
            },
            py::arg("dropped"))
        .def(
            "step",
            [](const AnchoredStatistics& statistics, double wanted) {
                AnchoredStatistics::Step step;
                {
                    py::gil_scoped_release nogil;
                    step = statistics.step(wanted);
                }
                return py::make_tuple(to_numpy(step.theta), step.bound, step.distance);
            },
            py::arg("wanted") = 0.0)
        .def(
            "distance",
            [](const AnchoredStatistics& statistics, const Array& theta, const Evaluation& at, double floor) {
                const auto here = vector(theta, "theta", statistics.state().penalty.size());
                py::gil_scoped_release nogil;
                return statistics.distance(here, at, floor);
            },
            py::arg("theta").noconvert(), py::arg("at"), py::arg("floor"))
        .def("coefficient_distance",
             [](const AnchoredStatistics& statistics) {
                 py::gil_scoped_release nogil;
                 return statistics.coefficient_distance();
             })
        .def(
            "coefficient_distance_at",
            [](const AnchoredStatistics& statistics, const Array& theta, const Evaluation& at, double floor) {
                const auto here = vector(theta, "theta", statistics.state().penalty.size());
                py::gil_scoped_release nogil;
                return statistics.coefficient_distance(here, at, floor);
            },
            py::arg("theta").noconvert(), py::arg("at"), py::arg("floor"))
        .def_property_readonly("anchor",
                               [](const AnchoredStatistics& statistics) {
                                   return std::const_pointer_cast<Anchor>(statistics.state().anchor);
                               })
        // e_g of the second anchor, or None.
        .def_property_readonly("second_error",
                               [](const AnchoredStatistics& statistics) -> std::optional<double> {
                                   const auto* second = statistics.second();
                                   return second ? std::optional(second->gradient_error()) : std::nullopt;
                               })
        // theta_b, kappa and Q of the second anchor, or None.
        .def_property_readonly("second",
                               [](const AnchoredStatistics& statistics) -> py::object {
                                   const auto* second = statistics.second();
                                   if (!second) return py::none();
                                   return py::make_tuple(to_numpy(second->theta), second->moved.largest,
                                                         second->moved.squares);
                               })
        .def_property_readonly("at",
                               [](const AnchoredStatistics& statistics) {
                                   const auto& s = statistics.state();
                                   return Evaluation{s.tallies.value, s.gradient, Vector()};
                               })
        .def_property_readonly("gradient_error", &AnchoredStatistics::gradient_error)
        .def_property_readonly(
            "loss", [](const AnchoredStatistics& statistics) { return name_of(statistics.state()); })
        .def_property_readonly(
            "penalty",
            [](const AnchoredStatistics& statistics) { return to_numpy(statistics.state().penalty); })
        .def_property_readonly(
            "outputs", [](const AnchoredStatistics& statistics) { return statistics.state().outputs; })
        .def_property_readonly(
            "fit_intercept",
            [](const AnchoredStatistics& statistics) { return statistics.state().fit_intercept; })
        .def_property_readonly(
            "edits", [](const AnchoredStatistics& statistics) { return statistics.state().tallies.edits; })
        .def_property_readonly(
            "tallies", [](const AnchoredStatistics& statistics) { return statistics.state().tallies; });
}

}  // namespace expunge::bindings
