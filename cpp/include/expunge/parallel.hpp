#pragma once
// A pool of threads for the kernels. Between kernels they sleep.
#include "expunge/types.hpp"

namespace expunge {

// How many threads a kernel may use, the calling one included.
int threads();
void set_threads(int count);  // from 1 to most_threads: to the nearest

constexpr int most_threads = 1024;

// For the child of a fork: it makes a new pool. The threads of the old one do not exist there, and may have
// held its locks.
void reset_after_fork();

using Task = void (*)(const void* context, Index k);

// Calls task(context, k) once for every k in [0, tasks), on this thread and others. When all are done it
// throws the first error, if any. This thread does all of them alone while the pool works for another thread
// of the caller's, and where a task itself asks.
void run_tasks(Index tasks, const void* context, Task task);

template <class F>
void in_parallel(Index tasks, const F& f) {
    run_tasks(tasks, &f, [](const void* context, Index k) { (*static_cast<const F*>(context))(k); });
}

}  // namespace expunge
