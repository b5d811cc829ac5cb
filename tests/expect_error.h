#pragma once
// The rule for bad input: Error, one line, naming what it should.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "sgm/core/error.h"

namespace sgm {

/// Expects body() to throw Error with one line of text that contains each of `parts`.
template <class Body>
void expect_error(const std::vector<std::string>& parts, Body&& body) {
  try {
    body();
    ADD_FAILURE() << "no error; expected one that names '" << (parts.empty() ? "" : parts[0]) << "'";
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_FALSE(text.empty());
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    EXPECT_LT(text.size(), 1000u) << text;
    for (const std::string& part : parts)
      EXPECT_NE(text.find(part), std::string::npos) << text << "\nlacks: " << part;
  }
}

/// The one line of the Error that run() throws; empty where it throws none.
template <class Run>
std::string error_of(Run&& run) {
  try {
    run();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return error.what();
  }
  return "";
}

inline void expect_contains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "in: " << text << "\nmissing: " << part;
}

}  // namespace sgm
