#include <exception>

#include "bind.hpp"
#include "expunge/errors.hpp"

namespace py = pybind11;

namespace {

// An object that no constructor made, as Type.__new__(Type) makes them, is memory that nothing was written
// to. Python refuses that for types which make theirs otherwise than their base does.
void only_constructed(const py::module_& m) {
    static newfunc make = nullptr;
    for (const auto& [name, value] : m.attr("__dict__").cast<py::dict>()) {
        if (!PyType_Check(value.ptr()) || PyExceptionClass_Check(value.ptr())) continue;
        auto* type = reinterpret_cast<PyTypeObject*>(value.ptr());
        make = type->tp_new;
        type->tp_new = [](PyTypeObject* of, PyObject* given, PyObject* named) {
            return make(of, given, named);
        };
        PyType_Modified(type);
    }
}

}  // namespace

// The core without the kernels, which expunge._core hands it.
PYBIND11_MODULE(_native, m) {
    using namespace expunge::bindings;
    py::register_local_exception_translator([](std::exception_ptr p) {
        try {
            if (p) std::rethrow_exception(p);
        } catch (const expunge::NotPositiveDefinite& e) {
            PyErr_SetString(py::module_::import("expunge.errors").attr("NotPositiveDefiniteError").ptr(),
                            e.what());
        }
    });
    py::register_local_exception<expunge::NotCanonical>(m, "NotCanonical");
    bind_build(m);
    bind_cholesky(m);
    bind_objective(m);
    bind_newton(m);
    bind_statistics(m);
    bind_register(m);
    bind_noise(m);
    only_constructed(m);
}
