#pragma once
// How all level-3 work is done: columns are packed so that a product reads its operands in order and keeps
// its sums in registers (Goto, van de Geijn 2008).
#include <algorithm>
#include <cmath>
#include <limits>

#include "tile.hpp"

namespace expunge::kernel {

// A matrix (terms, columns), packed: columns in groups of `tile`, and in a group one term after the other.
// The last group is filled up with zeros.
class PackedColumns {
public:
    PackedColumns(const Packed& packed) : values_(packed.values), columns_(packed.columns) {}

    Index columns() const { return columns_; }
    Index groups() const { return (columns_ + tile - 1) / tile; }
    double* group(Index g, Index term = 0) const { return values_ + g * stride + term * tile; }

    // Term `term` of every column becomes scale x, x (columns,).
    template <class T>
    void set(Index term, const T* x, double scale) const {
        double* to = group(0, term);
        Index j = 0;
        for (; j + tile <= columns_; j += tile, to += stride) packed_column(to) = scale * tile_at(x + j);
        if (j == columns_) return;
        for (Index k = 0; k < tile; ++k)
            to[k] = j + k < columns_ ? scale * static_cast<double>(x[j + k]) : 0.0;
    }

    // The terms `at` of column j become scale x, both (count,); term max_terms is spare. Columns
    // beyond the last become 0.
    template <class T>
    void set_column(Index j, Index count, const T* x, const double* scale, const Index* at) const {
        double* to = group(j / tile) + j % tile;
        for (Index i = 0; i < count; ++i)
            to[at[i] * tile] = j < columns_ ? scale[i] * static_cast<double>(x[i]) : 0.0;
    }

private:
    // One term more than is used: groups a power of two apart would displace each other in the cache.
    static constexpr Index stride = (max_terms + 1) * tile;

    double* values_;
    Index columns_;
};

// How many groups of columns a tile has: with `tile` sums for each, as many as registers hold.
#if defined(__AVX__) || defined(__aarch64__)
constexpr Index tile_groups = 3;
#else
constexpr Index tile_groups = 1;
#endif
constexpr Index block_groups = packed_block / tile;

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

// Fetches a tile to which sums will be added.
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

// A tile C = (C - A^T B) L^-T, which is also packed after the terms of A. L (tile, tile) is after the terms
// of B, and `inverse` is 1 over its diagonal.
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

// The lower triangle of a matrix (p, p).
struct Lower {
    double* entries;
    Index stride, p;
    double& operator()(Index i, Index j) const { return entries[i + j * stride]; }
};

// Calls `work` on the tile of C from row i and column j on. If part of it is outside of C, `work` gets a copy
// with zeros there.
template <class Work>
void on_tile(const Lower& C, Index i, Index j, Index groups, Work&& work) {
    const Index rows = std::min(groups * tile, C.p - i), columns = std::min(tile, C.p - j);
    if (i >= j + tile && rows == groups * tile && columns == tile) {
        work(&C(i, j), C.stride);
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

inline Index group_stride(const PackedColumns& A) { return A.group(1) - A.group(0); }

// Kernels::gram_blocks. For each group of columns j, tiles down from the diagonal: group j stays in the first
// cache.
inline void gram_blocks(const Lower& lower, const PackedColumns& A, Index first, Index terms, double sign,
                        Ahead ahead, Index begin_block, Index end_block) {
    const Index groups = A.groups(), a_stride = group_stride(A);
    constexpr Index line = 64;
    const Index tiles = groups * (groups + tile_groups) / (2 * tile_groups) + 1;
    const Index share = (ahead.size / tiles + line) / line * line;
    Index fetched = 0;
    for (Index block = begin_block; block < end_block; ++block) {
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
    }
}

// The first group of columns of a diagonal block, at `terms` in L. False where a pivot is not positive.
inline bool factor_diagonal(const PackedColumns& L, Index g, Index terms, const Lower& A, double* inverse,
                            Index& pivot) {
    const Tile<1> product(terms, L.group(g), 0, L.group(g));
    const Index size = std::min(tile, A.p - g * tile);
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

// Group g of the columns of L, in the rows of `high` groups from i on.
inline void solve_groups(const Lower& A, const PackedColumns& L, Index i, Index high, Index g,
                         const double* inverse) {
    on_tile(A, i * tile, g * tile, high, [&](double* C, Index stride) {
        with_groups(high, [&]<int h>() {
            solve_tile<h>(g * tile, L.group(i), group_stride(L), L.group(g), inverse + g * tile, C, stride);
        });
    });
}

// Kernels::factor_top. Rows of tiles from the top down: all that is left of a tile or above it is known by
// then.
inline Index factor_top(const Lower& A, const PackedColumns& L, Index width, double* inverse) {
    const Index diagonal = (width + tile - 1) / tile;
    Index pivot = -1;
    for (Index i = 0; i < diagonal; i += tile_groups) {
        const Index end = std::min(i + tile_groups, diagonal);
        for (Index g = 0; g < i; ++g) solve_groups(A, L, i, end - i, g, inverse);
        for (Index g = i; g < end; ++g) {
            if (!factor_diagonal(L, g, g * tile, A, inverse + g * tile, pivot)) return pivot;
            if (g + 1 < end) solve_groups(A, L, g + 1, end - g - 1, g, inverse);
        }
    }
    return pivot;
}

// Kernels::factor_below
inline void factor_below(const Lower& A, const PackedColumns& L, Index width, const double* inverse,
                         Index begin, Index end) {
    const Index diagonal = (width + tile - 1) / tile, last = (end + tile - 1) / tile;
    for (Index i = begin / tile; i < last; i += tile_groups)
        for (Index g = 0; g < diagonal; ++g)
            solve_groups(A, L, i, std::min(tile_groups, last - i), g, inverse);
}

}  // namespace expunge::kernel
