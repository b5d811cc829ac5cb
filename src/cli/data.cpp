// sgm data: shows what a data set holds.

#include <algorithm>
#include <iostream>

#include "cli/commands.h"
#include "cli/suggest.h"
#include "sgm/data/dataset.h"

namespace sgm::cli {
namespace {

struct PreviewOptions {
  std::string path, out;
  int size = 0, channels = 0, n = 64;
  SuggestOptions suggest;
};

int data_command(const PreviewOptions& o) {
  const auto dataset = open_dataset(o.path, o.size, o.channels);
  std::cout << dataset->describe() << '\n';
  if (dataset->num_classes() > 0) {
    std::vector<std::int64_t> counts(static_cast<std::size_t>(dataset->num_classes()));
    for (std::int64_t i = 0; i < dataset->size(); ++i)
      if (dataset->label(i) >= 0) ++counts[static_cast<std::size_t>(dataset->label(i))];
    const auto& names = dataset->class_names();
    for (std::size_t c = 0; c < counts.size(); ++c)
      std::cout << "  class " << c << (c < names.size() ? " (" + names[c] + ")" : "") << ": " << counts[c]
                << " images\n";
  }
  std::vector<Image> images;
  for (std::int64_t i = 0; i < std::min<std::int64_t>(o.n, dataset->size()); ++i) {
    Image image{dataset->height(), dataset->width(), dataset->channels(), {}};
    image.pixels.resize(static_cast<std::size_t>(dataset->image_bytes()));
    dataset->read(i, image.pixels);
    images.push_back(std::move(image));
  }
  write_png(o.out, make_grid(images));
  std::cout << "preview: " << o.out << " (the first " << images.size() << " images)\n";
  if (o.suggest.wanted) o.suggest.print(*dataset);
  return kDone;
}

}  // namespace

void add_data(CLI::App& app, Command& chosen) {
  auto o = std::make_shared<PreviewOptions>();
  o->out = "preview.png";
  CLI::App* command = app.add_subcommand("data", "Describe a data set and draw a preview of it");
  command->add_option("path", o->path, "IDX, CIFAR-10, folder, zip, .npy or .npz")->required();
  command->add_option("--out", o->out, "PNG file of the preview")->capture_default_str();
  command->add_option("--image-size", o->size, "Resize and crop to this square; 0: as they are")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--channels", o->channels, "1 or 3; 0: as they are")->check(CLI::NonNegativeNumber);
  command->add_option("--n", o->n, "Images in the preview")->check(positive())->capture_default_str();
  o->suggest.add_to(*command);
  command->callback([o, &chosen] { chosen = [o] { return data_command(*o); }; });
}

}  // namespace sgm::cli
