target_sources(
  sgm
  PRIVATE backend/block_pool.cpp
          backend/caching_allocator.cpp
          backend/create_context.cpp
          backend/memory_source.cpp
          backend/cpu/attention.cpp
          backend/cpu/batched_product.cpp
          backend/cpu/classifier.cpp
          backend/cpu/conv.cpp
          backend/cpu/cpu_context.cpp
          backend/cpu/elementwise.cpp
          backend/cpu/exact.cpp
          backend/cpu/fill.cpp
          backend/cpu/group_norm.cpp
          backend/cpu/group_norm_grad.cpp
          backend/cpu/host_memory.cpp
          backend/cpu/instance_norm.cpp
          backend/cpu/onednn.cpp
          backend/cpu/pooling.cpp
          backend/cpu/replace.cpp
          backend/cpu/sampling.cpp
          backend/cpu/score_matching.cpp
          backend/cpu/tile_product.cpp
          backend/cpu/training.cpp
          backend/cpu/unfold_conv.cpp
          backend/cpu/upfirdn.cpp
          backend/cpu/widened.cpp
          backend/cpu/winograd.cpp)

# Their vectors are wider than the registers of portable builds, but no other file sees them.
set_source_files_properties(backend/cpu/batched_product.cpp backend/cpu/unfold_conv.cpp
                            backend/cpu/winograd.cpp
                            PROPERTIES COMPILE_OPTIONS $<$<CXX_COMPILER_ID:GNU>:-Wno-psabi>)

# Noise is drawn by most of what runs, under the sanitizers too.
set_source_files_properties(backend/cpu/sampling.cpp PROPERTIES COMPILE_OPTIONS $<$<CONFIG:Debug>:-O2>)
