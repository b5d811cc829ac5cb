#pragma once
// The symbol table of the running program: names of kernels, and where their shared variables are.

#include <cstddef>
#include <string>
#include <vector>

namespace sgm::emulator {

/// The function's name as the source declares it, without namespaces, template arguments and parameters;
/// empty when the program has been stripped.
std::string function_name(const void* function);

struct Variable {
  void* data;
  std::size_t bytes;
};

/// What the mangled names of a function's static variables begin with, told by one of them, whose own name
/// begins with `prefix`. Throws Error when the program has been stripped.
std::string function_of_variable(const void* variable, const std::string& prefix);

/// Those static variables, without the ones whose names begin with `except`.
std::vector<Variable> variables_of_function(const std::string& function, const std::string& except);

}  // namespace sgm::emulator
