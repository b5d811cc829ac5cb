target_sources(
  sgm
  PRIVATE profile/ceilings.cpp
          profile/json.cpp
          profile/profiler.cpp
          profile/rows.cpp
          profile/table.cpp)
