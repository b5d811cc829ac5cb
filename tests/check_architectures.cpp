// Whether every piece of device code in an executable was compiled for every architecture that was asked for.
//   check_architectures FILE ARCHITECTURE...     as in CMAKE_CUDA_ARCHITECTURES: 90-real, 90-virtual, 120
//   (both)
// Exits with 0, or 1 after a line for each piece and what it lacks; 77 where the architectures are not
// numbers (native, all); 2 where FILE cannot be read as an ELF file.

#include <elf.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace {

/// "ptx 120", "sass 90".
using Code = std::set<std::string>;

template <class T>
T at(std::string_view bytes, std::uint64_t offset) {
  if (offset > bytes.size() || bytes.size() - offset < sizeof(T))
    throw std::runtime_error("it ends too soon");
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

std::string_view part(std::string_view bytes, std::uint64_t offset, std::uint64_t size) {
  if (offset > bytes.size() || bytes.size() - offset < size) throw std::runtime_error("it ends too soon");
  return bytes.substr(offset, size);
}

/// The contents of a section of a 64-bit little-endian ELF file; empty where there is none.
std::string_view section(std::string_view file, std::string_view name) {
  const auto header = at<Elf64_Ehdr>(file, 0);
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64)
    throw std::runtime_error("it is no 64-bit ELF file");
  const auto section_at = [&](std::uint64_t i) {
    return at<Elf64_Shdr>(file, header.e_shoff + i * header.e_shentsize);
  };
  const auto names = section_at(header.e_shstrndx);
  for (int i = 0; i < header.e_shnum; ++i) {
    const auto s = section_at(i);
    const auto text = part(file, names.sh_offset + s.sh_name, name.size() + 1);
    if (text.substr(0, name.size()) == name && text.back() == '\0') return part(file, s.sh_offset, s.sh_size);
  }
  return {};
}

// Device code lies in "fat binaries", one for each source file, one after the other: a header, and entries
// that are each PTX or machine code for one architecture.
struct FatHeader {
  std::uint32_t magic;
  std::uint16_t version, header_bytes;
  std::uint64_t bytes;  // after the header
};
struct EntryHeader {
  std::uint16_t kind, version;
  std::uint32_t header_bytes;
  std::uint64_t bytes;  // after the header
  std::uint32_t unused[3];
  std::uint32_t architecture;  // 90 for 9.0
};
constexpr std::uint32_t kMagic = 0xba55ed50;
constexpr std::uint16_t kPtx = 1, kMachineCode = 2;

Code entries_of(std::string_view fat) {
  Code found;
  while (!fat.empty()) {
    const auto entry = at<EntryHeader>(fat, 0);
    if (entry.header_bytes < sizeof(EntryHeader)) throw std::runtime_error("an entry has no header");
    if (entry.kind == kPtx || entry.kind == kMachineCode)
      found.insert((entry.kind == kPtx ? "ptx " : "sass ") + std::to_string(entry.architecture));
    fat.remove_prefix(entry.header_bytes + part(fat, entry.header_bytes, entry.bytes).size());
  }
  return found;
}

std::vector<Code> code_in(std::string_view bytes) {
  std::vector<Code> all;
  while (!bytes.empty()) {
    if (bytes.front() == '\0') {  // between two of them
      bytes.remove_prefix(1);
      continue;
    }
    const auto header = at<FatHeader>(bytes, 0);
    if (header.magic != kMagic) throw std::runtime_error("its device code has an unknown format");
    all.push_back(entries_of(part(bytes, header.header_bytes, header.bytes)));
    bytes.remove_prefix(header.header_bytes + header.bytes);
  }
  return all;
}

Code expected_of(const std::vector<std::string>& architectures) {
  Code expected;
  for (const std::string& text : architectures) {
    const std::size_t dash = text.find('-');
    std::string number = text.substr(0, dash);
    number.erase(number.find_last_not_of("af") + 1);  // 90a, 100f: variants of one number
    if (number.empty() || number.find_first_not_of("0123456789") != std::string::npos) return {};
    const std::string kind = dash == std::string::npos ? "" : text.substr(dash + 1);
    if (kind != "virtual") expected.insert("sass " + number);
    if (kind != "real") expected.insert("ptx " + number);
  }
  return expected;
}

int check_file(const std::string& name, const std::vector<std::string>& architectures) {
  const Code expected = expected_of(architectures);
  if (expected.empty()) {
    std::cout << "skipped: the architectures are not given as numbers\n";
    return 77;
  }
  std::ifstream stream(name, std::ios::binary);
  const std::string file((std::istreambuf_iterator<char>(stream)), {});
  const std::vector<Code> pieces = code_in(section(file, ".nv_fatbin"));
  int lacking = pieces.empty();
  if (pieces.empty()) std::cout << name << ": holds no device code\n";
  for (std::size_t i = 0; i < pieces.size(); ++i)
    for (const std::string& code : expected)
      if (!pieces[i].contains(code)) {
        std::cout << name << ": piece " << i + 1 << " of " << pieces.size() << " lacks " << code << '\n';
        ++lacking;
      }
  if (lacking) return 1;
  std::cout << name << ": " << pieces.size() << " pieces of device code, each with";
  for (const std::string& code : expected)
    std::cout << ' ' << code << (code == *expected.rbegin() ? "\n" : ",");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: check_architectures FILE ARCHITECTURE...\n";
    return 2;
  }
  try {
    return check_file(argv[1], {argv + 2, argv + argc});
  } catch (const std::exception& error) {
    std::cerr << "check_architectures: " << argv[1] << ": " << error.what() << '\n';
    return 2;
  }
}
