#include <algorithm>
#include <memory>

#include "bind.hpp"
#include "expunge/register.hpp"
#include "expunge/statistics.hpp"
#include "expunge/stream.hpp"
#include "expunge/touched.hpp"
#include "objective.hpp"

namespace expunge::bindings {

namespace {

using Numbers = py::array_t<std::int64_t, py::array::c_style>;
static_assert(sizeof(Index) == sizeof(std::int64_t));

RowRegister::RowNumbers numbers(const Numbers& rows) {
    if (rows.ndim() != 1) throw std::invalid_argument("rows must have one dimension");
    require_aligned(rows, "rows");
    return {reinterpret_cast<const Index*>(rows.data()), static_cast<std::size_t>(rows.size())};
}

Eigen::Map<const Vector> flat(const Array& a, const char* name) { return vector(a, name, a.size()); }

// What is in a list, the fastest for few numbers, or in an array.
std::vector<Index> indices_in(const py::object& rows) {
    if (py::isinstance<py::list>(rows)) return rows.cast<std::vector<Index>>();
    const auto given = numbers(rows.cast<Numbers>());
    return {given.begin(), given.end()};
}

std::vector<double> doubles_in(const py::object& values) {
    if (py::isinstance<py::list>(values)) return values.cast<std::vector<double>>();
    const auto array = values.cast<Array>();
    const auto given = flat(array, "targets");
    return {given.begin(), given.end()};
}

Numbers to_numpy(const std::vector<Index>& values) {
    return Numbers(static_cast<py::ssize_t>(values.size()),
                   reinterpret_cast<const std::int64_t*>(values.data()));
}

// A view that keeps the memory, which a register that grows leaves behind.
py::array view(const std::shared_ptr<double[]>& memory, Index size) {
    auto* held = new std::shared_ptr<double[]>(memory);
    const py::capsule owner(held, [](void* p) { delete static_cast<std::shared_ptr<double[]>*>(p); });
    py::array_t<double> values(size, memory.get(), owner);
    values.attr("flags").attr("writeable") = false;
    return values;
}

py::tuple views(const WeightedTargets& stored) {
    return py::make_tuple(view(stored.targets(), stored.size()), view(stored.weights(), stored.size()));
}

// The core's TouchedRows with all that they look into kept alive.
class PyTouchedRows {
public:
    // X and the overlay's rows, of which those in `columns` are seen, less the shift. `take(places)` copies
    // rows together that do not lie together.
    PyTouchedRows(RowRegister& row_register, const py::object& X, const py::object& overlay,
                  const py::object& take, const Columns& columns, const Shift& shift)
        : rows_(row_register,
                {[&] { return seen(X, columns, shift); }, [&] { return seen(overlay(), columns, shift); },
                 [&](const std::vector<Index>& places) {
                     return seen(take(to_numpy(places)), columns, shift);
                 }}) {}
    const TouchedRows& core() const { return rows_; }

private:
    RowsView seen(const py::object& X, const Columns& columns, const Shift& shift) {
        return rows(X, columns, owners_, true, shift);
    }

    py::list owners_;
    TouchedRows rows_;
};

// The base and the overlay, each as one view that is made once.
class StoredOnce {
public:
    StoredOnce(const py::object& X, const py::object& overlay, const py::object& take, const Columns& columns,
               const Shift& shift)
        : stored{[&] { return seen(base_, [&] { return X; }, columns, shift); },
                 [&] { return seen(overlay_, [&] { return overlay(); }, columns, shift); },
                 [&](const std::vector<Index>& places) {
                     const py::gil_scoped_acquire gil;
                     return rows(take(to_numpy(places)), columns, owners_, true, shift);
                 }} {}
    ~StoredOnce() = default;
    StoredOnce(const StoredOnce&) = delete;

    const StoredRows stored;

private:
    template <class X>
    RowsView seen(std::optional<RowsView>& view, X&& of, const Columns& columns, const Shift& shift) {
        if (!view) {
            const py::gil_scoped_acquire gil;
            view = rows(of(), columns, owners_, true, shift);
        }
        return *view;
    }

