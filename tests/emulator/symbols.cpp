#include "emulator/symbols.h"

#include <cxxabi.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
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

  /// The symbol of what is at p; null: unknown.
  const ElfW(Sym) * at(const void* p, unsigned type) const {
    for (const ElfW(Sym) & symbol : symbols_)
      if (ELF64_ST_TYPE(symbol.st_info) == type && address(symbol) == reinterpret_cast<std::uintptr_t>(p))
        return &symbol;
    return nullptr;
  }

  /// The symbols among which another part of the symbol's function is: those of its source file when it is
  /// local to that, else all that are not local. (Local symbols follow the name of their file.)
  std::span<const ElfW(Sym)> around(const ElfW(Sym) & symbol) const {
    const auto is_file = [](const ElfW(Sym) & other) { return ELF64_ST_TYPE(other.st_info) == STT_FILE; };
    const auto is_global = [](const ElfW(Sym) & other) { return ELF64_ST_BIND(other.st_info) != STB_LOCAL; };
    const ElfW(Sym)* const end = symbols_.data() + symbols_.size();
    if (is_global(symbol)) return {std::find_if(symbols_.data(), end, is_global), end};
    const ElfW(Sym)* first = &symbol;
    while (first != symbols_.data() && !is_file(*first)) --first;
    return {first, std::find_if(&symbol, end, is_file)};
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
  const ElfW(Sym)* symbol = table().at(function, STT_FUNC);
  if (!symbol) return {};
  const std::string mangled(table().name(*symbol));
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

std::vector<Variable> variables_beside(const void* mark, std::string_view mark_prefix) {
  // Names are _ZZ <function> E <length> <name>.
  const ElfW(Sym)* symbol = table().at(mark, STT_OBJECT);
  check(symbol, "kernel emulator: the program has no symbols of its shared variables; do not strip it");
  std::string_view function = table().name(*symbol);
  std::size_t end = function.rfind(mark_prefix);
  while (std::isdigit(static_cast<unsigned char>(function[end - 1]))) --end;
  function = function.substr(0, end);
  std::vector<Variable> found;
  for (const ElfW(Sym) & other : table().around(*symbol)) {
    const std::string_view name = table().name(other);
    if (ELF64_ST_TYPE(other.st_info) != STT_OBJECT || !name.starts_with(function)) continue;
    const std::string_view rest = name.substr(function.size());
    if (rest.empty() || !std::isdigit(static_cast<unsigned char>(rest[0])) ||
        rest.find(mark_prefix) != std::string_view::npos)
      continue;
    found.push_back({reinterpret_cast<void*>(table().address(other)), other.st_size});
  }
  return found;
}

}  // namespace sgm::emulator
