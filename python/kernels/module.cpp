// A module for each instruction set, which holds its table of kernels and nothing else.
#include <Python.h>

#include "../../cpp/kernels/table.hpp"

#define EXPUNGE_JOIN_(a, b) a##b
#define EXPUNGE_JOIN(a, b) EXPUNGE_JOIN_(a, b)
#define EXPUNGE_TEXT_(name) #name
#define EXPUNGE_TEXT(name) EXPUNGE_TEXT_(name)

PyMODINIT_FUNC EXPUNGE_JOIN(PyInit_, EXPUNGE_MODULE)() {
    static PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                                     EXPUNGE_TEXT(EXPUNGE_MODULE),
                                     nullptr,
                                     -1,
                                     nullptr,
                                     nullptr,
                                     nullptr,
                                     nullptr,
                                     nullptr};
    PyObject* module = PyModule_Create(&definition);
    if (module == nullptr) return nullptr;
    const auto& kernels = expunge::kernel::table();
    PyObject* table = PyCapsule_New(const_cast<expunge::Kernels*>(&kernels), "expunge.kernels", nullptr);
    if (table == nullptr || PyModule_AddObjectRef(module, "table", table) < 0 ||
        PyModule_AddStringConstant(module, "isa", kernels.isa) < 0 ||
        PyModule_AddStringConstant(module, "simd", kernels.simd) < 0) {
        Py_XDECREF(table);
        Py_DECREF(module);
        return nullptr;
    }
    Py_DECREF(table);
    return module;
}