    py::list owners_;
    std::optional<RowsView> base_, overlay_;
};

// Throws unless the requests' rows follow each other to the last of `rows`.
void require_ends(const std::vector<Index>& ends, Index rows) {
    Index last = 0;
    for (const Index end : ends) {
        if (end <= last || end > rows) throw std::invalid_argument("ends must ascend, to the number of rows");
        last = end;
    }
    if (last != rows) throw std::invalid_argument("ends must ascend, to the number of rows");
}

// Rows side by side, (m, p).
// (3, m): of each request the bounds, and how many rows it edited.
Array figures_of(const Stream& stream) {
    Array figures({Index(3), stream.size()});
    double* to = figures.mutable_data();
    to = std::copy(stream.bounds.begin(), stream.bounds.end(), to);
    to = std::copy(stream.distances.begin(), stream.distances.end(), to);
    std::transform(stream.touched.begin(), stream.touched.end(), to,
                   [](Index rows) { return static_cast<double>(rows); });
    return figures;
}

py::object stacked(const std::vector<Vector>& thetas, Index p) {
    Array all({static_cast<Index>(thetas.size()), p});
    double* to = all.mutable_data();
    for (const Vector& theta : thetas) to = std::copy_n(theta.data(), p, to);
    return all;
}

// Whether a signal handler raised an error, which becomes `error`.
bool interrupted(py::object& error) {
    const py::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() == 0) return false;
    error = py::error_already_set().value();
    return true;
}

const Objective* pointer(const std::optional<Objective>& objective) {
    return objective ? &*objective : nullptr;
}

}  // namespace

