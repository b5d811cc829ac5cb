#pragma once
// Device memory and a stream for the tests of the emulator itself: work runs at once, memory is malloc's, so
// AddressSanitizer sees its bounds.

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace sgm::emulator {

/// Tells is_device_pointer of [data, data + bytes).
void add_device_memory(const void* data, std::size_t bytes);
void remove_device_memory(const void* data);

template <class T>
class DeviceArray {
 public:
  /// Every byte 0xff.
  explicit DeviceArray(std::size_t n) : n_(n), data_(static_cast<T*>(std::malloc(n * sizeof(T)))) {
    std::memset(data_, 0xff, n * sizeof(T));
    add_device_memory(data_, n * sizeof(T));
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    std::copy(values.begin(), values.end(), data_);
  }
  ~DeviceArray() {
    remove_device_memory(data_);
    std::free(data_);
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* get() const { return data_; }
  T operator[](std::size_t i) const { return data_[i]; }
  std::vector<T> values() const { return {data_, data_ + n_}; }

 private:
  std::size_t n_;
  T* data_;
};

}  // namespace sgm::emulator
