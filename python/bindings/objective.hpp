#pragma once
#include "arrays.hpp"

namespace expunge::bindings {

// The core's Objective with the arrays it looks into kept alive.
struct PyObjective {
    PyObjective(const py::list& blocks, const Loss& loss, const VectorRef& penalty, bool fit_intercept,
                const Columns& columns, std::optional<double> largest_norm = std::nullopt,
                Vector noise = Vector(), bool canonical = true);
    PyObjective(py::list owners, Objective core) : owners(std::move(owners)), core(std::move(core)) {}

    Eigen::Map<const Vector> parameter(const Array& a, const char* name) const {
        return vector(a, name, core.parameters());
    }

    py::list owners;
    Objective core;
};

}  // namespace expunge::bindings
