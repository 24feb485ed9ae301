#pragma once
// The hot loops. Each instruction set has a library of its own, compiled for it, that hands out this table.
// Arguments are pointers, sizes and strides. Matrices are column-major, and symmetric ones are given by their
// lower triangle. Neither a container nor an exception crosses the table: a kernel that may fail returns a
// Status.
#include <cstddef>
#include <cstdint>

namespace expunge {

using Index = std::ptrdiff_t;

constexpr double roundoff = 0x1p-53;  // u, the unit roundoff of float64

// The compiler inlines every callee into these loops, and never inlines the loops themselves: it then
// allocates registers better.
#if defined(__GNUC__) || defined(__clang__)
#define EXPUNGE_LOOP __attribute__((noinline, flatten))
#define EXPUNGE_COLD __attribute__((noinline, cold))  // what they call at most once is not inlined
#else
#define EXPUNGE_LOOP
#define EXPUNGE_COLD
#endif

constexpr Index max_panel_rows = 256;

// Columns [first, first + count) of X that a view sees. Lists of runs ascend.
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
    std::size_t entries = 0;        // of CSR: the length of data and indices
    std::size_t width = 0;          // of CSR: columns as stored
    const double* shift = nullptr;  // what is taken off the entries, or null: of columns, strides 0 and 1
    Index shift_row_stride = 0, shift_column_stride = 1;
    bool operator==(const Storage&) const = default;
};

// m rows of f(X). Dense rows: the columns in `runs`, one of the two strides is 1, and `following` more rows
// of the same layout come after these. CSR rows: all columns, as stored.
struct PanelView {
    Storage X;
    Read read = Read::entry;
    bool gathers = false;  // whether products of CSR rows use gather instructions
    Index m = 0, following = 0;
    const Run* runs = nullptr;
    Index run_count = 0;
};

// A matrix (terms, columns) packed in the order in which products of its columns read it. Its memory holds
// packed_size(columns) numbers, aligned to 64 bytes.
constexpr Index max_terms = max_panel_rows;
constexpr Index packed_block = 144;  // columns that stay in the second-level cache; a multiple of every tile
constexpr Index packed_size(Index columns) { return (columns + 7) / 8 * 8 * (max_terms + 1); }
struct Packed {
    double* values;
    Index columns;

    // The same without the first columns, a multiple of 8.
    Packed from(Index column) const { return {values + column * (max_terms + 1), columns - column}; }
};

// Memory that will be read after a product: it is fetched while the product runs.
struct Ahead {
    const void* first = nullptr;
    Index size = 0;  // in bytes
};

// A loss: its place in Loss, and the power of one that has any.
struct LossKey {
    std::size_t place = 0;
    double power = 0.0;
};

struct Kernels {
    std::size_t size;        // of this struct; it differs in a table of another version
    const char *isa, *simd;  // the instruction set, and the SIMD instructions that Eigen uses
    bool has_gathers;        // whether products of CSR rows can gather

    // ---- Panels ----
    // eta (m,) = f(X) theta + offset
    Status (*multiply)(const PanelView& X, const double* theta, double offset, double* eta);
    // eta (m,) = X theta + offset, x_v (m,) = X v + v_offset, `both` as RowsView::spread makes it
    Status (*multiply_two)(const PanelView& X, const double* both, double offset, double v_offset,
                           double* eta, double* x_v);
    // g (width,) += f(X)^T r
    Status (*add_transposed)(const PanelView& X, const double* r, double* g);
    // The same of CSR rows for K vectors, whose entries for a column lie side by side, `stride` apart, with a
    // multiple of four for each; eta, r (m, K)
    Status (*multiply_many)(const PanelView& X, Index K, Index stride, const double* thetas, double* eta);
    Status (*add_transposed_many)(const PanelView& X, Index K, Index stride, const double* r, double* g);
    // counts (m,): how many entries of each CSR row are stored
    Status (*count_stored)(const PanelView& X, double* counts);
    // The columns that are seen, side by side, row by row, in numbers of X's type.
    void (*copy_seen)(const PanelView& X, void* to);
    // The same less the shift, in float64.
    void (*copy_shifted)(const PanelView& X, double* to);
    // The entries of m CSR rows less the shift, at most so many as there is room for, and where each row's
    // begin and end, from 0 on (m + 1,), in X's type of index.
    Status (*copy_csr_shifted)(const Storage& X, Index m, double* entries, Index room, void* indptr);

    // ---- All n rows of a CSR matrix ----
    Status (*rows_follow)(const Storage& X, Index n);  // outside unless rows follow each other in the entries
    Status (*look_through)(const Storage& X, Index n);  // whether indices are inside and ascend
    Status (*largest_row)(const Storage& X, Index n, Index* largest);
    Status (*count_columns)(const Storage& X, Index n, double* counts);  // (width,) += the entries of each
    // found (n,): whether a row holds anything but 0 in `columns`; total: how many entries do
    Status (*find_rows)(const Storage& X, Index n, const Index* columns, Index count, bool* found,
                        Index* total);
    // H (d, d) += X^T diag(w) X, d the columns in `runs`: row by row of X, or column by column of H
    Status (*csr_gram)(const Storage& X, Index n, const Run* runs, Index run_count, const double* w,
                       double* H, Index stride, bool by_columns);

