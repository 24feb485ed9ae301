// Kernels that are called again and again allocate their results, and nothing else once they have been
// called: no pages are faulted in, no lock of an allocator is waited for.
#include <atomic>
#include <cstdlib>
#include <new>

#include "expunge/packed.hpp"
#include "expunge/parallel.hpp"
#include "expunge/triangle.hpp"
#include "problems.hpp"

using namespace expunge;
using namespace expunge::testing;

namespace {
std::atomic<int> allocations = 0;  // a plain number, compilers believe, no allocation changes
}

// Eigen asks malloc, through the linker's --wrap, everything else operator new.
extern "C" {
void* __real_malloc(std::size_t size);
void* __wrap_malloc(std::size_t size) {
    ++allocations;
    return __real_malloc(size);
}
}
void* operator new(std::size_t size) {
    ++allocations;
    if (void* memory = __real_malloc(size)) return memory;
    throw std::bad_alloc();
}
void* operator new(std::size_t size, std::align_val_t alignment) {
    ++allocations;
    const auto step = static_cast<std::size_t>(alignment);
    if (void* memory = std::aligned_alloc(step, (size + step - 1) / step * step)) return memory;
    throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }

namespace {

// How many allocations a call makes that is not the first.
template <class F>
int allocations_of(F&& call) {
    call();
    allocations = 0;
    call();
    return allocations;
}

}  // namespace

TEST("what is counted is every allocation") {
    volatile double kept = 0.0;  // or the compiler leaves it out
    Vector filled;
    CHECK(allocations_of([&] { Vector(Vector::Ones(1000)).swap(filled); }) == 1);
    CHECK(allocations_of([&] { kept = std::vector<double>(1000)[kept > 2.0]; }) == 1);
    CHECK(allocations_of([] { Workspace().take(1000); }) == 1);
    CHECK(allocations_of([] {}) == 0);
}

TEST("a gradient and a Hessian-vector product allocate their results, in every layout of X") {
    set_threads(1);
    for (const bool intercept : {false, true}) {
        const Problem problem = make_problem("several panels", 1000, 37, Logistic{}, intercept);
        const Vector theta = problem.theta;
        for (const Stored& layout : layouts(problem.X)) {
            about = layout.name + (intercept ? ", intercept" : "");
            const Objective J = problem.on(layout.rows);
            const Vector curvature = J.curvature(theta);
            CHECK(allocations_of([&] { J.curvature(theta); }) == 1);
            CHECK(allocations_of([&] { J.evaluate(theta); }) == 3);  // and the penalty's part
            CHECK(allocations_of([&] { J.hvp(curvature, theta); }) == 1);
            J.hvp_at(theta, theta);  // warms up
            CHECK(allocations_of([&] { J.hvp_at(theta, theta); }) == 1);
        }
    }
    about.clear();
}

TEST("gram matrices of dense rows, factors and solves in place allocate nothing") {
    set_threads(1);
    const Index n = 1000, d = 300;
    const RowMatrix X = Random(1).matrix(n, d);
    const Vector w = Random(2).vector(n);
    const RowsView rows = RowsView::dense<double>(X.data(), n, d, 1, all_columns(d));
    Matrix H = Matrix::Zero(d, d);
    CHECK(allocations_of([&] { rows.add_gram(w.data(), H); }) == 0);
    const Matrix A = Random(3).matrix(d, 40);
    CHECK(allocations_of([&] { add_product(H, A, -1.0); }) == 0);
    Matrix L = Matrix::Identity(d, d);
    CHECK(allocations_of([&] { factor_in_place(L); }) == 0);
    const TriangularSolver solver(L);
    Vector b = Random(4).vector(d);
    CHECK(allocations_of([&] {
              solver.forward(L, b);
              solver.backward(L, b);
          }) == 0);
}
