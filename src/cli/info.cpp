// sgm info: what a checkpoint or any other safetensors file holds.

#include <cstdio>
#include <iostream>

#include "cli/commands.h"
#include "sgm/io/safetensors.h"
#include "sgm/train/checkpoint.h"

namespace sgm::cli {
namespace {

struct InfoOptions {
  std::string file;
  bool tensors = false;
};

int info_command(const InfoOptions& o) {
  const SafeTensorsFile file(resolve_checkpoint(o.file));
  std::cout << "file: " << file.name() << ", " << file.size() << " bytes, " << file.tensors().size()
            << " tensors\n";
  std::int64_t parameters = 0;
  for (const SafeTensorInfo& info : file.tensors())
    if (info.name.starts_with("model.")) parameters += info.shape.numel();
  if (parameters > 0) std::cout << "parameters: " << parameters << '\n';
  for (const auto& [key, value] : file.metadata()) {
    const bool lines = value.find('\n') != std::string::npos;
    std::cout << key << (lines ? ":\n" : ": ") << value << (lines ? "" : "\n");
  }
  if (o.tensors)
    for (const SafeTensorInfo& info : file.tensors())
      std::cout << info.name << ' ' << info.dtype << ' ' << info.shape << '\n';
  return kDone;
}

}  // namespace

void add_info(CLI::App& app, Command& chosen) {
  auto o = std::make_shared<InfoOptions>();
  CLI::App* command = app.add_subcommand("info", "Describe a checkpoint");
  command->add_option("file", o->file, "Checkpoint, or working directory of a run")->required();
  command->add_flag("--tensors", o->tensors, "List every tensor");
  command->callback([o, &chosen] { chosen = [o] { return info_command(*o); }; });
}

}  // namespace sgm::cli
