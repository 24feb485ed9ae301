#include "expunge/packed.hpp"

#include <cmath>
#include <limits>

#include "expunge/parallel.hpp"

namespace expunge {

namespace {

// Groups of columns beside each other in a tile: with `tile` sums for each, as many as registers hold.
#if defined(__AVX__) || defined(__aarch64__)
constexpr Index tile_groups = 3;
#else
constexpr Index tile_groups = 1;
#endif
constexpr Index block_groups = 144 / tile;  // that stay in the second-level cache

// Whether there are threads, and so many multiplications take longer than they take to begin.
bool worth_threads(Index rows, Index columns, Index terms) {
    return threads() > 1 &&
           static_cast<double>(rows) * static_cast<double>(columns) * static_cast<double>(terms) >= 4e6;
}

// Entries of a block of a column-major matrix, `groups` high and one wide.
template <int groups>
struct Tile {
    TileColumn entries[groups][tile];

    // = A^T B, A `groups` groups from a on, B one.
    Tile(Index terms, const double* __restrict a, Index a_stride, const double* __restrict b) {
        for (int g = 0; g < groups; ++g)
            for (Index j = 0; j < tile; ++j) entries[g][j].setZero();
        for (Index t = 0; t < terms; ++t) {
            TileColumn x[groups];
            for (int g = 0; g < groups; ++g) x[g] = packed_column(a + g * a_stride + t * tile);
            for (Index j = 0; j < tile; ++j)
                for (int g = 0; g < groups; ++g) entries[g][j] += x[g] * b[t * tile + j];
        }
    }
};

// What is summed up meanwhile will be added to it.
template <int groups>
void fetch_tile(const double* C, Index stride) {
    for (Index j = 0; j < tile; ++j)
        for (int g = 0; g < groups; ++g) fetch<Near::first>(C + g * tile + j * stride);
}

// C += sign A^T B, a tile
template <int groups>
void add_tile(Index terms, const double* a, Index a_stride, const double* b, double sign, double* C,
              Index stride) {
    fetch_tile<groups>(C, stride);
    const Tile<groups> product(terms, a, a_stride, b);
    for (Index j = 0; j < tile; ++j)
        for (int g = 0; g < groups; ++g) tile_at(C + g * tile + j * stride) += sign * product.entries[g][j];
}

// C = (C - A^T B) L^-T, a tile, packed behind the terms of A, too. L (tile, tile) stands behind those of B,
// and 1 over its diagonal is `inverse`.
template <int groups>
void solve_tile(Index terms, double* a, Index a_stride, const double* b, const double* inverse, double* C,
                Index stride) {
    fetch_tile<groups>(C, stride);
    Tile<groups> x(terms, a, a_stride, b);
    const double* L = b + terms * tile;
    for (Index j = 0; j < tile; ++j)
        for (int g = 0; g < groups; ++g)
            x.entries[g][j] = tile_at(C + g * tile + j * stride) - x.entries[g][j];
    for (Index j = 0; j < tile; ++j)
        for (int g = 0; g < groups; ++g) {
            x.entries[g][j] *= inverse[j];
            for (Index k = j + 1; k < tile; ++k) x.entries[g][k] -= x.entries[g][j] * L[k + j * tile];
        }
    for (Index j = 0; j < tile; ++j)
        for (int g = 0; g < groups; ++g) {
            packed_column(a + g * a_stride + (terms + j) * tile) = x.entries[g][j];
            tile_at(C + g * tile + j * stride) = x.entries[g][j];
        }
}

// Calls f.template operator()<groups>() for 1 <= groups <= tile_groups.
template <class F>
void with_groups(Index groups, F&& f) {
    if constexpr (tile_groups >= 3)
        if (groups == 3) return f.template operator()<3>();
    if constexpr (tile_groups >= 2)
        if (groups == 2) return f.template operator()<2>();
    f.template operator()<1>();
}

// A tile of C from row i and column j on, lower triangle, of which not all may lie in C: `work` gets it, or a
// copy of what does and 0 beyond.
template <class Work>
void on_tile(Eigen::Ref<Matrix>& C, Index i, Index j, Index groups, Work&& work) {
    const Index rows = std::min(groups * tile, C.rows() - i), columns = std::min(tile, C.cols() - j);
    if (i >= j + tile && rows == groups * tile && columns == tile) {
        work(&C(i, j), C.outerStride());
        return;
    }
    constexpr Index stride = tile_groups * tile;
    alignas(64) double copy[stride * tile] = {};
    const auto each = [&](auto&& visit) {
        for (Index k = 0; k < columns; ++k)
            for (Index l = std::max<Index>(0, j + k - i); l < rows; ++l)
                visit(C(i + l, j + k), copy[l + k * stride]);
    };
    each([](double entry, double& copied) { copied = entry; });
    work(copy, stride);
    each([](double& entry, double copied) { entry = copied; });
}

Index group_stride(const Packed& A) { return A.group(1) - A.group(0); }

}  // namespace

void add_gram(Eigen::Ref<Matrix> lower, const Packed& A, Index first, Index terms, double sign, Ahead ahead) {
    const Index groups = A.groups(), a_stride = group_stride(A);
    constexpr Index line = 64;
    const Index tiles = groups * (groups + tile_groups) / (2 * tile_groups) + 1;
    const Index share = (ahead.size / tiles + line) / line * line;
    // columns j, then tiles down from the diagonal: those of j stay in the first-level cache
    const auto add_block = [&](Index block, Index& fetched) {
        const Index begin = block * block_groups, end = std::min(begin + block_groups, groups);
        for (Index j = 0; j < end; ++j)
            for (Index i = std::max(begin, j); i < end; i += tile_groups) {
                for (const Index stop = std::min(fetched + share, ahead.size); fetched < stop;
                     fetched += line)
                    fetch(static_cast<const char*>(ahead.first) + fetched);
                const Index high = std::min(tile_groups, end - i);
                on_tile(lower, i * tile, j * tile, high, [&](double* C, Index stride) {
                    with_groups(high, [&]<int g>() {
                        add_tile<g>(terms, A.group(i, first), a_stride, A.group(j, first), sign, C, stride);
                    });
                });
            }
    };
    const Index blocks = (groups + block_groups - 1) / block_groups;
    if (!worth_threads(A.columns(), A.columns() / 2, terms)) {
        Index fetched = 0;
        for (Index block = 0; block < blocks; ++block) add_block(block, fetched);
        return;
    }
    in_parallel(blocks, [&](Index k) {  // the largest first
        Index fetched = ahead.size;
        add_block(blocks - 1 - k, fetched);
    });
}

namespace {

// The first group of columns of a diagonal block, at `terms` in L. False where a pivot is not positive.
bool factor_diagonal(const Packed& L, Index g, Index terms, Eigen::Ref<Matrix>& A, double* inverse,
                     Index& pivot) {
    const Tile<1> product(terms, L.group(g), 0, L.group(g));
    const Index size = std::min(tile, A.rows() - g * tile);
    double* entries = L.group(g, terms);  // (k, j) at k + j tile
    for (Index j = 0; j < tile; ++j)
        for (Index k = j; k < tile; ++k)
            entries[k + j * tile] =
                k < size ? A(g * tile + k, g * tile + j) - product.entries[0][j](k) : (k == j ? 1.0 : 0.0);
    for (Index j = 0; j < tile; ++j) {
        const double square = entries[j + j * tile];
        if (!(square > 0.0) || !(square < std::numeric_limits<double>::infinity())) {
            pivot = g * tile + j;
            return false;
        }
        const double root = std::sqrt(square);
        inverse[j] = 1.0 / root;
        entries[j + j * tile] = root;
        for (Index k = j + 1; k < tile; ++k) entries[k + j * tile] *= inverse[j];
        for (Index l = j + 1; l < tile; ++l)
            for (Index k = l; k < tile; ++k)
                entries[k + l * tile] -= entries[k + j * tile] * entries[l + j * tile];
    }
    for (Index j = 0; j < size; ++j)
        for (Index k = j; k < size; ++k) A(g * tile + k, g * tile + j) = entries[k + j * tile];
    return true;
}

// The first `width` <= max_terms columns of A become those of L, packed as terms too. Rows of tiles from the
// top: what lies left of a tile is known, and what lies above is of rows that are through.
bool factor_columns(Eigen::Ref<Matrix>& A, Index width, const Packed& L, Index& pivot) {
    const Index groups = L.groups(), diagonal = (width + tile - 1) / tile, a_stride = group_stride(L);
    double inverse[Packed::max_terms + tile];
    const auto solve = [&](Index i, Index high, Index g) {
        on_tile(A, i * tile, g * tile, high, [&](double* C, Index stride) {
            with_groups(high, [&]<int h>() {
                solve_tile<h>(g * tile, L.group(i), a_stride, L.group(g), inverse + g * tile, C, stride);
            });
        });
    };
    for (Index i = 0; i < diagonal; i += tile_groups) {
        const Index end = std::min(i + tile_groups, diagonal);
        for (Index g = 0; g < i; ++g) solve(i, end - i, g);
        for (Index g = i; g < end; ++g) {
            if (!factor_diagonal(L, g, g * tile, A, inverse + g * tile, pivot)) return false;
            if (g + 1 < end) solve(g + 1, end - g - 1, g);
        }
    }
    const auto below = [&](Index begin, Index end) {
        for (Index i = begin; i < end; i += tile_groups)
            for (Index g = 0; g < diagonal; ++g) solve(i, std::min(tile_groups, end - i), g);
    };
    if (!worth_threads(L.columns() - width, width, width / 2)) {
        below(diagonal, groups);
    } else {
        in_parallel((groups - diagonal + block_groups - 1) / block_groups, [&](Index k) {
            const Index begin = diagonal + k * block_groups;
            below(begin, std::min(begin + block_groups, groups));
        });
    }
    return true;
}

}  // namespace

std::optional<Index> factor_in_place(Eigen::Ref<Matrix> A) {
    thread_local Workspace memory;
    const Index p = A.rows();
    for (Index j = 0; j < p; j += Packed::max_terms) {
        const Index width = std::min(Packed::max_terms, p - j);
        Eigen::Ref<Matrix> rest = A.bottomRightCorner(p - j, p - j);
        const Packed L(memory, p - j);
        Index pivot = 0;
        if (!factor_columns(rest, width, L, pivot)) return j + pivot;
        if (j + width < p)
            add_gram(A.bottomRightCorner(p - j - width, p - j - width), L.from(width / tile), 0, width, -1.0);
    }
    return std::nullopt;
}

}  // namespace expunge
