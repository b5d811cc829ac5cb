#include "sgm/core/precision.h"

#include "sgm/core/registry.h"

namespace sgm {
namespace {

constexpr struct {
  const char* name;
  DType storage;
  bool tf32;
} kPrecisions[] = {{"f32", DType::f32, false}, {"tf32", DType::f32, true}, {"bf16", DType::bf16, false}};

}  // namespace

DType use_precision(Context& context, const std::string& precision, const char* key) {
  const auto& entry = find_entry(kPrecisions, precision, key);
  context.allow_tf32(entry.tf32);
  return entry.storage;
}

}  // namespace sgm
