#pragma once
// What an instruction set changes: the hot loops, compiled for each set into a library of its own that hands
// out this table. Arguments are pointers, sizes and strides; matrices are column-major, and symmetric ones
// are their lower triangle. Neither a container nor an exception crosses the table: what may fail returns a
// Status.
#include <cstddef>
#include <cstdint>

namespace expunge {

using Index = std::ptrdiff_t;

constexpr double roundoff = 0x1p-53;  // u, the unit roundoff of float64

// Loops of which all that they call is inlined into them, and they into nothing: the compiler makes the best
// of them, and of their registers, where it sees nothing else.
#if defined(__GNUC__) || defined(__clang__)
#define EXPUNGE_LOOP __attribute__((noinline, flatten))
#define EXPUNGE_COLD __attribute__((noinline, cold))  // and what they call once at most, which stays out
#else
#define EXPUNGE_LOOP
#define EXPUNGE_COLD
#endif

constexpr Index max_panel_rows = 256;

// Columns [first, first + count) that are seen, side by side; a list of them ascends.
struct Run {
    Index first, count;
    bool operator==(const Run&) const = default;
};

enum class Kind : std::uint8_t { dense, csr };
enum class Scalar : std::uint8_t { float64, float32 };
enum class IndexType : std::uint8_t { int32, int64 };
enum class Read : std::uint8_t { entry, magnitude, square };  // of an entry x: x, |x| or x^2

enum class Status { fine, outside, disordered, no_memory };

// Where X lies. CSR arrays may be written to at any time, as rows are read: each index is read once, and
// bounded where it becomes an address.
struct Storage {
    Kind kind = Kind::dense;
    Scalar scalar = Scalar::float64;
    IndexType index_type = IndexType::int32;
    bool canonical = true;  // whether CSR indices are known to be within X and to ascend in every row
    const void* data = nullptr;
    Index row_stride = 0, column_stride = 0;  // of dense X, in numbers
    const void *indices = nullptr, *indptr = nullptr;
    std::size_t entries = 0;  // of CSR: that there is room for in data and indices
    std::size_t width = 0;    // of CSR: columns as stored
    bool operator==(const Storage&) const = default;
};

// m rows of f(X). Of dense rows the columns in `runs` are seen, and one of the two strides is 1; `following`
// rows of the same layout come after these. Of CSR rows all columns are, as stored.
struct PanelView {
    Storage X;
    Read read = Read::entry;
    bool gathers = false;  // whether products of CSR rows gather
    Index m = 0, following = 0;
    const Run* runs = nullptr;
    Index run_count = 0;
};

// Terms of sums over the columns of a matrix (terms, columns), packed as the instruction set likes it, in
// memory of packed_size(columns) numbers, aligned to 64 bytes.
constexpr Index max_terms = max_panel_rows;
constexpr Index packed_block = 144;  // columns that stay in the second-level cache; a multiple of every tile
constexpr Index packed_size(Index columns) { return (columns + 7) / 8 * 8 * (max_terms + 1); }
struct Packed {
    double* values;
    Index columns;

    // The same without the first columns, a multiple of 8.
    Packed from(Index column) const { return {values + column * (max_terms + 1), columns - column}; }
};

// Memory that will be read after a product, fetched while it goes on.
struct Ahead {
    const void* first = nullptr;
    Index size = 0;  // in bytes
};

struct Kernels {
    std::size_t size;        // of this struct: a table of another version is told by it
    const char *isa, *simd;  // the instruction set, and what Eigen makes of it
    bool has_gathers;        // whether products of CSR rows can gather

    // ---- Panels ----
    // eta (m,) = f(X) theta + offset
    Status (*multiply)(const PanelView& X, const double* theta, double offset, double* eta);
    // eta (m,) = X theta + offset, x_v (m,) = X v + v_offset, `both` as RowsView::spread makes it
    Status (*multiply_two)(const PanelView& X, const double* both, double offset, double v_offset,
                           double* eta, double* x_v);
    // g (width,) += f(X)^T r
    Status (*add_transposed)(const PanelView& X, const double* r, double* g);
    // counts (m,): how many entries of each row are stored
    Status (*count_stored)(const PanelView& X, double* counts);
    // The columns that are seen, side by side, row by row, in numbers of X's type.
    void (*copy_seen)(const PanelView& X, void* to);

    // ---- All n rows of a CSR matrix ----
    Status (*rows_follow)(const Storage& X, Index n);   // outside unless they do, within the entries
    Status (*look_through)(const Storage& X, Index n);  // what the indices of these rows are
    Status (*largest_row)(const Storage& X, Index n, Index* largest);
    Status (*count_columns)(const Storage& X, Index n, double* counts);  // (width,) += the entries of each
    // found (n,): whether a row holds anything but 0 in `columns`; total: how many entries do
    Status (*find_rows)(const Storage& X, Index n, const Index* columns, Index count, bool* found,
                        Index* total);
    // H (d, d) += X^T diag(w) X, d the columns in `runs`: row by row of X, or column by column of H
    Status (*csr_gram)(const Storage& X, Index n, const Run* runs, Index run_count, const double* w,
                       double* H, Index stride, bool by_columns);

