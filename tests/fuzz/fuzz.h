#pragma once
// What a fuzz target supplies, and the rule that all of them share. A target is one .cpp with
// LLVMFuzzerTestOneInput() and fuzz_seeds(); driver.cpp mutates the seeds. Without driver.cpp the same file
// links with clang's -fsanitize=fuzzer.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include "sgm/core/error.h"

/// Runs the reader on one input; returns 0. Must accept anything.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

/// Valid inputs, small ones, that the driver mutates.
std::vector<std::string> fuzz_seeds();

namespace sgm {

/// A reader given arbitrary bytes either succeeds or throws Error with one line of text; anything else
/// aborts.
template <class Reader>
int expect_success_or_error(const std::uint8_t* data, std::size_t size, Reader&& reader) {
  try {
    reader(std::as_bytes(std::span(data, size)));
  } catch (const Error& error) {
    const std::string text = error.what();
    const bool is_one_line = !text.empty() && text.size() < 4096 && text.find('\n') == std::string::npos;
    if (!is_one_line) {
      std::fprintf(stderr, "the error is not one line of text: %s\n", text.c_str());
      std::abort();
    }
  }
  return 0;
}

}  // namespace sgm
