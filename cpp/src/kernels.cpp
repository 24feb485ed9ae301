#include "expunge/kernels.hpp"

#include <atomic>

namespace expunge {

const Kernels* kernels_in_use = nullptr;

namespace {

std::atomic<bool> gathering = false;

}  // namespace

void use_kernels(const Kernels& table) {
    kernels_in_use = &table;
    gathering = false;
}

bool gathers() { return gathering.load(std::memory_order_relaxed); }

void set_gathers(bool on) { gathering = on && kernels().has_gathers; }

}  // namespace expunge