void bind_register(py::module_& m) {
    py::class_<PyTouchedRows>(m, "TouchedRows", py::module_local(), py::is_final())
        .def_property_readonly("any", [](const PyTouchedRows& touched) { return touched.core().any(); })
        .def_property_readonly("any_before",
                               [](const PyTouchedRows& touched) { return touched.core().any_before(); })
        .def(
            "edit",
            [](const PyTouchedRows& touched, const AnchoredStatistics& statistics, const Array& theta) {
                const auto& s = statistics.state();
                const auto here = vector(theta, "theta", s.penalty.size());
                py::gil_scoped_release nogil;
                const auto before = touched.core().before(s.loss, s.fit_intercept, s.outputs),
                           after = touched.core().after(s.loss, s.fit_intercept, s.outputs);
                return statistics.edit(pointer(before), pointer(after), here);
            },
            py::arg("statistics"), py::arg("theta").noconvert())
        .def(
            "objectives",
            [](const py::object& self, const std::string& loss, bool fit_intercept, Index outputs) {
                const auto& touched = self.cast<const PyTouchedRows&>().core();
                const auto wrapped = [&](std::optional<Objective> objective) {
                    py::list owners;
                    owners.append(self);
                    return objective ? std::make_unique<PyObjective>(owners, std::move(*objective)) : nullptr;
                };
                const Loss chosen = loss_of(loss, outputs);
                return std::pair(wrapped(touched.before(chosen, fit_intercept, outputs)),
                                 wrapped(touched.after(chosen, fit_intercept, outputs)));
            },
            py::arg("loss"), py::arg("fit_intercept"), py::arg("outputs") = 1)
        .def(
            "gained_norm",
            [](const PyTouchedRows& touched, bool fit_intercept) {
                return touched.core().gained_norm(fit_intercept);
            },
            py::arg("fit_intercept"), py::call_guard<py::gil_scoped_release>());

    py::class_<RowRegister>(m, "RowRegister", py::module_local(), py::is_final())
        .def(py::init([](const Array& y, const Array& s, Index classes, const std::optional<Numbers>& rows,
                         std::optional<Index> count) {
                 const auto targets = flat(y, "y");
                 const auto weights = vector(s, "s", targets.size());
                 if (!rows) return RowRegister(targets, weights, classes);
                 return RowRegister(targets, weights, classes, numbers(*rows),
                                    count.value_or(targets.size()));
             }),
             py::arg("y").noconvert(), py::arg("s").noconvert(), py::arg("classes"),
             py::arg("rows") = py::none(), py::arg("count") = py::none())
        .def("begin", &RowRegister::begin)
        .def("rollback", &RowRegister::rollback)
        .def(
            "require",
            [](const RowRegister& row_register, const Numbers& rows) { row_register.require(numbers(rows)); },
            py::arg("rows").noconvert())
        .def(
            "remove",
            [](RowRegister& row_register, const Numbers& rows) { row_register.remove(numbers(rows)); },
            py::arg("rows").noconvert())
        .def(
            "set_targets",
            [](RowRegister& row_register, const Numbers& rows, const Array& y,
               const std::optional<Array>& s) {
                if (s)
                    row_register.set_targets(numbers(rows), flat(y, "y"), vector(*s, "s", y.size()));
                else
                    row_register.set_targets(numbers(rows), flat(y, "y"));
            },
            py::arg("rows").noconvert(), py::arg("y").noconvert(), py::arg("s").noconvert() = py::none())
        .def(
            "relocate",
            [](RowRegister& row_register, const Numbers& rows) { row_register.relocate(numbers(rows)); },
            py::arg("rows").noconvert())
        .def(
            "add",
            [](RowRegister& row_register, const Array& y, const Array& s) {
                row_register.add(flat(y, "y"), flat(s, "s"));
            },
            py::arg("y").noconvert(), py::arg("s").noconvert())
        .def(
            "change",
            [](RowRegister& row_register, const py::object& X, const py::object& overlay,
               const py::object& take, const Columns& columns, const Shift& shift) {
                return std::make_unique<PyTouchedRows>(row_register, X, overlay, take, columns, shift);
            },
            py::arg("X"), py::arg("overlay"), py::arg("take"), py::arg("columns").noconvert(),
            py::arg("shift").noconvert() = py::none())
        .def(
            "stream",
            [](RowRegister& row_register, const py::object& X, const py::object& overlay,
               const py::object& take, const Columns& columns, const Shift& shift,
               const AnchoredStatistics& statistics, const Array& theta, double residual, double distance,
               const py::object& rows, const py::object& targets, std::vector<Index> ends, bool keep_thetas,
               const py::object& weights) {
                const auto changed = weights.is_none() ? std::vector<double>() : doubles_in(weights);
                const RowRequests requests{indices_in(rows), doubles_in(targets), std::move(ends), changed};
                const auto count = static_cast<Index>(requests.rows.size());
                require_size("targets", static_cast<Index>(requests.targets.size()), count);
                if (!weights.is_none()) require_size("weights", static_cast<Index>(changed.size()), count);
                require_ends(requests.ends, count);
                const StoredOnce once(X, overlay, take, columns, shift);
                Stream stream(row_register, once.stored, statistics,
                              vector(theta, "theta", statistics.state().penalty.size()));
                py::object error = py::none();
                {
                    const py::gil_scoped_release nogil;
                    stream.run(requests, {residual, distance}, keep_thetas,
                               [&] { return stream.size() % 64 != 0 || !interrupted(error); });
                }
                return py::make_tuple(figures_of(stream),
                                      keep_thetas ? stacked(stream.thetas, stream.theta.size()) : py::none(),
                                      std::move(stream.statistics), bindings::to_numpy(stream.theta),
                                      std::move(stream.difference), error);
            },
            py::arg("X"), py::arg("overlay"), py::arg("take"), py::arg("columns").noconvert(),
            py::arg("shift").noconvert(), py::arg("statistics"), py::arg("theta").noconvert(),
            py::arg("residual"), py::arg("distance"), py::arg("rows"), py::arg("targets"), py::arg("ends"),
            py::arg("keep_thetas"), py::arg("weights") = py::none())
        .def("touched", [](const RowRegister& row_register) { return to_numpy(row_register.touched()); })
        .def("compacted",
             [](const RowRegister& row_register) {
                 auto [smaller, places] = row_register.compacted();
                 return py::make_tuple(std::move(smaller), to_numpy(places));
             })
        .def("without_class", &RowRegister::without_class, py::arg("number"))
        .def("live", [](const RowRegister& row_register) { return to_numpy(row_register.live()); })
        .def(
            "of",
            [](const RowRegister& row_register, const Numbers& rows) {
                const RowRegister::Side side = row_register.of(numbers(rows));
                return py::make_tuple(to_numpy(side.places), bindings::to_numpy(side.y),
                                      bindings::to_numpy(side.s));
            },
            py::arg("rows").noconvert())
        .def_property_readonly("row_count", &RowRegister::row_count)
        .def_property_readonly("edited_rows", &RowRegister::edited_rows)
        .def_property_readonly("weighted_rows", &RowRegister::weighted_rows)
        .def_property_readonly("abandoned_places", &RowRegister::abandoned_places)
        .def_property_readonly("wants_compaction", &RowRegister::wants_compaction)
        .def_property_readonly(
            "counts", [](const RowRegister& row_register) { return to_numpy(row_register.counts()); })
        .def_property_readonly("base",
                               [](const RowRegister& row_register) { return views(row_register.base()); })
        .def_property_readonly("overlay",
                               [](const RowRegister& row_register) { return views(row_register.overlay()); });
}

}  // namespace expunge::bindings
