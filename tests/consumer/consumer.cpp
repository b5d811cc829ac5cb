// What a program that uses the installed library looks like: one evaluation of an untrained network.

#include <sgm/nn/module.h>
#include <sgm/version.h>
#include <iostream>

int main() {
  const auto context = sgm::create_context("cpu");
  const sgm::Config config = sgm::parse_config(R"(
    [data]
    image_size = 8
    [model]
    nf = 16
    ch_mult = [1, 2]
    num_res_blocks = 1
    attn_resolutions = []
  )",
                                               "consumer.toml");
  const auto network = sgm::create_network(config, *context);
  network->set_requires_grad(false);
  const sgm::Tensor label = sgm::Tensor::full(*context, {2}, 1.0, sgm::DType::f64);
  const sgm::Var y = network->forward(sgm::Var(sgm::Tensor::zeros(*context, {2, 8, 8, 3})), label, {});
  std::cout << "sgm " << sgm::kVersion << ": " << y.shape() << '\n';
  return y.shape() == sgm::Shape({2, 8, 8, 3}) ? 0 : 1;
}
