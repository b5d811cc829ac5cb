# Every file of device code: the library compiles them for GPUs, tests/emulator/ for the CPU.
set(
  SGM_CUDA_KERNELS
  attention.cu
  attention_grad.cu
  classifier.cu
  direct_conv.cu
  elementwise.cu
  embedding.cu
  fill.cu
  group_norm.cu
  group_norm_grad.cu
  instance_norm.cu
  ode.cu
  pooling.cu
  reduce.cu
  replace.cu
  sampling.cu
  score_matching.cu
  softmax.cu
  training.cu
  upfirdn.cu)
list(TRANSFORM SGM_CUDA_KERNELS PREPEND ${CMAKE_CURRENT_LIST_DIR}/)
