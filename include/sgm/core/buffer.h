#pragma once
// Untyped memory operands of kernel ops.

#include "sgm/core/types.h"

namespace sgm {

/// Memory that an op reads; `data` is null for an absent optional operand.
struct ConstBuffer {
  const void* data = nullptr;
  DType dtype = DType::f32;

  explicit operator bool() const { return data != nullptr; }
  template <class T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
};

/// Memory that an op writes; `data` is null for an output that is not wanted.
struct Buffer {
  void* data = nullptr;
  DType dtype = DType::f32;

  explicit operator bool() const { return data != nullptr; }
  operator ConstBuffer() const { return {data, dtype}; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

}  // namespace sgm
