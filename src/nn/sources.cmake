target_sources(sgm PRIVATE nn/blocks.cpp nn/layers.cpp nn/mlp.cpp nn/module.cpp nn/network_parts.cpp nn/refine_blocks.cpp nn/refine_net.cpp nn/unet.cpp nn/wide_resnet.cpp)
