#pragma once
// Threads that kernels share their work with: kept, asleep between kernels.
#include "expunge/types.hpp"

namespace expunge {

// How many threads a kernel may use, the calling one included.
int threads();
void set_threads(int count);  // from 1 to most_threads: to the nearest

constexpr int most_threads = 1024;

// For the child of a fork, in which the other threads do not exist, and locks may be held by some that do
// not: what there was is left behind.
void reset_after_fork();

using Task = void (*)(const void* context, Index k);

// task(context, k) for every k in [0, tasks), each once, on this thread and others; the first error is thrown
// once all are through. This thread does them alone where the others are at work for another thread of the
// caller's, or where a task asks.
void run_tasks(Index tasks, const void* context, Task task);

template <class F>
void in_parallel(Index tasks, const F& f) {
    run_tasks(tasks, &f, [](const void* context, Index k) { (*static_cast<const F*>(context))(k); });
}

}  // namespace expunge
