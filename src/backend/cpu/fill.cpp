#include "kernels/fill.h"

#include <cstring>

namespace sgm {

void Fill::cpu(Context&) const {
  dispatch_float(y.dtype, "fill", [&]<class T>(T) {
    T* out = y.as<T>();
    const T v = static_cast<T>(static_cast<Accumulator<T>>(value));
#pragma omp parallel for simd if (n > 65536)
    for (std::int64_t i = 0; i < n; ++i) out[i] = v;
  });
}

void Cast::cpu(Context&) const {
  if (x.dtype == y.dtype && scale == 1.0) {
    std::memcpy(y.data, x.data, static_cast<std::size_t>(n) * size_of(x.dtype));
    return;
  }
  dispatch_float(x.dtype, "cast", [&]<class From>(From) {
    dispatch_float(y.dtype, "cast", [&]<class To>(To) {
      const From* in = x.as<From>();
      To* out = y.as<To>();
      const auto factor = static_cast<Accumulator<From>>(scale);
#pragma omp parallel for simd if (n > 65536)
      for (std::int64_t i = 0; i < n; ++i)
        out[i] =
            static_cast<To>(static_cast<Accumulator<To>>(factor * static_cast<Accumulator<From>>(in[i])));
    });
  });
}

}  // namespace sgm
