#include <algorithm>
#include <cstring>

#include "arrays.hpp"
#include "bind.hpp"
#include "expunge/gaussian.hpp"

namespace expunge::bindings {

namespace {

using Integers = py::array_t<std::int64_t, py::array::c_style>;

// Digits from fill(n), which gives n bytes; asked for with the GIL.
Bits::Refill asking(const py::object& fill) {
    return [&fill](Digit* digits, std::size_t count) {
        const py::gil_scoped_acquire gil;
        const std::size_t wanted = count * sizeof(Digit);
        const py::object given = fill(wanted);
        if (!py::isinstance<py::bytes>(given)) throw py::type_error("fill must give bytes");
        const auto bytes = py::reinterpret_borrow<py::bytes>(given);
        const auto view = static_cast<std::string_view>(bytes);
        if (view.size() != wanted)
            throw std::invalid_argument("fill gave " + std::to_string(view.size()) + " bytes for the " +
                                        std::to_string(wanted) + " that it was asked for");
        std::memcpy(digits, view.data(), wanted);
    };
}

// K (size,), which draw(bits, K) writes without the GIL.
template <class Draw>
Integers drawn(std::size_t size, const py::object& fill, Draw&& draw) {
    Integers K(static_cast<py::ssize_t>(size));
    const std::span<std::int64_t> to(K.mutable_data(), size);
    const py::gil_scoped_release nogil;
    // A normal takes 20 digits or so. A buffer of 64 KiB is asked for at most.
    Bits bits(asking(fill), std::clamp<std::size_t>(size, 4, 512) * 32);
    draw(bits, to);
    return K;
}

std::span<const double> numbers(const Array& theta) {
    const auto at = vector(theta, "theta", theta.size());
    return {at.data(), static_cast<std::size_t>(at.size())};
}

}  // namespace

void bind_noise(py::module_& m) {
    m.def(
        "add_normal",
        [](const Array& theta, std::int64_t R, int exponent, const py::object& fill) {
            const auto at = numbers(theta);
            return drawn(at.size(), fill, [&](Bits& bits, std::span<std::int64_t> K) {
                add_normal(at, R, exponent, bits, K);
            });
        },
        py::arg("theta").noconvert(), py::arg("R"), py::arg("exponent"), py::arg("fill"));
    m.def(
        "normal",
        [](Index size, std::int64_t R, const py::object& fill) {
            if (size < 0) throw std::invalid_argument("size must be at least 0");
            return drawn(static_cast<std::size_t>(size), fill,
                         [&](Bits& bits, std::span<std::int64_t> K) { normal(R, bits, K); });
        },
        py::arg("size"), py::arg("R"), py::arg("fill"));
    m.def(
        "round_with_offset",
        [](const Array& theta, std::int64_t R, int exponent, const py::object& fill) {
            const auto at = numbers(theta);
            return drawn(at.size(), fill, [&](Bits& bits, std::span<std::int64_t> K) {
                round_with_offset(at, R, exponent, bits, K);
            });
        },
        py::arg("theta").noconvert(), py::arg("R"), py::arg("exponent"), py::arg("fill"));
}

}  // namespace expunge::bindings
