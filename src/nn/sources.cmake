target_sources(sgm PRIVATE nn/blocks.cpp nn/layers.cpp nn/mlp.cpp nn/module.cpp nn/unet.cpp)
