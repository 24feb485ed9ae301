#include "expunge/parallel.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace expunge {

namespace {

// How long an idle thread waits actively for work before it sleeps: kernels come in series.
constexpr auto attentive = std::chrono::microseconds(30);

thread_local bool in_task = false;

class Pool {
public:
    explicit Pool(int workers) {
        try {
            for (int i = 0; i < workers; ++i) workers_.emplace_back([this] { serve(); });
        } catch (const std::system_error&) {  // as many as the system gives
        }
    }
    ~Pool() {
        {
            const std::lock_guard lock(mutex_);
            closing_ = true;
            ++calls_;
        }
        called_.notify_all();
        for (std::thread& worker : workers_) worker.join();
    }
    int workers() const { return static_cast<int>(workers_.size()); }

    void run(Index tasks, const void* context, Task task) {
        {
            const std::lock_guard lock(mutex_);
            tasks_ = tasks;
            context_ = context;
            task_ = task;
            next_ = 0;
            open_ = true;
            ++calls_;
        }
        called_.notify_all();
        work();
        std::unique_lock lock(mutex_);
        open_ = false;  // threads that have not woken up yet are not waited for
        left_.wait(lock, [this] { return busy_ == 0; });
        if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    }

private:
    void work() {
        in_task = true;
        for (Index k; (k = next_.fetch_add(1)) < tasks_;) {
            try {
                task_(context_, k);
            } catch (...) {
                const std::lock_guard lock(mutex_);
                if (!error_) error_ = std::current_exception();
                next_ = tasks_;
            }
        }
        in_task = false;
    }

    void serve() {
        unsigned seen = 0;
        for (;;) {
            const auto until = std::chrono::steady_clock::now() + attentive;
            while (calls_.load() == seen && std::chrono::steady_clock::now() < until)
                std::this_thread::yield();
            std::unique_lock lock(mutex_);
            called_.wait(lock, [&] { return calls_.load() != seen; });
            seen = calls_.load();
            if (closing_) return;
            if (!open_) continue;
            ++busy_;
            lock.unlock();
            work();
            lock.lock();
            if (--busy_ == 0) left_.notify_one();
        }
    }

    std::mutex mutex_;
    std::condition_variable called_, left_;
    std::atomic<unsigned> calls_ = 0;
    std::atomic<Index> next_ = 0;
    Index tasks_ = 0;
    const void* context_ = nullptr;
    Task task_ = nullptr;
    bool open_ = false, closing_ = false;
    int busy_ = 0;
    std::exception_ptr error_;
    std::vector<std::thread> workers_;
};

// The pool, its size, and the lock of whoever uses it.
struct Threads {
    std::mutex owner;
    std::atomic<int> wanted = 1;
    std::unique_ptr<Pool> pool;
};

// Never destroyed: at exit the threads just end.
std::atomic<Threads*> state = new Threads;

}  // namespace

int threads() { return state.load()->wanted; }

void set_threads(int count) {
    Threads& all = *state.load();
    const std::lock_guard lock(all.owner);
    all.wanted = std::clamp(count, 1, most_threads);
    if (all.pool && all.pool->workers() != all.wanted - 1) all.pool.reset();
}

void reset_after_fork() {
    auto* fresh = new Threads;
    fresh->wanted = threads();
    state = fresh;
    in_task = false;
}

void run_tasks(Index tasks, const void* context, Task task) {
    Threads& all = *state.load();
    if (tasks > 1 && all.wanted > 1 && !in_task) {
        const std::unique_lock lock(all.owner, std::try_to_lock);
        if (lock.owns_lock()) {
            if (!all.pool) all.pool = std::make_unique<Pool>(all.wanted - 1);
            all.pool->run(tasks, context, task);
            return;
        }
    }
    for (Index k = 0; k < tasks; ++k) task(context, k);
}

}  // namespace expunge
