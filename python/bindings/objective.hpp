#pragma once
#include <string>

#include "arrays.hpp"

namespace expunge::bindings {

using Columns = std::optional<py::array_t<std::int64_t, py::array::c_style>>;

// The core's Objective with the arrays it looks into kept alive.
struct PyObjective {
    PyObjective(const py::list& blocks, const std::string& loss, const Array& penalty, bool fit_intercept,
                const Columns& columns);

    Eigen::Map<const Vector> parameter(const Array& a, const char* name) const {
        return vector(a, name, core.parameters());
    }

    py::object owners;
    Objective core;
};

}  // namespace expunge::bindings
