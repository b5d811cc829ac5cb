target_sources(
  sgm
  PRIVATE io/atomic_file.cpp
          io/input_file.cpp
          io/system_error.cpp)
