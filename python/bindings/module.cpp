#include <exception>
#include <new>
#include <stdexcept>

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

// As pybind11 does, whose own translators belong to the first of its modules in the process: where each has a
// copy of the C++ library, as in wheels linked with libc++, these do not know what another throws.
void translate(std::exception_ptr thrown) {
    try {
        if (thrown) std::rethrow_exception(thrown);
    } catch (const expunge::NotPositiveDefinite& e) {
        PyErr_SetString(py::module_::import("expunge.errors").attr("NotPositiveDefiniteError").ptr(),
                        e.what());
    } catch (const py::builtin_exception& e) {
        e.set_error();
    } catch (const std::bad_alloc& e) {
        PyErr_SetString(PyExc_MemoryError, e.what());
    } catch (const std::invalid_argument& e) {
        PyErr_SetString(PyExc_ValueError, e.what());
    } catch (const std::length_error& e) {
        PyErr_SetString(PyExc_ValueError, e.what());
    } catch (const std::domain_error& e) {
        PyErr_SetString(PyExc_ValueError, e.what());
    } catch (const std::overflow_error& e) {
        PyErr_SetString(PyExc_OverflowError, e.what());
    } catch (const std::out_of_range& e) {
        PyErr_SetString(PyExc_IndexError, e.what());
    } catch (const std::exception& e) {
        PyErr_SetString(PyExc_RuntimeError, e.what());
    }
}

}  // namespace

// The core without the kernels, which expunge._core hands it.
PYBIND11_MODULE(_native, m) {
    using namespace expunge::bindings;
    py::register_local_exception_translator(translate);
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
