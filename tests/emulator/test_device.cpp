#include "emulator/test_device.h"

#include <map>

#include "emulator/stream.h"

namespace sgm::emulator {
namespace {

std::map<const char*, std::size_t>& blocks() {
  static std::map<const char*, std::size_t> live;
  return live;
}

}  // namespace

void add_device_memory(const void* data, std::size_t bytes) {
  blocks()[static_cast<const char*>(data)] = bytes;
}

void remove_device_memory(const void* data) { blocks().erase(static_cast<const char*>(data)); }

void enqueue(cudaStream_t, std::function<void()> work) { work(); }

bool is_device_pointer(const void* p) {
  if (!p) return true;
  const auto* address = static_cast<const char*>(p);
  const auto next = blocks().upper_bound(address);
  if (next == blocks().begin()) return false;
  const auto& [start, bytes] = *std::prev(next);
  return address < start + bytes;
}

}  // namespace sgm::emulator
