#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>

#include "arrays.hpp"
#include "bind.hpp"
#include "expunge/distance.hpp"
#include "expunge/newton.hpp"
#include "objective.hpp"

namespace expunge::bindings {

namespace {

const double* column(const py::object& values, const char* name, Index n) {
    if (values.is_none()) return nullptr;
    if (!py::isinstance<Array>(values))
        throw py::type_error(std::string(name) + " must be contiguous float64");
    return vector(py::reinterpret_borrow<Array>(values), name, n).data();
}

// From a square that was summed up.
double furthest(double square) { return std::sqrt(square) * (1.0 + 1e-12); }

// The ball over a mask of the columns.
std::shared_ptr<const Ball> over(const std::shared_ptr<Ball>& ball, const Columns& columns) {
    if (!ball || !columns) return ball;
    const Index width = ball->centre.size();
    runs(columns, width);  // throws unless the mask fits
    const auto* seen = static_cast<const unsigned char*>(static_cast<const py::array&>(*columns).data());
    std::vector<Index> chosen;
    for (Index j = 0; j < width; ++j)
        if (seen[j]) chosen.push_back(j);
    return std::make_shared<const Ball>(Ball{ball->centre(chosen), ball->radius});
}

}  // namespace

PyObjective::PyObjective(const py::list& blocks, const Loss& loss, const VectorRef& penalty,
                         bool fit_intercept, const Columns& columns, std::optional<double> largest_norm,
                         Vector noise, bool canonical, const Shift& shift, const std::shared_ptr<Ball>& ball,
                         Index outputs)
    : objective([&] {
          std::vector<Block> views;
          for (const auto& item : blocks) {
              const auto block = item.cast<py::tuple>();
              owners.append(block);
              RowsView X = rows(block[0], columns, owners, canonical, shift);
              const Index n = X.rows();
              views.push_back({std::move(X), column(block[1], "y", n), column(block[2], "sample_weight", n)});
          }
          return Objective(std::move(views), loss, penalty, fit_intercept,
                           largest_norm.value_or(std::numeric_limits<double>::infinity()), std::move(noise),
                           over(ball, columns), outputs);
      }()),
      canonical(canonical) {}

namespace {

// `gradient_difference` of a few rows takes less time than expunge._arrays takes to look at its arguments. So
// what needs neither conversion nor an error message is recognised here; of all else `None` comes back, and
// _arrays decides.

// Whether an array is NumPy's own and has that layout of C++: nothing of it needs to be converted.
template <class T>
bool is_plain(const py::handle& values, py::ssize_t dimensions) {
    static const PyTypeObject* const type = Py_TYPE(py::array().ptr());
    if (Py_TYPE(values.ptr()) != type) return false;
    const auto array = py::reinterpret_borrow<py::array>(values);
    return holds<T>(array) && array.ndim() == dimensions &&
           (array.flags() & (py::array::c_style | py::array::f_style)) &&
           reinterpret_cast<std::uintptr_t>(array.data()) % alignof(T) == 0;
}

// Sets `blocks` to (X, y) or (X, y, s) if all of that is plain and in its domain; entries of X are not looked
// at.
bool plain_block(const py::tuple& side, const Loss& loss, std::vector<Block>& blocks) {
    if (side.size() != 2 && side.size() != 3) return false;
    const py::handle X = side[0], y = side[1], s = side.size() == 3 ? py::handle(side[2]) : py::none();
    if (!is_plain<double>(X, 2) && !is_plain<float>(X, 2)) return false;
    Block& block = blocks.emplace_back(dense_rows(py::reinterpret_borrow<py::array>(X), std::nullopt));
    const Index n = block.rows.rows();
    const auto plain = [&](const py::handle& values, const double*& data) {
        if (!is_plain<double>(values, 1)) return false;
        const auto array = py::reinterpret_borrow<py::array>(values);
        data = static_cast<const double*>(array.data());
        return array.size() == n;
    };
    return plain(y, block.y) && kernels().are_targets(key(loss), n, block.y) &&
           (s.is_none() || (plain(s, block.s) && kernels().are_weights(n, block.s)));
}

// Raises unless the indices of a CSR matrix lie within it; returns whether every row ascends without
// duplicates.
bool is_canonical(const py::object& X) {
    const Csr csr(X);
    const RowsView rows = csr.rows(std::nullopt, false);
    py::gil_scoped_release nogil;
    return rows.is_canonical();
}

bool all_finite(const double* values, Index n) { return kernels().all_finite(n, values, Scalar::float64); }

}  // namespace

void bind_objective(py::module_& m) {
    py::class_<Evaluation>(m, "Evaluation", py::module_local(), py::is_final())
        .def(py::init([](double value, const Array& gradient) {
                 return Evaluation{value, vector(gradient, "gradient", gradient.size()), Vector()};
             }),
             py::arg("value"), py::arg("gradient").noconvert())
        .def_readonly("value", &Evaluation::value)
        .def_property_readonly("gradient", [](const Evaluation& at) { return to_numpy(at.gradient); })
        .def_readonly("floor", &Evaluation::floor)
        .def_property_readonly("residual", &Evaluation::residual);

    py::class_<Ball, std::shared_ptr<Ball>>(m, "Ball", py::module_local(), py::is_final())
        .def(py::init([](const Array& centre, double radius) {
                 return Ball{vector(centre, "centre", centre.size()), radius};
             }),
             py::arg("centre").noconvert(), py::arg("radius") = 0.0)
        // The same, so large that these rows lie in it, and their largest norm.
        .def(
            "around",
            [](const std::shared_ptr<Ball>& ball, const py::object& X, const Shift& shift,
               const Columns& columns) {
                py::list owners;
                const RowsView view = rows(X, columns, owners, true, shift);
                const auto seen = over(ball, columns);
                py::gil_scoped_release nogil;
                const auto [about_m, about_0] =
                    view.largest_norms2(Vector::Ones(view.columns()), seen->centre, nullptr);
                return std::pair(Ball{ball->centre, std::max(ball->radius, furthest(about_m))},
                                 std::sqrt(about_0));
            },
            py::arg("X"), py::arg("shift").noconvert() = py::none(),
            py::arg("columns").noconvert() = py::none())
        .def_property_readonly("centre", [](const Ball& ball) { return to_numpy(ball.centre); })
        .def_readonly("radius", &Ball::radius);

    py::class_<PyObjective>(m, "Objective", py::module_local(), py::is_final())
        .def(py::init([](const py::list& blocks, const std::string& loss, const Array& penalty,
                         bool fit_intercept, const Columns& columns, std::optional<double> largest_norm,
                         const std::optional<Array>& noise, bool canonical, const Shift& shift,
                         const std::shared_ptr<Ball>& ball, Index outputs) {
                 const Index p = penalty.size();
                 return std::make_unique<PyObjective>(
                     blocks, loss_of(loss, outputs), vector(penalty, "penalty", p), fit_intercept, columns,
                     largest_norm, noise ? Vector(vector(*noise, "noise", p)) : Vector(), canonical, shift,
                     ball, outputs);
             }),
             py::arg("blocks"), py::arg("loss"), py::arg("penalty").noconvert(), py::arg("fit_intercept"),
             py::arg("columns").noconvert() = py::none(), py::arg("largest_norm") = py::none(),
             py::arg("noise").noconvert() = py::none(), py::arg("canonical") = true,
             py::arg("shift").noconvert() = py::none(), py::arg("ball") = py::none(), py::arg("outputs") = 1)
        .def(
            "evaluate",
            [](const PyObjective& J, const Array& theta) {
                const auto at = J.parameter(theta, "theta");
                py::gil_scoped_release nogil;
                return J.unlooked().evaluate(at);
            },
            py::arg("theta").noconvert())
        .def(
            "evaluate_with_hessian",
            [](const PyObjective& J, const Array& theta) {
                const auto from = J.parameter(theta, "theta");
                Evaluation at;
                Matrix H;
                {
                    py::gil_scoped_release nogil;
                    double largest_norm = J.core().largest_norm();
                    at = J.core().evaluate(from, largest_norm, H);
                }
                return py::make_tuple(std::move(at), to_numpy_symmetric(H));
            },
            py::arg("theta").noconvert())
        .def(
            "hessian",
            [](const PyObjective& J, const Array& theta) {
                const auto at = J.parameter(theta, "theta");
                Matrix H;
                {
                    py::gil_scoped_release nogil;
                    H = J.core().hessian(at);
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
                    product = J.unlooked().hvp_at(at, direction);
                }
                return to_numpy(product);
            },
            py::arg("theta").noconvert(), py::arg("v").noconvert())
        .def(
            "curvature",
            [](const PyObjective& J, const Array& theta) {
                const auto at = J.parameter(theta, "theta");
                Vector curvature;
                {
                    py::gil_scoped_release nogil;
                    curvature = J.core().curvature(at);
                }
                return to_numpy(curvature);
            },
            py::arg("theta").noconvert())
        .def(
            "kink_gap",
            [](const PyObjective& J, const Array& theta) {
                const Vector at = J.parameter(theta, "theta");
                py::gil_scoped_release nogil;
                return J.core().kink_gap(at);
            },
            py::arg("theta").noconvert())
        .def("gram_norm_bound",
             [](const PyObjective& J) {
                 py::gil_scoped_release nogil;
                 return J.core().gram_norm_bound();
             })
        .def_property_readonly("anchor_cost",
                               [](const PyObjective& J) { return anchor_cost(J.core(), all_coordinates); })
        .def_property_readonly("quadratic", [](const PyObjective& J) { return is_quadratic(J.core()); })
        .def_property_readonly("outputs", [](const PyObjective& J) { return J.unlooked().outputs(); })
        .def_property_readonly("parameters", [](const PyObjective& J) { return J.unlooked().parameters(); })
        .def(
            "predict",
            [](const PyObjective& J, const Array& theta) {
                const auto at = J.parameter(theta, "theta");
                Vector predicted;
                {
                    py::gil_scoped_release nogil;
                    predicted = J.core().predict(at);
                }
                return to_numpy(predicted);
            },
            py::arg("theta").noconvert())
        .def_property_readonly("rows", [](const PyObjective& J) { return J.unlooked().rows(); })
        .def_property_readonly("entries", [](const PyObjective& J) { return J.unlooked().entries(); })
        .def(
            "rounding_floor",
            [](const PyObjective& J, const Array& theta) {
                const auto at = J.parameter(theta, "theta");
                py::gil_scoped_release nogil;
                return J.core().rounding_floor(at);
            },
            py::arg("theta").noconvert())
        // The largest norm of a row of positive weight, and how far one is from the centre of the ball, if
        // any.
        .def("lengths",
             [](const PyObjective& J) {
                 py::gil_scoped_release nogil;
                 const Objective& core = J.core();
                 const Index d = core.parameters() / core.outputs() - (core.fit_intercept() ? 1 : 0);
                 const Vector centre = core.ball() ? core.ball()->centre : Vector::Zero(d);
                 const auto [about_m, about_0] = core.largest_norms2(Vector::Ones(d), centre);
                 return std::pair(furthest(about_0), furthest(about_m));
             })
        .def(
            "distance",
            [](const PyObjective& J, const Array& theta, const Evaluation& at, double floor,
               double largest_norm, bool measured) {
                const auto here = J.parameter(theta, "theta");
                py::gil_scoped_release nogil;
                return distance_by_penalty(J.core(), largest_norm, here, at, floor, measured);
            },
            py::arg("theta").noconvert(), py::arg("at"), py::arg("floor"), py::arg("largest_norm"),
            py::arg("measured") = false);

    m.def(
        "difference",
        [](const PyObjective* before, const PyObjective* after, const Array& theta) {
            const auto at = vector(theta, "theta", theta.size());
            for (const PyObjective* side : {before, after})
                if (side) side->parameter(theta, "theta");
            py::gil_scoped_release nogil;
            return Objective::difference(before ? &before->core() : nullptr, after ? &after->core() : nullptr,
                                         at);
        },
        py::arg("before").none(true), py::arg("after").none(true), py::arg("theta").noconvert());

    m.def(
        "gradient_difference",
        [](const py::object& before, const py::object& after, const py::object& theta,
           const std::string& loss_name, bool fit_intercept) -> std::optional<Array> {
            if (!is_plain<double>(theta, 1)) return {};
            const Loss loss = loss_named(loss_name);
            const auto at = py::reinterpret_borrow<Array>(theta);
            const Eigen::Map<const Vector> coef(at.data(), at.size());
            if (!all_finite(at.data(), at.size())) return {};
            std::optional<Objective> sides[2];
            for (const auto& [side, J] : {std::pair(before, &sides[0]), std::pair(after, &sides[1])}) {
                if (side.is_none()) continue;
                std::vector<Block> blocks;
                if (!py::isinstance<py::tuple>(side) || !plain_block(side, loss, blocks)) return {};
                const Index d = blocks[0].rows.columns();
                if (d + fit_intercept != at.size()) return {};
                J->emplace(std::move(blocks), loss, Vector::Zero(at.size()), fit_intercept);
            }
            Array difference(at.size());
            {
                py::gil_scoped_release nogil;
                Eigen::Map<Vector> g(difference.mutable_data(), at.size());
                g = Objective::gradient_difference(sides[0] ? &*sides[0] : nullptr,
                                                   sides[1] ? &*sides[1] : nullptr, coef);
            }
            if (!all_finite(difference.data(), at.size())) return {};
            return difference;
        },
        py::arg("before"), py::arg("after"), py::arg("theta"), py::arg("loss"), py::arg("fit_intercept"));

    m.def(
        "gram",
        [](const py::object& X, const Array& w) {
            py::list owners;
            const RowsView view = rows(X, std::nullopt, owners);
            const auto weights = vector(w, "w", view.rows());
            const Index d = view.columns();
            Array gram({d, d});
            Eigen::Map<Matrix> H(gram.mutable_data(), d, d);
            {
                py::gil_scoped_release nogil;
                H.setZero();
                view.add_gram(weights.data(), H);
                kernels().symmetric_of_lower(d, H.data(), H.data());
            }
            return gram;
        },
        py::arg("X"), py::arg("w").noconvert());

    m.def(
        "is_finite",
        [](const py::array& values) {
            if (!(values.flags() & (py::array::c_style | py::array::f_style)))
                throw std::invalid_argument("values must be contiguous");
            require_aligned(values, "values");
            const Index n = values.size();
            const void* data = values.data();
            const bool single = holds<float>(values);
            if (!single && !holds<double>(values)) throw py::type_error("values must be float64 or float32");
            py::gil_scoped_release nogil;
            return kernels().all_finite(n, data, single ? Scalar::float32 : Scalar::float64);
        },
        py::arg("values"));

    m.def(
        "largest_norm",
        [](const py::object& X, const Shift& shift, const Columns& columns) {
            py::list owners;
            const RowsView view = rows(X, columns, owners, true, shift);
            py::gil_scoped_release nogil;
            return view.largest_norm();
        },
        py::arg("X"), py::arg("shift").noconvert() = py::none(), py::arg("columns").noconvert() = py::none());

    m.def(
        "rows_with_values",
        [](const py::object& X, const std::vector<Index>& columns) {
            const Csr csr(X);
            for (const Index j : columns)
                if (j < 0 || j >= csr.width) throw std::out_of_range("a column is outside of X");
            py::array_t<bool> found(csr.n);
            bool* marks = found.mutable_data();
            const RowsView rows = csr.rows(std::nullopt, true);
            Index entries;
            {
                py::gil_scoped_release nogil;
                entries = rows.find_rows(columns, marks);
            }
            return py::make_tuple(found, entries);
        },
        py::arg("X"), py::arg("columns"));

    m.def("is_canonical", &is_canonical, py::arg("X"));
}

}  // namespace expunge::bindings
