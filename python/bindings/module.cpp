#include <exception>

#include "bind.hpp"
#include "expunge/errors.hpp"

namespace py = pybind11;

// One source, one module for each instruction set; expunge._core imports the best that runs here.
PYBIND11_MODULE(EXPUNGE_MODULE, m) {
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
    bind_ledger(m);
    bind_noise(m);
}
