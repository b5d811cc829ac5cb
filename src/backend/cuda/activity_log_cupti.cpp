// CUPTI is opened when it is asked for, not linked: programs run where it is not installed.

#include <cupti.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>

#include "backend/cuda/activity_log.h"

namespace sgm {
namespace {

/// CUPTI's functions.
struct Cupti {
  decltype(&cuptiActivityRegisterCallbacks) register_callbacks = nullptr;
  decltype(&cuptiActivityEnable) enable = nullptr;
  decltype(&cuptiActivityDisable) disable = nullptr;
  decltype(&cuptiActivityFlushAll) flush = nullptr;
  decltype(&cuptiActivityGetNextRecord) next_record = nullptr;
  decltype(&cuptiActivityPushExternalCorrelationId) push_owner = nullptr;
  decltype(&cuptiActivityPopExternalCorrelationId) pop_owner = nullptr;
  decltype(&cuptiGetResultString) text_of = nullptr;
};

/// Empty, or why the library cannot be used.
std::string open_cupti(Cupti& cupti) {
  constexpr const char* kNames[] = {SGM_CUPTI_LIBRARY, "libcupti.so.13", "libcupti.so.12", "libcupti.so"};
  void* library = nullptr;
  std::string problem;
  for (const char* name : kNames) {
    library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library) break;
    if (problem.empty()) problem = dlerror();
  }
  if (!library) return "CUPTI's library is not there: " + problem;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    if (!function && problem.empty()) problem = std::string("CUPTI's library lacks ") + name;
  };
  problem.clear();
  find(cupti.register_callbacks, "cuptiActivityRegisterCallbacks");
  find(cupti.enable, "cuptiActivityEnable");
  find(cupti.disable, "cuptiActivityDisable");
  find(cupti.flush, "cuptiActivityFlushAll");
  find(cupti.next_record, "cuptiActivityGetNextRecord");
  find(cupti.push_owner, "cuptiActivityPushExternalCorrelationId");
  find(cupti.pop_owner, "cuptiActivityPopExternalCorrelationId");
  find(cupti.text_of, "cuptiGetResultString");
  return problem;
}

constexpr CUpti_ActivityKind kKinds[] = {
    CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION, CUPTI_ACTIVITY_KIND_RUNTIME, CUPTI_ACTIVITY_KIND_DRIVER,
    CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL,    CUPTI_ACTIVITY_KIND_MEMCPY,  CUPTI_ACTIVITY_KIND_MEMSET};
constexpr auto kOwner = CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0;

class CuptiLog final : public ActivityLog {
 public:
  CuptiLog(CudaContext& device, const Cupti& cupti) : device_(device), cupti_(cupti) {}

