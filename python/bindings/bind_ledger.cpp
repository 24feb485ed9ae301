#include <cstring>
#include <memory>

#include "arrays.hpp"
#include "bind.hpp"
#include "expunge/ledger.hpp"

namespace expunge::bindings {

namespace {

using Numbers = py::array_t<std::int64_t, py::array::c_style>;
static_assert(sizeof(Index) == sizeof(std::int64_t));

// Row numbers, all of them given out before: what else the core is told it trusts.
Ledger::Numbers numbers(const Numbers& rows, Index count) {
    if (rows.ndim() != 1) throw std::invalid_argument("rows must have one dimension");
    const auto* first = reinterpret_cast<const Index*>(rows.data());
    for (py::ssize_t i = 0; i < rows.size(); ++i)
        if (first[i] < 0 || first[i] >= count) throw std::out_of_range("a row number was never given out");
    return {first, static_cast<std::size_t>(rows.size())};
}

Eigen::Map<const Vector> flat(const Array& a, const char* name) { return vector(a, name, a.size()); }

Numbers to_numpy(const std::vector<Index>& values) {
    return Numbers(static_cast<py::ssize_t>(values.size()),
                   reinterpret_cast<const std::int64_t*>(values.data()));
}

// A view that keeps the memory, which a ledger that grows leaves behind.
py::array view(const std::shared_ptr<double[]>& memory, Index size) {
    auto* held = new std::shared_ptr<double[]>(memory);
    const py::capsule owner(held, [](void* p) { delete static_cast<std::shared_ptr<double[]>*>(p); });
    py::array_t<double> values(size, memory.get(), owner);
    values.attr("flags").attr("writeable") = false;
    return std::move(values);
}

py::tuple views(const WeightedTargets& stored) {
    return py::make_tuple(view(stored.targets(), stored.size()), view(stored.weights(), stored.size()));
}

// Places, one behind the other: the first of them; else all.
py::object to_python(const std::vector<Index>& places) {
    bool together = true;
    for (std::size_t i = 1; together && i < places.size(); ++i) together = places[i] == places[i - 1] + 1;
    if (together) return py::int_(places.front());
    return to_numpy(places);
}

// None without rows.
py::object to_python(const Ledger::Side& side) {
    if (side.places.empty()) return py::none();
    return py::make_tuple(to_python(side.places), bindings::to_numpy(side.y), bindings::to_numpy(side.s));
}

}  // namespace

void bind_ledger(py::module_& m) {
    py::class_<Ledger>(m, "Ledger", py::module_local())
        .def(py::init([](const Array& y, const Array& s, bool classes, const std::optional<Numbers>& rows,
                         std::optional<Index> count) {
                 const auto targets = flat(y, "y");
                 const auto weights = vector(s, "s", targets.size());
                 if (!rows) return Ledger(targets, weights, classes);
                 const Index given_out = count.value_or(targets.size());
                 if (rows->size() != targets.size()) throw std::invalid_argument("rows must be as many as y");
                 return Ledger(targets, weights, classes, numbers(*rows, given_out), given_out);
             }),
             py::arg("y").noconvert(), py::arg("s").noconvert(), py::arg("classes"),
             py::arg("rows") = py::none(), py::arg("count") = py::none())
        .def("begin", &Ledger::begin)
        .def("rollback", &Ledger::rollback)
        .def(
            "require",
            [](const Ledger& ledger, const Numbers& rows) {
                ledger.require(numbers(rows, ledger.numbers()));
            },
            py::arg("rows").noconvert())
        .def(
            "remove",
            [](Ledger& ledger, const Numbers& rows) { ledger.remove(numbers(rows, ledger.numbers())); },
            py::arg("rows").noconvert())
        .def(
            "set_targets",
            [](Ledger& ledger, const Numbers& rows, const Array& y) {
                ledger.set_targets(numbers(rows, ledger.numbers()), flat(y, "y"));
            },
            py::arg("rows").noconvert(), py::arg("y").noconvert())
        .def(
            "relocate",
            [](Ledger& ledger, const Numbers& rows) { ledger.relocate(numbers(rows, ledger.numbers())); },
            py::arg("rows").noconvert())
        .def(
            "add",
            [](Ledger& ledger, const Array& y, const Array& s) { ledger.add(flat(y, "y"), flat(s, "s")); },
            py::arg("y").noconvert(), py::arg("s").noconvert())
        .def("change",
             [](Ledger& ledger) {
                 const Ledger::Change change = ledger.change();
                 return py::make_tuple(to_python(change.before), to_python(change.after),
                                       to_python(change.joined), change.moved);
             })
        .def("touched", [](const Ledger& ledger) { return to_numpy(ledger.touched()); })
        .def("compacted",
             [](const Ledger& ledger) {
                 auto [smaller, places] = ledger.compacted();
                 return py::make_tuple(std::move(smaller), to_numpy(places));
             })
        .def("live", [](const Ledger& ledger) { return to_numpy(ledger.live()); })
        .def(
            "places",
            [](const Ledger& ledger, const Numbers& rows) {
                Numbers places(rows.size());
                Index* to = reinterpret_cast<Index*>(places.mutable_data());
                for (const Index row : numbers(rows, ledger.numbers())) *to++ = ledger.place(row);
                return places;
            },
            py::arg("rows").noconvert())
        .def_property_readonly("numbers", &Ledger::numbers)
        .def_property_readonly("edits", &Ledger::edits)
        .def_property_readonly("weighty", &Ledger::weighty)
        .def_property_readonly("abandoned", &Ledger::abandoned)
        .def_property_readonly("counts", &Ledger::counts)
        .def_property_readonly("base", [](const Ledger& ledger) { return views(ledger.base()); })
        .def_property_readonly("overlay", [](const Ledger& ledger) { return views(ledger.overlay()); });
}

}  // namespace expunge::bindings
