#pragma once
// How all level-3 work is done: columns are packed so that a product reads its operands in order and keeps
// its sums in registers (Goto, van de Geijn 2008).
#include <algorithm>
#include <cstddef>
#include <optional>

#include "expunge/columns.hpp"

namespace expunge {

#if defined(__AVX512F__)
constexpr Index tile = 8;
#else
constexpr Index tile = 4;
#endif

// `tile` values of one term, worked on together.
using TileColumn = Eigen::Array<double, tile, 1>;

// Of packed memory, which is aligned, or of any other.
inline auto packed_column(double* values) { return Eigen::Map<TileColumn, Eigen::AlignedMax>(values); }
inline auto packed_column(const double* values) {
    return Eigen::Map<const TileColumn, Eigen::AlignedMax>(values);
}
inline auto tile_at(double* values) { return Eigen::Map<TileColumn>(values); }
inline auto tile_at(const double* values) { return Eigen::Map<const TileColumn>(values); }
inline TileColumn tile_at(const float* values) {
    return Eigen::Map<const Eigen::Array<float, tile, 1>>(values).cast<double>();
}

// Terms of sums over the columns of a matrix (terms, columns), packed: columns in groups of `tile`, and in a
// group one term after the other. What a group has more than there are columns is 0.
class Packed {
public:
    static constexpr Index max_terms = max_panel_rows;

    // Memory is the workspace's, and may hold anything.
    Packed(Workspace& workspace, Index columns)
        : values_(workspace.take((columns + tile - 1) / tile * stride)), columns_(columns) {}

    Index columns() const { return columns_; }
    Index groups() const { return (columns_ + tile - 1) / tile; }
    double* group(Index g, Index term = 0) const { return values_ + g * stride + term * tile; }

    // The same without the first groups.
    Packed from(Index group) const {
        return {values_ + group * stride, std::max<Index>(0, columns_ - group * tile)};
    }

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

    // Column j becomes scale x, both (count,), in the terms `at`, of which max_terms is none; 0 beyond the
    // columns there are.
    template <class T>
    void set_column(Index j, Index count, const T* x, const double* scale, const Index* at) const {
        double* to = group(j / tile) + j % tile;
        for (Index i = 0; i < count; ++i)
            to[at[i] * tile] = j < columns_ ? scale[i] * static_cast<double>(x[i]) : 0.0;
    }

private:
    Packed(double* values, Index columns) : values_(values), columns_(columns) {}

    // One term more than are in use: were groups a power of two apart, they would push each other out
    // of the cache.
    static constexpr Index stride = (max_terms + 1) * tile;

    double* values_;
    Index columns_;
};

// Memory that will be read after a product, fetched while it goes on.
struct Ahead {
    const void* first = nullptr;
    Index size = 0;  // in bytes
};

// lower (p, p) += sign A^T A, lower triangle, A the terms [first, first + terms) of p columns.
void add_gram(Eigen::Ref<Matrix> lower, const Packed& A, Index first, Index terms, double sign,
              Ahead ahead = {});

// A (p, p), lower triangle, becomes L with A = L L^T. Returns the pivot that is not a positive number, with A
// spoiled, or none.
std::optional<Index> factor_in_place(Eigen::Ref<Matrix> A);

}  // namespace expunge
