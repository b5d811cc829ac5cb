#pragma once
// Temporary memory of an op.

#include "sgm/core/context.h"

namespace sgm {

/// Returned to the device's cache at the end of its scope.
class Scratch {
 public:
  Scratch(Context& context, std::size_t bytes)
      : context_(context), bytes_(bytes), data_(bytes ? context.allocate(bytes) : nullptr) {}
  ~Scratch() {
    if (data_) context_.release(data_, bytes_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  void* data() const { return data_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  Context& context_;
  std::size_t bytes_;
  void* data_;
};

}  // namespace sgm
