#include "check.hpp"

#include <cstdio>

#include "../kernels/table.hpp"

namespace expunge::testing {

void check(bool passed, const char* file, int line, const std::string& text) {
    if (passed) return;
    ++failures;
    std::printf("%s:%d: failed: %s%s%s\n", file, line, text.c_str(), about.empty() ? "" : "  in ",
                about.c_str());
}

std::string text_of(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.17g", value);
    return text;
}

}  // namespace expunge::testing

int main() {
    using namespace expunge::testing;
    expunge::use_kernels(expunge::kernel::table());
    for (const Test& test : tests) {
        const int before = failures;
        about.clear();
        try {
            test.body();
        } catch (const std::exception& e) {
            check(false, test.claim, 0, std::string("threw ") + e.what());
        }
        std::printf("%s  %s\n", failures == before ? "ok    " : "FAILED", test.claim);
    }
    std::printf("%zu tests, %d failed checks\n", tests.size(), failures);
    return failures == 0 && !tests.empty() ? 0 : 1;
}
