#pragma once
// All of a test framework that is needed here. A file of tests is a program: TEST("claim") { CHECK(...); }
#include <exception>
#include <functional>
#include <string>
#include <vector>

namespace expunge::testing {

struct Test {
    const char* claim;
    void (*body)();
};
inline std::vector<Test> tests;
inline std::string about;  // the case under test, shown by a check that fails
inline int failures = 0;

void check(bool passed, const char* file, int line, const std::string& text);
std::string text_of(double value);

// The message of the Exception that `act` throws.
template <class Exception>
std::string thrown(const std::function<void()>& act) {
    try {
        act();
    } catch (const Exception& e) {
        return e.what();
    }
    return "nothing was thrown";
}

}  // namespace expunge::testing

#define EXPUNGE_JOIN_(a, b) a##b
#define EXPUNGE_JOIN(a, b) EXPUNGE_JOIN_(a, b)
#define TEST(claim)                                                                        \
    static void EXPUNGE_JOIN(test_, __LINE__)();                                           \
    static const bool EXPUNGE_JOIN(registered_, __LINE__) =                                \
        (expunge::testing::tests.push_back({claim, EXPUNGE_JOIN(test_, __LINE__)}), true); \
    static void EXPUNGE_JOIN(test_, __LINE__)()

#define CHECK(condition) expunge::testing::check((condition), __FILE__, __LINE__, #condition)

// A NaN fails.
#define CHECK_AT_MOST(value, bound)                                                                          \
    do {                                                                                                     \
        const auto value_ = static_cast<double>(value), bound_ = static_cast<double>(bound);                 \
        expunge::testing::check(value_ <= bound_, __FILE__, __LINE__,                                        \
                                std::string(#value " <= " #bound ": ") + expunge::testing::text_of(value_) + \
                                    " against " + expunge::testing::text_of(bound_));                        \
    } while (false)
