target_sources(
  sgm
  PRIVATE data/array_files.cpp
          data/cifar10.cpp
          data/dataset.cpp
          data/distances.cpp
          data/idx.cpp
          data/image.cpp
          data/image_files.cpp
          data/jpeg.cpp
          data/loader.cpp
          data/pnm.cpp
          data/random_dataset.cpp
          data/resize.cpp
          data/source.cpp
          data/stb.cpp)
