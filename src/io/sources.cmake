target_sources(
  sgm
  PRIVATE io/archive.cpp
          io/atomic_file.cpp
          io/gzip.cpp
          io/input_file.cpp
          io/npy.cpp
          io/system_error.cpp)
