#pragma once
// oneDNN behind one small class: the engine, the stream, and primitives cached by everything that defines
// them. The differences between oneDNN 2.x and 3.x end in onednn.cpp.

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <oneapi/dnnl/dnnl.hpp>

#include "backend/scratch.h"
#include "sgm/core/buffer.h"
#include "sgm/core/context.h"

namespace sgm {

class OneDnn {
 public:
  /// dry: memory is address space only; primitives are built, and not executed.
  explicit OneDnn(bool dry) : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_), dry_(dry) {}

  bool is_dry() const { return dry_; }

  dnnl::engine& engine() { return engine_; }
  dnnl::stream& stream() { return stream_; }

  /// A primitive that is built once per key; Entry derives from this.
  struct Entry {
    virtual ~Entry() = default;
  };
  using Key = std::vector<std::int64_t>;

  /// The entry of `key`, made by make() when there is none yet. Primitives are made for a number of threads
  /// and must be executed by as many.
  template <class E, class Make>
  E& cached(Key key, Make&& make) {
    key.push_back(omp_get_max_threads());
    std::unique_ptr<Entry>& slot = entries_[std::move(key)];
    if (!slot) slot = std::make_unique<E>(make());
    return static_cast<E&>(*slot);
  }

  /// Weights in the layout that a primitive wants, kept while (address, version) stay the same.
  struct Packed {
    std::uint64_t version = ~std::uint64_t{0};
    std::unique_ptr<Scratch> storage;
    dnnl::memory memory;
    std::uint64_t used = 0;  // when, in calls of packed()
  };
  /// More tensors than any network has: those of networks that are gone make room.
  static constexpr std::size_t kMostPacked = 1024;

  Packed& packed(const void* weights, const Key& key) {
    Packed& found = packed_[{weights, key}];
    found.used = ++calls_;
    if (packed_.size() > kMostPacked)
      packed_.erase(std::min_element(packed_.begin(), packed_.end(), [](const auto& a, const auto& b) {
        return a.second.used < b.second.used;
      }));
    return found;
  }
  std::size_t packed_count() const { return packed_.size(); }
  void drop_packed() { packed_.clear(); }

 private:
  dnnl::engine engine_;
  dnnl::stream stream_;
  bool dry_;
  std::map<Key, std::unique_ptr<Entry>> entries_;
  std::map<std::pair<const void*, Key>, Packed> packed_;
  std::uint64_t calls_ = 0;
};

/// "2.6.3", the library that runs, not the one that compiled.
std::string onednn_version();
/// The instruction set that oneDNN generates code for, in its own words.
std::string onednn_isa();
/// Whether it multiplies bf16 at all: it wants AVX-512, at least.
bool onednn_takes_bfloats();
/// Whether it multiplies bf16 on units for whole matrices (AMX), many times as fast as vectors do.
bool onednn_multiplies_matrices();

}  // namespace sgm