  ~CuptiLog() override {
    if (!started_) return;
    set_owner(0);
    for (const CUpti_ActivityKind kind : kKinds) cupti_.disable(kind);
    cupti_.flush(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
    const std::lock_guard lock(mutex_of_current());
    current() = nullptr;
  }

  /// Empty, or why nothing is recorded.
  std::string start() {
    {
      const std::lock_guard lock(mutex_of_current());
      if (current()) return "CUPTI keeps a log already";
      current() = this;
      started_ = true;
    }
    std::string problem = problem_of(cupti_.register_callbacks(give_buffer, take_buffer));
    for (const CUpti_ActivityKind kind : kKinds)
      if (problem.empty()) problem = problem_of(cupti_.enable(kind));
    return problem;
  }

  void set_owner(std::uint64_t owner) override {
    std::uint64_t before = 0;
    if (owned_) cupti_.pop_owner(kOwner, &before);
    owned_ = owner != 0;
    if (owned_) cupti_.push_owner(kOwner, owner);
  }

  std::vector<Activity> take() override {
    device_.synchronize();
    cupti_.flush(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
    const std::lock_guard lock(mutex_);
    std::vector<Activity> result;
    for (const Seen& seen : seen_) {
      const auto owner = owners_.find(seen.correlation);
      result.push_back(
          {seen.name, owner == owners_.end() ? 0 : owner->second, seconds(seen.start), seconds(seen.end)});
    }
    std::sort(result.begin(), result.end(), [](const auto& a, const auto& b) { return a.start < b.start; });
    seen_.clear();
    owners_.clear();
    return result;
  }

 private:
  struct Seen {
    std::string name;
    std::uint32_t correlation;
    std::uint64_t start, end;  // nanoseconds
  };
  static constexpr std::size_t kBufferBytes = std::size_t{1} << 20, kBufferAlignment = 8;

  // CUPTI's callbacks know no object.
  static CuptiLog*& current() {
    static CuptiLog* log = nullptr;
    return log;
  }
  static std::mutex& mutex_of_current() {
    static std::mutex mutex;
    return mutex;
  }

  std::string problem_of(CUptiResult result) const {
    if (result == CUPTI_SUCCESS) return {};
    const char* text = "unknown error";
    cupti_.text_of(result, &text);
    std::string problem = std::string("CUPTI records nothing: ") + text;
    if (result == CUPTI_ERROR_INSUFFICIENT_PRIVILEGES)
      problem += "; the driver allows it to root alone, or with NVreg_RestrictProfilingToAdminUsers=0";
    return problem;
  }

  static void CUPTIAPI give_buffer(std::uint8_t** buffer, std::size_t* size, std::size_t* most_records) {
    *buffer = static_cast<std::uint8_t*>(std::aligned_alloc(kBufferAlignment, kBufferBytes));
    *size = *buffer ? kBufferBytes : 0;
    *most_records = 0;
  }

  static void CUPTIAPI take_buffer(CUcontext, std::uint32_t, std::uint8_t* buffer, std::size_t,
                                   std::size_t valid) {
    {
      const std::lock_guard lock(mutex_of_current());
      if (current()) current()->read(buffer, valid);
    }
    std::free(buffer);
  }

  void read(std::uint8_t* buffer, std::size_t valid) {
    const std::lock_guard lock(mutex_);
    CUpti_Activity* record = nullptr;
    while (valid > 0 && cupti_.next_record(buffer, valid, &record) == CUPTI_SUCCESS) read(*record);
  }

  // Later versions of a record begin like earlier ones.
  void read(const CUpti_Activity& record) {
    switch (record.kind) {
      case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL:
      case CUPTI_ACTIVITY_KIND_KERNEL: {
        const auto& kernel = reinterpret_cast<const CUpti_ActivityKernel9&>(record);
        return seen_.push_back({kernel.name, kernel.correlationId, kernel.start, kernel.end});
      }
      case CUPTI_ACTIVITY_KIND_MEMCPY: {
        const auto& copy = reinterpret_cast<const CUpti_ActivityMemcpy5&>(record);
        return seen_.push_back({"copy", copy.correlationId, copy.start, copy.end});
      }
      case CUPTI_ACTIVITY_KIND_MEMSET: {
        const auto& fill = reinterpret_cast<const CUpti_ActivityMemset4&>(record);
        return seen_.push_back({"fill", fill.correlationId, fill.start, fill.end});
      }
      case CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION: {
        const auto& owner = reinterpret_cast<const CUpti_ActivityExternalCorrelation&>(record);
        owners_[owner.correlationId] = owner.externalId;
        return;
      }
      default: return;
    }
  }

  double seconds(std::uint64_t nanoseconds) {
    if (first_ == 0) first_ = nanoseconds;
    return 1e-9 * (static_cast<double>(nanoseconds) - static_cast<double>(first_));
  }

  CudaContext& device_;
  Cupti cupti_;
  bool started_ = false, owned_ = false;
  std::mutex mutex_;  // CUPTI hands over buffers from a thread of its own
  std::vector<Seen> seen_;
  std::map<std::uint32_t, std::uint64_t> owners_;  // by correlation id
  std::uint64_t first_ = 0;
};

}  // namespace

std::unique_ptr<ActivityLog> create_cupti_log(CudaContext& device, std::string* why_not) {
  Cupti cupti;
  std::string problem = open_cupti(cupti);
  std::unique_ptr<CuptiLog> log;
  if (problem.empty()) {
    log = std::make_unique<CuptiLog>(device, cupti);
    problem = log->start();
  }
  if (problem.empty()) return log;
  if (why_not) *why_not = problem;
  return nullptr;
}

}  // namespace sgm
