#pragma once
#include "expunge/kernels.hpp"

namespace expunge::kernel {

// The kernels of the instruction set that this was compiled for.
const Kernels& table();

}  // namespace expunge::kernel
