target_sources(
  sgm
  PRIVATE io/append_file.cpp
          io/archive.cpp
          io/atomic_file.cpp
          io/crc32c.cpp
          io/file_lock.cpp
          io/gzip.cpp
          io/input_file.cpp
          io/npy.cpp
          io/safetensors.cpp
          io/system_error.cpp
          io/tfevents.cpp)
