#pragma once
// Settings of the libraries below that programs make for themselves.

#include <malloc.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace sgm {

/// To be called first. Waiting OpenMP threads spin, by default for about ten milliseconds: on a busy machine
/// that starves the thread they wait for, and a run takes many times as long. The library reads its settings
/// when it is loaded, hence a second start of the program. And the heap keeps what large blocks once took,
/// for the next of them, unless told not to. Settings of the user's own are left alone.
inline void settle_process(char** argv) {
#ifdef M_MMAP_THRESHOLD
  const char* const tunables = std::getenv("GLIBC_TUNABLES");
  if (!std::getenv("MALLOC_MMAP_THRESHOLD_") && !(tunables && std::strstr(tunables, "mmap_threshold")))
    mallopt(M_MMAP_THRESHOLD, 128 << 10);
#endif
  if (std::getenv("OMP_WAIT_POLICY") || std::getenv("GOMP_SPINCOUNT")) return;
  setenv("GOMP_SPINCOUNT", "10000", 0);
  execv("/proc/self/exe", argv);  // returns only on failure: then threads spin as they always did
}

}  // namespace sgm
