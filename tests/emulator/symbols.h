#pragma once
// The symbol table of the running program: names of kernels, and where their shared variables are.

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace sgm::emulator {

/// The function's name as the source declares it, without namespaces, template arguments and parameters;
/// empty when the program has been stripped.
std::string function_name(const void* function);

struct Variable {
  void* data;
  std::size_t bytes;
};

/// The static variables of the function of which `mark` is one, without marks: those whose names begin with
/// mark_prefix. Throws Error when the program has been stripped.
std::vector<Variable> variables_beside(const void* mark, std::string_view mark_prefix);

}  // namespace sgm::emulator
