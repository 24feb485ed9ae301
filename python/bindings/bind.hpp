#pragma once
#include <pybind11/pybind11.h>

namespace expunge::bindings {

void bind_build(pybind11::module_& m);
void bind_cholesky(pybind11::module_& m);
void bind_objective(pybind11::module_& m);
void bind_register(pybind11::module_& m);
void bind_newton(pybind11::module_& m);
void bind_noise(pybind11::module_& m);
void bind_statistics(pybind11::module_& m);

}  // namespace expunge::bindings
