// sgm sample: draws images from a checkpoint.

#include "cli/commands.h"
#include "cli/guidance.h"
#include "cli/model.h"

namespace sgm::cli {
namespace {

struct SampleOptions {
  std::string out;
  ModelOptions model;
  SamplingOptions sampling;
  BatchOptions batches;
  GuidanceOptions guidance;
};

int sample_command(const SampleOptions& options) {
  resolve_checkpoint(options.model.model);
  const bool guided = options.guidance.given();
  check(!guided || options.batches.first == 0,
        "--first cannot be used with --class: the number of an image "
        "decides its class");
  ImageOutput out(options.out, options.batches.first);
  const auto model = options.model.open();
  const auto sampler = create_sampler(*model->sde, options.sampling.apply(model->config().sampling));
  if (!guided)
    return generate(*model, options.batches, out, [&](SampleRequest& request) {
      return sampler->sample(*model->context, model->score, request);
    });
  BatchOptions batches = options.batches;
  const Guidance guidance(options.guidance, *model, batches.n);
  batches.n = guidance.images();
  const auto make = [&](SampleRequest& request) {
    const ScoreFn score = guidance.score(request.first_sample, request.shape[0]);
    return sampler->sample(*model->context, score, request);
  };
  return generate(*model, batches, out, make, guidance.columns());
}

}  // namespace

void add_sample(CLI::App& app, Command& chosen) {
  auto o = std::make_shared<SampleOptions>();
  CLI::App* command = app.add_subcommand("sample", "Draw images from a trained model");
  o->model.add_to(*command);
  command->add_option("--out", o->out, "grid.png, samples.npz or a folder")->required();
  o->batches.add_to(*command);
  command
      ->add_option("--first", o->batches.first, "Number of the first image: parts of a job can be made apart")
      ->check(CLI::NonNegativeNumber);
  o->sampling.add_to(*command);
  o->guidance.add_to(*command);
  command->callback([o, &chosen] { chosen = [o] { return sample_command(*o); }; });
}

}  // namespace sgm::cli
