#include "sgm/core/activation.h"

#include "sgm/core/registry.h"

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
  return find_entry(kTable, name, "model.nonlinearity").activation;
}

}  // namespace sgm