    // ---- Losses, of m rows; `weighted`: whether some s may be 0 ----
    // Whether the loss takes every y, and whether every s is finite and not negative
    bool (*are_targets)(LossKey loss, Index n, const double* y);
    bool (*are_weights)(Index n, const double* s);
    // value = s loss, r = s d1, w = s d2; returns the sum of values
    double (*weighted_loss)(LossKey loss, Index m, const double* eta, const double* y, const double* s,
                            double* value, double* r, double* w);
    void (*weighted_d1)(LossKey loss, Index m, const double* eta, const double* y, const double* s,
                        bool weighted, double* r);
    void (*weighted_d2)(LossKey loss, Index m, const double* eta, const double* y, const double* s,
                        bool weighted, double* w);
    // E19, in units of u |x_i|: the rounding error of r = s d1 after so many additions
    void (*rounding_of)(LossKey loss, Index m, const double* r, const double* y, const double* s,
                        double additions, const double* eta_rounding, double* rounding);
    // The sum of |x_i| times that, where the rounding error of eta is |x_i| `for_each_norm`. norm2 (m,)
    // becomes |x_i|
    double (*sum_of_rounding)(LossKey loss, Index m, const double* r, const double* y, const double* s,
                              double additions, double for_each_norm, double one, double* norm2);
    // slope = s |d1|; rounding = s times the error of d1 at an eta that is off by eta_rounding
    void (*slope_and_rounding)(LossKey loss, Index m, const double* d1, const double* y, const double* s,
                               bool weighted, const double* eta_rounding, double* slope, double* rounding);
    // x = w (x + offset), and 0 where w is 0; returns the sum
    double (*weigh)(Index m, const double* w, double offset, double* x);

    // ---- The multinomial loss of m rows of K predictors (E28), (m, K) class after class ----
    // value = s loss, r (m, K) = s d1, c = sqrt(s) p, whose column k is at c + k stride; returns the sum of
    // values
    double (*softmax_loss)(Index m, Index K, const double* eta, const double* y, const double* s,
                           double* value, double* r, double* c, Index stride);
    // t (m, K) becomes W t, row by row, W = s (diag p - p p^T)
    void (*softmax_hessian_times)(Index m, Index K, const double* c, Index stride, double* t);
    // E32, in units of u |x_i|: the norm of the rounding error of r = s d1 after so many additions
    void (*softmax_rounding)(Index m, Index K, const double* r, const double* s, double additions,
                             const double* eta_rounding, double* rounding);

    // ---- Vectors ----
    double (*sum)(Index n, const double* x);
    double (*dot)(Index n, const double* x, const double* y);
    void (*add_scaled)(Index n, double a, const double* x, double* y);  // y += a x
    bool (*all_finite)(Index n, const void* x, Scalar scalar);

    // ---- Products of packed columns ----
    // Packs the rows of weight w != 0, times sqrt|w|, as terms of a Gram matrix: positive weights from the
    // front, negative ones from the back. `positive` and `negative` become how many there are.
    void (*pack)(const PanelView& X, const double* w, const Packed& terms, Index* positive, Index* negative);
    // Term `term` of every column becomes x (columns,).
    void (*pack_term)(const Packed& terms, Index term, const double* x);
    // lower (p, p) += sign A^T A, A the terms [first, first + count): blocks [begin, end) of packed_block
    // rows
    void (*gram_blocks)(double* lower, Index stride, const Packed& A, Index first, Index count, double sign,
                        Ahead ahead, Index begin, Index end);
    // The top `width` <= max_terms rows and columns of A (p, p) become those of its Cholesky factor, which is
    // also packed into L. Returns the first pivot that is not positive, or -1. `inverse` holds max_terms + 8
    // numbers.
    Index (*factor_top)(double* A, Index stride, const Packed& L, Index width, double* inverse);
    // Rows [begin, end) of these columns follow.
    void (*factor_below)(double* A, Index stride, const Packed& L, Index width, const double* inverse,
                         Index begin, Index end);

    // ---- Symmetric matrices (p, p) ----
    // The lower triangle of a row-major one, column-major. Above the diagonal, `to` is not defined.
    void (*copy_lower)(Index p, const double* from, double* to);
    // The whole of one whose lower triangle is given; `to` may be `from`.
    void (*symmetric_of_lower)(Index p, const double* from, double* to);

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

    // Runs so many rounds of multiply-add chains in registers, to time the machine. `operations` becomes how
    // many operations that were; returns their result.
    double (*chains)(Index rounds, double start, double* operations);
};

// The table in use. The core is given one before anything else, and keeps it.
void use_kernels(const Kernels& table);
extern const Kernels* kernels_in_use;
inline const Kernels& kernels() { return *kernels_in_use; }

// Whether products of CSR rows use gather instructions: off at first, and always off where there are none.
bool gathers();
void set_gathers(bool on);

}  // namespace expunge
