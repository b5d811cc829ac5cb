#include "sgm/nn/module.h"

#include "nn/mlp.h"
#include "nn/refine_net.h"
#include "nn/unet.h"
#include "sgm/core/registry.h"

namespace sgm {
namespace {

template <class Draw>
Tensor drawn(Builder& builder, Shape shape, Draw&& draw) {
  const NoiseKey key{builder.seed, Purpose::initialise, builder.parameters++};
  if (!builder.draw) return Tensor::empty(builder.context, shape, builder.dtype);
  std::vector<float> values(static_cast<std::size_t>(shape.numel()));
  const std::size_t count = builder.context.is_dry() ? 0 : values.size();  // nobody would read them
  for (std::size_t i = 0; i < count; i += 4) {
    const PhiloxWords words = philox(key, 0, static_cast<std::uint32_t>(i / 4));
    float four[4];
    draw(words, four);
    for (std::size_t j = 0; j < 4 && i + j < values.size(); ++j) values[i + j] = four[j];
  }
  return Tensor::from_host(builder.context, std::span<const float>(values), shape, builder.dtype);
}

}  // namespace

Tensor Builder::uniform(Shape shape, double bound) {
  return drawn(*this, shape, [bound](const PhiloxWords& words, float* out) {
    for (int j = 0; j < 4; ++j)
      out[j] = static_cast<float>(bound) * (2.0f * uniform_from(words.word[j]) - 1.0f);
  });
}

Tensor Builder::normal(Shape shape, double std) {
  return drawn(*this, shape, [std](const PhiloxWords& words, float* out) {
    normals_of(words, out);
    for (int j = 0; j < 4; ++j) out[j] *= static_cast<float>(std);
  });
}

Tensor Builder::constant(Shape shape, double value) { return Tensor::full(context, shape, value, dtype); }

Var& Module::add_parameter(std::string name, Tensor value, std::vector<ReferencePart> reference,
                           bool trainable) {
  own_.push_back({std::move(name), Var(std::move(value), trainable), trainable, std::move(reference)});
  return own_.back().var;
}

std::vector<Parameter> Module::parameters() {
  std::vector<Parameter> result;
  collect("", "", result);
  return result;
}

void Module::collect(const std::string& prefix, const std::string& reference, std::vector<Parameter>& out) {
  for (Own& own : own_) {
    std::vector<ReferencePart> parts = own.reference;
    for (ReferencePart& part : parts) part.name = reference + part.name;
    out.push_back({prefix + own.name, &own.var, own.trainable, std::move(parts)});
  }
  for (Child& child : children_)
    child.module->collect(prefix + child.name + '.',
                          child.reference.empty() ? reference : reference + child.reference + '.', out);
}

void Module::set_requires_grad(bool on) {
  for (Own& own : own_) own.var = Var(own.var.value(), on && own.trainable);
  for (Child& child : children_) child.module->set_requires_grad(on);
}

namespace {

struct NetworkEntry {
  const char* name;
  std::unique_ptr<ScoreNetwork> (*create)(const Config&, Builder&);
};
constexpr NetworkEntry kNetworks[] = {{"ncsnpp", create_ncsnpp},
                                      {"ddpm", create_ddpm},
                                      {"ncsn", create_ncsn},
                                      {"ncsnv2_64", create_ncsnv2_64},
                                      {"ncsnv2_128", create_ncsnv2_128},
                                      {"ncsnv2_256", create_ncsnv2_256},
                                      {"mlp", create_mlp}};

}  // namespace

std::unique_ptr<ScoreNetwork> create_network(const Config& config, Context& context, DType dtype,
                                             bool initialise) {
  Builder builder{context, config.training.seed, dtype, 0, 0, initialise};
  return find_entry(kNetworks, config.model.name, "model.name").create(config, builder);
}

std::vector<std::string> network_names() { return names_of(kNetworks); }

namespace {

/// Our sizes of a part, padded to [rows, R, S, C].
struct PartSizes {
  std::int64_t rows, r, s, c;
  PartSizes(const Tensor& value, const ReferencePart& part) {
    const Shape shape = value.shape();
    rows = part.rows < 0 ? shape[0] : part.rows;
    r = shape.rank() == 4 ? shape[1] : 1;
    s = shape.rank() == 4 ? shape[2] : 1;
    c = shape.rank() == 4 ? shape[3] : shape.rank() == 2 ? shape[1] : 1;
  }
  std::int64_t numel() const { return rows * r * s * c; }
};

/// Calls f(index in our tensor, index in the published one) for every element of a part.
template <class F>
void for_each_element(const Tensor& value, const ReferencePart& part, F&& f) {
  const PartSizes z(value, part);
  const std::int64_t base = part.first_row * z.r * z.s * z.c;
  for (std::int64_t k = 0; k < z.rows; ++k)
    for (std::int64_t r = 0; r < z.r; ++r)
      for (std::int64_t s = 0; s < z.s; ++s)
        for (std::int64_t c = 0; c < z.c; ++c) {
          const std::int64_t ours = ((k * z.r + r) * z.s + s) * z.c + c;
          std::int64_t published = ours;
          if (part.layout == ReferencePart::Layout::oihw) published = ((k * z.c + c) * z.r + r) * z.s + s;
          if (part.layout == ReferencePart::Layout::transposed) published = c * z.rows + k;
          f(base + ours, published);
        }
}

}  // namespace

Shape reference_shape(const Tensor& value, const ReferencePart& part) {
  const PartSizes z(value, part);
  switch (part.layout) {
    case ReferencePart::Layout::oihw: return {z.rows, z.c, z.r, z.s};
    case ReferencePart::Layout::transposed: return {z.c, z.rows};
    case ReferencePart::Layout::same: break;
  }
  switch (value.shape().rank()) {
    case 1: return {z.rows};
    case 2: return {z.rows, z.c};
    default: return {z.rows, z.r, z.s, z.c};
  }
}

std::vector<double> to_reference(const Tensor& value, const ReferencePart& part) {
  const std::vector<double> ours = value.to_host_f64();
  std::vector<double> published(static_cast<std::size_t>(PartSizes(value, part).numel()));
  for_each_element(value, part, [&](std::int64_t i, std::int64_t j) { published[j] = ours[i]; });
  return published;
}

void from_reference(Tensor& value, const ReferencePart& part, std::span<const double> published) {
  check(static_cast<std::int64_t>(published.size()) == PartSizes(value, part).numel(), part.name, ": ",
        published.size(), " values for shape ", reference_shape(value, part));
  std::vector<double> ours = value.to_host_f64();
  for_each_element(value, part, [&](std::int64_t i, std::int64_t j) { ours[i] = published[j]; });
  value.copy_from(Tensor::from_host(value.context(), std::span<const double>(ours), value.shape()));
}

}  // namespace sgm
