// The pool of threads: every task once, errors, several callers; and kernels whose bits do not depend on it.
#include <atomic>
#include <stdexcept>
#include <thread>

#include "expunge/packed.hpp"
#include "expunge/parallel.hpp"
#include "problems.hpp"

using namespace expunge;
using namespace expunge::testing;

namespace {

// Calls visit() with so many threads, and leaves one.
template <class Visit>
void with_threads(int count, Visit&& visit) {
    set_threads(count);
    visit();
    set_threads(1);
}

std::vector<int> counted(Index tasks) {
    std::vector<std::atomic<int>> calls(static_cast<std::size_t>(tasks));
    in_parallel(tasks, [&](Index k) { ++calls[static_cast<std::size_t>(k)]; });
    return {calls.begin(), calls.end()};
}

}  // namespace

TEST("every task is done once, for any number of tasks and threads") {
    for (const int count : {1, 2, 3, 8}) {
        with_threads(count, [] {
            for (const Index tasks : {0, 1, 2, 7, 1000})
                for (int again = 0; again < 20; ++again)
                    CHECK(counted(tasks) == std::vector<int>(static_cast<std::size_t>(tasks), 1));
        });
    }
    CHECK(threads() == 1);
}

TEST("several threads work at a time") {
    with_threads(3, [] {
        std::atomic<int> arrived = 0;
        in_parallel(3, [&](Index) {
            ++arrived;
            while (arrived < 3) std::this_thread::yield();  // would wait for ever for the others
        });
        CHECK(arrived == 3);
    });
}

TEST("tasks of tasks are done by the thread that asks") {
    with_threads(3, [] {
        std::atomic<int> calls = 0;
        in_parallel(5, [&](Index) {
            const auto asking = std::this_thread::get_id();
            in_parallel(4, [&](Index) { calls += std::this_thread::get_id() == asking; });
        });
        CHECK(calls == 20);
    });
}

TEST("an error of a task is thrown, and the pool goes on") {
    for (const int count : {1, 3}) {
        with_threads(count, [] {
            for (int again = 0; again < 50; ++again) {
                CHECK(thrown<std::runtime_error>([] {
                          in_parallel(100, [](Index k) {
                              if (k == 17) throw std::runtime_error("task 17");
                          });
                      }) == "task 17");
                CHECK(counted(10) == std::vector<int>(10, 1));
            }
        });
    }
}

TEST("several callers at once, while the number of threads changes") {
    std::vector<std::thread> callers;
    std::atomic<int> wrong = 0;
    for (int caller = 0; caller < 4; ++caller)
        callers.emplace_back([&] {
            for (int again = 0; again < 200; ++again) wrong += counted(50) != std::vector<int>(50, 1);
        });
    for (int again = 0; again < 50; ++again) set_threads(1 + again % 4);
    for (std::thread& caller : callers) caller.join();
    set_threads(1);
    CHECK(wrong == 0);
}

TEST("kernels give the same bits for any number of threads") {
    const Problem problem = make_problem("normal", 3200, 67, Logistic{}, true);
    const Index n = problem.X.rows(), p = problem.penalty.size();
    const Vector v = Vector::LinSpaced(p, -1.0, 2.0);
    for (const Stored& layout : layouts(problem.X)) {
        about = layout.name;
        const Objective J = problem.on(layout.rows);
        struct Results {
            Evaluation at, with_hessian;
            Vector curvature, product, product_at, diagonal;
            Matrix hessian, of_one_pass, gram;
            double norm, floor, longest;
        };
        const auto results = [&] {
            Results r;
            r.at = J.evaluate(problem.theta);
            r.curvature = J.curvature(problem.theta);
            r.product = J.hvp(r.curvature, v);
            r.product_at = J.hvp_at(problem.theta, v);
            r.diagonal = J.gram_diagonal(r.curvature);
            r.hessian = J.hessian(problem.theta).triangularView<Eigen::Lower>();
            r.longest = std::numeric_limits<double>::quiet_NaN();
            r.with_hessian = J.evaluate(problem.theta, r.longest, r.of_one_pass);
            r.gram = Matrix::Zero(problem.X.cols(), problem.X.cols());
            layout.rows.add_gram(problem.y.data(), r.gram);
            r.norm = J.gram_norm_bound();
            r.floor = J.rounding_floor(problem.theta);
            return r;
        };
        const Results one = results();
        for (const int count : {2, 5}) {
            with_threads(count, [&] {
                const Results many = results();
                CHECK(many.at.value == one.at.value && many.at.gradient == one.at.gradient);
                CHECK(many.at.curvature == one.at.curvature && many.curvature == one.curvature);
                CHECK(many.product == one.product && many.product_at == one.product_at);
                CHECK(many.diagonal == one.diagonal);
                CHECK(many.hessian == one.hessian && many.gram == one.gram);
                CHECK(many.norm == one.norm && many.floor == one.floor);
                CHECK(many.with_hessian.value == one.with_hessian.value);
                CHECK(many.with_hessian.gradient == one.with_hessian.gradient);
                CHECK(many.with_hessian.floor == one.with_hessian.floor && many.longest == one.longest);
                CHECK(many.of_one_pass == one.of_one_pass);
            });
        }
        CHECK(one.at.curvature.size() == n);
    }
}

TEST("large symmetric products give the same bits for any number of threads") {
    const Index p = 1100;
    Matrix A(p, 30);
    for (Index i = 0; i < A.size(); ++i) A.data()[i] = std::sin(static_cast<double>(i));
    Matrix one = Matrix::Identity(p, p);
    add_product(one, A, -1.0);
    CHECK_AT_MOST((one - (Matrix::Identity(p, p) - A * A.transpose()))
                      .triangularView<Eigen::Lower>()
                      .toDenseMatrix()
                      .norm(),
                  1e-10);
    for (const int count : {2, 5}) {
        with_threads(count, [&] {
            Matrix many = Matrix::Identity(p, p);
            add_product(many, A, -1.0);
            CHECK(many == one);
        });
    }
}
