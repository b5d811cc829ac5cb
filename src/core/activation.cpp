#include "sgm/core/activation.h"

#include "sgm/core/error.h"

namespace sgm {

Activation activation_from(const std::string& name) {
  constexpr struct {
    const char* name;
    Activation activation;
  } kTable[] = {{"none", Activation::none},
                {"swish", Activation::swish},
                {"elu", Activation::elu},
                {"relu", Activation::relu},
                {"lrelu", Activation::lrelu}};
  for (const auto& row : kTable)
    if (name == row.name) return row.activation;
  fail("nonlinearity '", name, "' is unknown; known: none, swish, elu, relu, lrelu");
}

}  // namespace sgm
