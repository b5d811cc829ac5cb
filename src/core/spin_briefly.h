#pragma once
// A setting of OpenMP's that programs make for themselves.

#include <unistd.h>

#include <cstdlib>

namespace sgm {

/// Waiting OpenMP threads spin, by default for about ten milliseconds: on a busy machine that starves the
/// thread they wait for, and a run takes many times as long. The library reads its settings when it is
/// loaded, hence a second start of the program. Settings of the user's own are left alone.
inline void spin_briefly(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") || std::getenv("GOMP_SPINCOUNT")) return;
  setenv("GOMP_SPINCOUNT", "10000", 0);
  execv("/proc/self/exe", argv);  // returns only on failure: then threads spin as they always did
}

}  // namespace sgm
