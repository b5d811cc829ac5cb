#pragma once
// Convolutions as cuDNN graphs.

#include <array>
#include <string>

#include "backend/cuda/cudnn_graph.h"
#include "kernels/conv.h"

namespace sgm::cudnn {

/// One convolution that a plan executes. With both bias and residual: y = scale (conv + residual) + bias;
/// with a bias alone y = conv + bias and scale must be 1 (the fusions that cuDNN ships compiled); else scale
/// times the convolution or gradient.
struct ConvGraph {
  enum class Kind { forward, grad_input, grad_weight };

  Kind kind;
  ConvShape shape;  // one input: c2 = 0
  DType type;       // of all operands, the bias too: f32 or bf16
  double scale = 1.0;
  bool bias = false, residual = false;
  bool tf32 = false;  // f32 products may be rounded to ten bits of mantissa

  /// Everything that tells it from others: numbers for look-ups, and one line without spaces for people and
  /// files.
  using Key = std::array<std::int64_t, 19>;
  Key key() const;
  std::string text() const;

  /// The operation graph for `target`. Throws Error when cuDNN refuses to describe it.
  Descriptor describe(const Target& target) const;
  /// Whether results of an engine with these notes may stand for this convolution: deterministic, and as
  /// accurate as the operands' type.
  bool accepts(const EngineNotes& notes) const;
  /// Of every operand, in bytes.
  static constexpr std::int64_t kAlignment = 16;
  /// Bytes of workspace that a plan may ask for.
  std::size_t most_workspace() const;
};

/// Identifiers of a graph's operands in variant packs.
enum Operand : std::int64_t { kInput = 1, kWeight = 2, kOutput = 3, kResidual = 4, kBias = 5 };

}  // namespace sgm::cudnn
