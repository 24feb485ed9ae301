#pragma once
#include <string>

#include "arrays.hpp"

namespace expunge::bindings {

// By its name; that of several outputs is "softmax".
inline Loss loss_of(const std::string& name, Index outputs) {
    if ((name == "softmax") != (outputs > 1))
        throw std::invalid_argument("softmax is the loss of more than one output");
    return outputs > 1 ? Loss(Logistic()) : loss_named(name);
}

// The core's Objective with the arrays it looks into kept alive.
struct PyObjective {
    PyObjective(const py::list& blocks, const Loss& loss, const VectorRef& penalty, bool fit_intercept,
                const Columns& columns, std::optional<double> largest_norm = std::nullopt,
                Vector noise = Vector(), bool canonical = true, const Shift& shift = std::nullopt,
                const std::shared_ptr<Ball>& ball = nullptr, Index outputs = 1);
    PyObjective(py::list owners, Objective core) : owners(std::move(owners)), objective(std::move(core)) {}

    const Objective& core() const {
        if (!canonical) throw std::logic_error("the indices of X have not been looked at");
        return objective;
    }
    // For what looks at indices itself: Objective::evaluate and hvp_at.
    const Objective& unlooked() const { return objective; }

    Eigen::Map<const Vector> parameter(const Array& a, const char* name) const {
        return vector(a, name, objective.parameters());
    }

private:
    py::list owners;
    Objective objective;
    bool canonical = true;
};

}  // namespace expunge::bindings
