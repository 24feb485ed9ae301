#pragma once
// What row views share: the columns that are seen, and scratch memory.
#include <cstddef>
#include <memory>
#include <new>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "expunge/types.hpp"

namespace expunge {

using Runs = std::vector<Run>;

inline Runs all_columns(Index d) { return {{0, d}}; }

inline Index count(const Runs& runs) {
    return std::accumulate(runs.begin(), runs.end(), Index(0),
                           [](Index sum, const Run& run) { return sum + run.count; });
}

// Adds a column to the end of a list.
inline void append(Runs& runs, Index column) {
    if (!runs.empty() && column == runs.back().first + runs.back().count)
        ++runs.back().count;
    else
        runs.push_back({column, 1});
}

// Throws unless positions ascend, none twice, within [0, size).
inline void require_ascending(const char* name, const std::vector<Index>& positions, Index size) {
    Index before = -1;
    for (const Index position : positions) {
        if (position <= before || position >= size)
            throw std::invalid_argument(std::string(name) + " must ascend from 0 to " +
                                        std::to_string(size - 1) + ", none twice: got " +
                                        std::to_string(position));
        before = position;
    }
}

// Of the columns in `runs`, those at the positions `kept`, which ascend.
inline Runs select(const Runs& runs, const std::vector<Index>& kept) {
    Runs selected;
    Index before = 0;  // positions in earlier runs
    auto run = runs.begin();
    for (const Index position : kept) {
        while (position >= before + run->count) before += (run++)->count;
        append(selected, run->first + position - before);
    }
    return selected;
}

// s x; 0 where s is 0, even if x is infinite or NaN: a row of weight 0 is not in the data.
inline double weighted(double s, double x) {
    const double product = s * x;
    return s != 0.0 ? product : 0.0;
}

// Aligned scratch memory. It grows as needed and is kept: one per thread and use, so a kernel allocates once.
class Workspace {
public:
    template <class T = double>
    T* take(Index size) {
        const auto bytes = static_cast<std::size_t>(size) * sizeof(T);
        if (bytes > size_) {
            memory_.reset(static_cast<std::byte*>(::operator new(bytes, alignment)));
            size_ = bytes;
        }
        return reinterpret_cast<T*>(memory_.get());
    }

private:
    static constexpr std::align_val_t alignment{64};  // a cache line
    struct Delete {
        void operator()(std::byte* memory) const { ::operator delete(memory, alignment); }
    };

    std::unique_ptr<std::byte, Delete> memory_;
    std::size_t size_ = 0;
};

}  // namespace expunge
