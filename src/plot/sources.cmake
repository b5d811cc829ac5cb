target_sources(
  sgm
  PRIVATE plot/canvas.cpp
          plot/color.cpp
          plot/figure.cpp
          plot/gif.cpp
          plot/marks.cpp
          plot/palette.cpp
          plot/ticks.cpp)
