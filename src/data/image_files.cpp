// Sets of image files: a zip or a folder of them, with labels from dataset.json or from subfolders.

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "data/source.h"
#include "sgm/core/error.h"
#include "sgm/io/archive.h"
#include "sgm/io/printable.h"

namespace sgm {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLabelFile = "dataset.json";
constexpr std::uint64_t kMaxLabelFileBytes = std::uint64_t{1} << 28;

[[noreturn]] void fail_no_images(const std::string& where) {
  fail(where, ": holds no images (", image_extensions(), "); name a folder or zip of images");
}

class ZipSource : public Source {
 public:
  ZipSource(ZipReader zip, const std::string& name) : zip_(std::move(zip)), name_(name) {
    for (const std::string& entry : zip_.names())
      if (has_image_extension(entry) && !is_hidden(entry)) images_.push_back(entry);
    if (images_.empty()) fail_no_images(name_);
    if (!zip_.contains(kLabelFile)) return;
    const Bytes text = zip_.read(kLabelFile, kMaxLabelFileBytes);
    labels = labels_from_json({reinterpret_cast<const char*>(text.data()), text.size()}, images_,
                              name_ + ": " + kLabelFile);
  }

  std::int64_t size() const override { return static_cast<std::int64_t>(images_.size()); }
  std::string name_of(std::int64_t i) const override { return name_ + ": " + printable(images_[i]); }
  Image image(std::int64_t i) const override {
    return decode_image(zip_.read(images_[i], kMaxImageFileBytes), name_of(i));
  }

 private:
  /// macOS packs ._ companions of every file.
  static bool is_hidden(const std::string& entry) {
    return fs::path(entry).filename().string().starts_with('.');
  }

  ZipReader zip_;
  std::string name_;
  std::vector<std::string> images_;
};

class FolderSource : public Source {
 public:
  explicit FolderSource(const fs::path& folder) : folder_(folder) {
    for (auto entry = fs::recursive_directory_iterator(folder); entry != fs::recursive_directory_iterator();
         ++entry) {
      if (entry->path().filename().string().starts_with('.')) {
        if (entry->is_directory()) entry.disable_recursion_pending();
      } else if (has_image_extension(entry->path()) && entry->is_regular_file()) {
        images_.push_back(entry->path().lexically_relative(folder).generic_string());
      }
    }
    const std::string name = printable(folder.native());
    if (images_.empty()) fail_no_images(name);
    std::ranges::sort(images_);
    const fs::path label_file = folder / kLabelFile;
    labels = fs::exists(label_file) ? labels_from_json(read_text(label_file, kMaxLabelFileBytes), images_,
                                                       printable(label_file.native()))
                                    : labels_from_subfolders(name);
  }

  std::int64_t size() const override { return static_cast<std::int64_t>(images_.size()); }
  std::string name_of(std::int64_t i) const override { return printable((folder_ / images_[i]).native()); }
  Image image(std::int64_t i) const override { return read_image(folder_ / images_[i]); }

 private:
  Labels labels_from_subfolders(const std::string& name) const {
    std::map<std::string, int> classes;
    for (const std::string& image : images_) {
      const std::size_t slash = image.find('/');
      if (slash == std::string::npos) return {};
      classes.emplace(image.substr(0, slash), 0);
    }
    std::vector<std::string> names;
    for (auto& [folder, number] : classes) {
      number = static_cast<int>(names.size());
      names.push_back(folder);
    }
    std::vector<int> numbers;
    for (const std::string& image : images_) numbers.push_back(classes[image.substr(0, image.find('/'))]);
    return checked_labels(std::move(numbers), size(), std::move(names), name);
  }

  fs::path folder_;
  std::vector<std::string> images_;  // relative to the folder, with slashes
};

std::vector<std::string> class_names_from(const nlohmann::json& json, const std::string& where) {
  std::vector<std::string> names;
  const auto found = json.find("classes");
  if (found == json.end() || found->is_null()) return names;
  check(found->is_array() && found->size() <= kMaxClasses, where, ": 'classes' must be a list of names");
  for (const nlohmann::json& name : *found) {
    check(name.is_string(), where, ": 'classes' must be a list of names");
    names.push_back(name.get<std::string>());
  }
  return names;
}

}  // namespace

Labels labels_from_json(const std::string& text, const std::vector<std::string>& names,
                        const std::string& where) {
  nlohmann::json json;
  try {
    json = nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    fail(where, ": not valid JSON (", printable(error.what()), "); write it again");
  }
  check(json.is_object(), where, ": must be an object with 'labels'");
  const auto list = json.find("labels");
  if (list == json.end() || list->is_null()) return {};
  check(list->is_array(), where, ": 'labels' must be a list of [name, class] or null");

  std::map<std::string, int> class_of;
  for (const nlohmann::json& pair : *list) {
    const bool is_pair =
        pair.is_array() && pair.size() == 2 && pair[0].is_string() && pair[1].is_number_integer();
    check(is_pair, where, ": label ", class_of.size(), " is not [name, class number]");
    const bool is_possible = pair[1].is_number_unsigned() && pair[1].get<std::uint64_t>() < kMaxClasses;
    const std::string name = pair[0].get<std::string>();
    check(is_possible, where, ": the class of '", printable(name), "' is not in 0 to ", kMaxClasses - 1);
    check(class_of.emplace(name, pair[1].get<int>()).second, where, ": '", printable(name),
          "' has two labels");
  }
  std::vector<int> classes;
  for (const std::string& name : names) {
    const auto found = class_of.find(name);
    check(found != class_of.end(), where, ": has no label for '", printable(name),
          "'; label all images or none");
    classes.push_back(found->second);
  }
  return checked_labels(std::move(classes), static_cast<std::int64_t>(names.size()),
                        class_names_from(json, where), where);
}

std::unique_ptr<Source> zip_source(Bytes archive, const std::string& name) {
  return std::make_unique<ZipSource>(ZipReader(std::move(archive), name), name);
}

std::unique_ptr<Source> open_zip(const fs::path& path) {
  return std::make_unique<ZipSource>(ZipReader(path), printable(path.native()));
}

std::unique_ptr<Source> open_image_folder(const fs::path& folder) {
  return std::make_unique<FolderSource>(folder);
}

}  // namespace sgm