    // ---- Losses, of m rows; `loss` is its place in Loss; `weighted`: whether some s may be 0 ----
    // value = s loss, r = s d1, w = s d2; returns the sum of values
    double (*weighted_loss)(std::size_t loss, Index m, const double* eta, const double* y, const double* s,
                            double* value, double* r, double* w);
    void (*weighted_d1)(std::size_t loss, Index m, const double* eta, const double* y, const double* s,
                        bool weighted, double* r);
    void (*weighted_d2)(std::size_t loss, Index m, const double* eta, const double* y, const double* s,
                        bool weighted, double* w);
    // E19, in units of u |x_i|: what is left of rounding in r = s d1 after so many additions
    void (*rounding_of)(std::size_t loss, Index m, const double* r, const double* y, const double* s,
                        double additions, const double* eta_rounding, double* rounding);
    // The sum of |x_i| times the same, where the rounding of eta is |x_i| `for_each_norm`; norm2 (m,) becomes
    // |x_i|
    double (*sum_of_rounding)(std::size_t loss, Index m, const double* r, const double* y, const double* s,
                              double additions, double for_each_norm, double one, double* norm2);
    // slope = s |d1|; rounding = s times what eta_rounding leaves in d1
    void (*slope_and_rounding)(std::size_t loss, Index m, const double* d1, const double* y, const double* s,
                               bool weighted, const double* eta_rounding, double* slope, double* rounding);
    // x = w (x + offset), but 0 where w is; returns the sum
    double (*weigh)(Index m, const double* w, double offset, double* x);

    // ---- Vectors ----
    double (*sum)(Index n, const double* x);
    double (*dot)(Index n, const double* x, const double* y);
    void (*add_scaled)(Index n, double a, const double* x, double* y);  // y += a x
    bool (*all_finite)(Index n, const void* x, Scalar scalar);

    // ---- Products of packed columns ----
    // Terms of a Gram matrix: rows of weight w != 0, times sqrt|w|, the positive ones from the first on, the
    // others from the last back. Returns how many of each in positive and negative.
    void (*pack)(const PanelView& X, const double* w, const Packed& terms, Index* positive, Index* negative);
    // Term `term` of every column becomes x (columns,).
    void (*pack_term)(const Packed& terms, Index term, const double* x);
    // lower (p, p) += sign A^T A, A the terms [first, first + count): blocks [begin, end) of packed_block
    // rows
    void (*gram_blocks)(double* lower, Index stride, const Packed& A, Index first, Index count, double sign,
                        Ahead ahead, Index begin, Index end);
    // The first `width` <= max_terms columns of A (p, p) become those of its Cholesky factor, packed as terms
    // too: the first `width` rows. The pivot that is not a positive number, or -1. `inverse` holds max_terms
    // + 8 numbers.
    Index (*factor_top)(double* A, Index stride, const Packed& L, Index width, double* inverse);
    // Then rows [begin, end).
    void (*factor_below)(double* A, Index stride, const Packed& L, Index width, const double* inverse,
                         Index begin, Index end);

    // ---- Triangles: L (p, p) lower triangular ----
    // product (p,) = S x, S symmetric
    void (*symmetric_multiply)(Index p, const double* S, Index stride, const double* x, double* product);
    // inverses (8, p / 8 * 8): of the diagonal blocks of eight columns, side by side
    void (*invert_blocks)(Index p, const double* L, Index stride, double* inverses);
    void (*forward)(Index p, const double* L, Index stride, const double* inverses, double* b);   // L^-1 b
    void (*backward)(Index p, const double* L, Index stride, const double* inverses, double* b);  // L^-T b
    // B (p, k) becomes L^-1 B, or L^-T B
    Status (*solve)(Index p, const double* L, Index stride, Index k, double* B, Index B_stride,
                    bool transposed);
    // L becomes the factor of L L^T + V V^T, V (p, k), by plane rotations; V is used up
    void (*rotate_in)(Index p, double* L, Index stride, Index k, double* V, Index V_stride);
    // The same of L L^T - V V^T. False, with L spoiled, where rounding breaks it down
    bool (*rotate_out)(Index p, double* L, Index stride, Index k, double* V, Index V_stride);

    // Operations of so many rounds of chains of multiplications with additions in registers; returns what
    // they give.
    double (*chains)(Index rounds, double start, double* operations);
};

// The table in use: the core is handed one before all else, and keeps it.
void use_kernels(const Kernels& table);
extern const Kernels* kernels_in_use;
inline const Kernels& kernels() { return *kernels_in_use; }

// Whether products of CSR rows gather: not at first, and never where the table has no gathers.
bool gathers();
void set_gathers(bool on);

}  // namespace expunge
