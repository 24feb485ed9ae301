#include <Eigen/Core>
#include <string>
#include <vector>

#include "arrays.hpp"
#include "bind.hpp"
#include "expunge/kernels.hpp"
#include "expunge/machine.hpp"
#include "expunge/parallel.hpp"

#if defined(__x86_64__) || defined(_M_X64)
#define EXPUNGE_X86_64
#if defined(_MSC_VER)
#include <immintrin.h>
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif

namespace py = pybind11;

namespace expunge::bindings {

namespace {

#ifdef EXPUNGE_X86_64

struct Registers {
    unsigned a = 0, b = 0, c = 0, d = 0;
};

Registers cpuid(unsigned leaf) {
    Registers r;
#if defined(_MSC_VER)
    int out[4];
    __cpuidex(out, static_cast<int>(leaf & 0x80000000u), 0);
    if (static_cast<unsigned>(out[0]) < leaf) return r;
    __cpuidex(out, static_cast<int>(leaf), 0);
    r = {unsigned(out[0]), unsigned(out[1]), unsigned(out[2]), unsigned(out[3])};
#else
    __get_cpuid_count(leaf, 0, &r.a, &r.b, &r.c, &r.d);
#endif
    return r;
}

// What the operating system saves on a context switch.
unsigned long long saved_state() {
#if defined(_MSC_VER)
    return _xgetbv(0);
#else
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (static_cast<unsigned long long>(high) << 32) | low;
#endif
}

bool all(unsigned word, std::initializer_list<int> bits) {
    for (int bit : bits)
        if (!((word >> bit) & 1u)) return false;
    return true;
}

// Whether gathers beat as many loads: on what has AVX512-FP16, Intel's from Sapphire Rapids on. Its
// processors before that lost them to a correction of their microcode, and AMD's take them apart.
bool gathers_are_fast() { return all(cpuid(7).d, {23}); }

// Every feature that -march=x86-64-v3 and -v4 let the compiler use.
std::vector<std::string> supported_isas() {
    std::vector<std::string> isas{"baseline"};
    const Registers one = cpuid(1), seven = cpuid(7), extended = cpuid(0x80000001u);
    // sse3 ssse3 fma cx16 sse4.1 sse4.2 movbe popcnt osxsave avx f16c; bmi1 avx2 bmi2; lahf lzcnt
    if (!all(one.c, {0, 9, 12, 13, 19, 20, 22, 23, 27, 28, 29}) || !all(seven.b, {3, 5, 8}) ||
        !all(extended.c, {0, 5}) || (saved_state() & 0x6) != 0x6)
        return isas;
    isas.push_back("x86-64-v3");
    // avx512 f dq cd bw vl
    if (all(seven.b, {16, 17, 28, 30, 31}) && (saved_state() & 0xe6) == 0xe6) isas.push_back("x86-64-v4");
    return isas;
}

#else

bool gathers_are_fast() { return false; }

std::vector<std::string> supported_isas() { return {"baseline"}; }

#endif

std::string compiler() {
#if defined(__clang__)
    return "clang " __clang_version__;
#elif defined(__GNUC__)
    return "gcc " __VERSION__;
#elif defined(_MSC_VER)
    return "msvc " + std::to_string(_MSC_VER);
#else
    return "unknown";
#endif
}

std::string eigen() {
    std::string version = std::to_string(EIGEN_WORLD_VERSION) + "." + std::to_string(EIGEN_MAJOR_VERSION) +
                          "." + std::to_string(EIGEN_MINOR_VERSION);
#ifdef EIGEN_PATCH_VERSION  // Eigen 5 counts as 3.5 and keeps semantic versions beside it
    if (EIGEN_MAJOR_VERSION >= 5)
        version = std::to_string(EIGEN_MAJOR_VERSION) + "." + std::to_string(EIGEN_MINOR_VERSION) + "." +
                  std::to_string(EIGEN_PATCH_VERSION);
#endif
    return version;
}

// The kernels of one instruction set, from the module that was compiled for it.
void take_kernels(const py::capsule& table) {
    if (table.name() == nullptr || std::string(table.name()) != "expunge.kernels")
        throw std::invalid_argument("table must be that of a module of kernels");
    const auto& kernels = *table.get_pointer<const Kernels>();
    if (kernels.size != sizeof(Kernels))
        throw py::import_error("the modules of expunge are not of one version: install it again");
    use_kernels(kernels);
    set_gathers(gathers_are_fast());
}

}  // namespace

void bind_build(py::module_& m) {
    m.def("supported_isas", [] {
        py::list names;
        for (const auto& isa : supported_isas()) names.append(isa);
        return names;
    });
    m.def("threads", &threads);
    m.def("reset_after_fork", &reset_after_fork);
    m.def(
        "set_threads",
        [](int count) {
            py::gil_scoped_release nogil;  // others may be at work
            set_threads(count);
        },
        py::arg("count"));
    m.def("use_kernels", &take_kernels, py::arg("table"));
    m.def("gathers", &gathers);
    m.def("set_gathers", &set_gathers, py::arg("on"));
    m.def("arithmetic_rate", &arithmetic_rate, py::call_guard<py::gil_scoped_release>());
    m.def(
        "reading_rate",
        [](const Array& x) {
            require_aligned(x, "x");
            py::gil_scoped_release nogil;
            return reading_rate(x.data(), x.size());
        },
        py::arg("x").noconvert());
    m.def("compiled_with", [] {
        py::dict info;
        info["isa"] = kernels().isa;
        info["simd"] = kernels().simd;
        info["eigen"] = eigen();
        info["compiler"] = compiler();
        return info;
    });
}

}  // namespace expunge::bindings
