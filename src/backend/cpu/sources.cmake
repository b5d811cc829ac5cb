target_sources(
  sgm
  PRIVATE backend/caching_allocator.cpp
          backend/cpu/cpu_context.cpp
          backend/cpu/fill.cpp
          backend/cpu/onednn.cpp)
