#include "emulator/symbols.h"

#include <cxxabi.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cctype>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <string_view>

#include "sgm/core/error.h"

namespace sgm::emulator {
namespace {

/// The symbols of /proc/self/exe, mapped for as long as the program runs.
class SymbolTable {
 public:
  SymbolTable() {
    const int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    struct stat status {};
    if (file < 0 || fstat(file, &status) != 0) fail("kernel emulator: cannot read /proc/self/exe");
    void* image = mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ, MAP_PRIVATE, file, 0);
    close(file);
    check(image != MAP_FAILED, "kernel emulator: cannot map /proc/self/exe");
    const char* base = static_cast<const char*>(image);
    const auto* header = reinterpret_cast<const ElfW(Ehdr)*>(base);
    const std::span sections(reinterpret_cast<const ElfW(Shdr)*>(base + header->e_shoff), header->e_shnum);
    for (const ElfW(Shdr) & section : sections) {
      if (section.sh_type != SHT_SYMTAB) continue;
      symbols_ = {reinterpret_cast<const ElfW(Sym)*>(base + section.sh_offset),
                  section.sh_size / sizeof(ElfW(Sym))};
      names_ = base + sections[section.sh_link].sh_offset;
    }
    // The first object is the program itself.
    dl_iterate_phdr(
        [](dl_phdr_info* info, std::size_t, void* bias) {
          *static_cast<std::uintptr_t*>(bias) = info->dlpi_addr;
          return 1;
        },
        &bias_);
  }

  std::span<const ElfW(Sym)> all() const { return symbols_; }
  std::string_view name(const ElfW(Sym) & symbol) const { return names_ + symbol.st_name; }
  std::uintptr_t address(const ElfW(Sym) & symbol) const { return bias_ + symbol.st_value; }

  /// The mangled name of what is at p; empty: unknown.
  std::string_view at(const void* p, unsigned type) const {
    for (const ElfW(Sym) & symbol : symbols_)
      if (ELF64_ST_TYPE(symbol.st_info) == type && address(symbol) == reinterpret_cast<std::uintptr_t>(p))
        return name(symbol);
    return {};
  }

 private:
  std::span<const ElfW(Sym)> symbols_;
  const char* names_ = nullptr;
  std::uintptr_t bias_ = 0;
};

const SymbolTable& table() {
  static const SymbolTable the_table;
  return the_table;
}

}  // namespace

std::string function_name(const void* function) {
  const std::string mangled(table().at(function, STT_FUNC));
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> demangled(
      abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status), std::free);
  if (status != 0) return mangled;
  // "void sgm::(anonymous namespace)::fill_kernel<float>(float*, long, float)"
  std::string name(demangled.get());
  constexpr std::string_view kAnonymous = "(anonymous namespace)::";
  for (std::size_t i; (i = name.find(kAnonymous)) != std::string::npos;) name.erase(i, kAnonymous.size());
  name.resize(std::min(name.find_first_of("<("), name.size()));
  return name.substr(name.find_last_of(": ") + 1);
}

std::string function_of_variable(const void* variable, const std::string& prefix) {
  // _ZZ <function> E <length> <name>
  const std::string_view name = table().at(variable, STT_OBJECT);
  std::size_t end = name.rfind(prefix);
  check(end != std::string_view::npos,
        "kernel emulator: the program has no symbols of its shared variables; do not strip it");
  while (std::isdigit(static_cast<unsigned char>(name[end - 1]))) --end;
  return std::string(name.substr(0, end));
}

std::vector<Variable> variables_of_function(const std::string& function, const std::string& except) {
  std::vector<Variable> found;
  for (const ElfW(Sym) & symbol : table().all()) {
    if (ELF64_ST_TYPE(symbol.st_info) != STT_OBJECT) continue;
    const std::string_view name = table().name(symbol);
    if (!name.starts_with(function) || name.size() == function.size()) continue;
    const std::string_view rest = name.substr(function.size());
    if (!std::isdigit(static_cast<unsigned char>(rest[0])) || rest.find(except) != std::string_view::npos)
      continue;
    found.push_back({reinterpret_cast<void*>(table().address(symbol)), symbol.st_size});
  }
  return found;
}

}  // namespace sgm::emulator
