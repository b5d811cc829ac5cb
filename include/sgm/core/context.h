#pragma once
// Context: one per device. It owns the device's memory and its library handles, is made once in main, and
// travels inside every tensor's storage, so that an op finds it on its operands and nothing is global.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "sgm/core/types.h"

namespace sgm {

/// Bytes held by tensors now, their maximum since reset_peak(), and bytes obtained from the system.
struct MemoryStats {
  std::size_t in_use = 0;
  std::size_t peak = 0;
  std::size_t reserved = 0;
};

/// Device work that was captured once and is launched as a whole.
class Replay {
 public:
  virtual ~Replay() = default;
  /// Repeats the work, on the same memory.
  virtual void launch() = 0;
};

/// What bounds a launch: the device's memory, or its multipliers (convolutions and matrix products).
enum class Traffic { memory_bound, product };

/// One launch on a GPU, one op on a CPU: the bytes of memory that it reads and writes when every operand
/// moves once, and the arithmetic of products.
struct Work {
  const char* kernel;
  Traffic kind = Traffic::memory_bound;
  std::int64_t bytes = 0;
  double flop = 0;
};

/// The sum of the work of one kernel.
struct LaunchCount {
  std::string kernel;
  Traffic kind;
  std::int64_t launches = 0, bytes = 0;
  double flop = 0;
};

/// What a range is around: a part of a step (the forward pass, the optimiser), a layer of the network, or the
/// gradient rule of one op on the tape.
enum class RangeKind { phase, layer, rule };

/// Watches what a context does: nested ranges, ops inside them, and the work of each op.
class Recorder {
 public:
  virtual ~Recorder() = default;
  virtual void enter(RangeKind kind, const char* name) = 0;
  /// An op begins; what it does at the least, whatever launches that takes.
  virtual void enter_op(const Work& op) = 0;
  /// The innermost range or op ends.
  virtual void leave() = 0;
  /// Called before the work is handed to the device.
  virtual void work(const Work& work) = 0;
  /// How a library does the product that comes next, and why so, in one line.
  virtual void plan(const std::string& text) = 0;
  /// The layers that are open now, outermost first, joined by dots.
  virtual std::string layer() const = 0;
};

/// Marks among the work that a device is given, and when it came to each.
class Timeline {
 public:
  virtual ~Timeline() = default;
  virtual void mark() = 0;
  /// Seconds from the first mark to each, in order; waits for the device, and begins anew.
  virtual std::vector<double> take() = 0;
};

/// One launch as the device saw it.
struct Activity {
  std::string kernel;
  std::uint64_t owner = 0;    // as set when it was launched
  double start = 0, end = 0;  // seconds since the log began
};

/// The device's own record of its launches.
class ActivityLog {
 public:
  virtual ~ActivityLog() = default;
  /// Whom launches from now on belong to; 0: nobody.
  virtual void set_owner(std::uint64_t owner) = 0;
  /// All since the last call, in the order of their starts; waits for the device.
  virtual std::vector<Activity> take() = 0;
};

class Context {
 public:
  virtual ~Context() = default;

  virtual bool is_cpu() const = 0;
  /// Whether convolutions of bf16 activations read bf16 weights here.
  virtual bool has_low_weights() const { return false; }
  /// Whether attention over c channels is one kernel here, which keeps no weights.
  virtual bool fuses_attention(DType /*type*/, std::int64_t /*c*/) const { return false; }
  /// One line for people: device, threads or memory, instruction set, library versions.
  virtual std::string describe() const = 0;

  /// Uninitialised memory, 64-byte aligned. Throws Error when the device has no more.
  virtual void* allocate(std::size_t bytes) = 0;
  /// Gives back what allocate(bytes) returned; the memory is kept for later requests.
  virtual void release(void* data, std::size_t bytes) noexcept = 0;
  virtual MemoryStats memory() const = 0;
  virtual void reset_peak() = 0;
  /// Frees the copies of weights, in layouts of libraries, that evaluations have left for later ones.
  virtual void drop_packed_weights() {}

  virtual void copy_from_host(void* device, const void* host, std::size_t bytes) = 0;
  /// Waits for the device.
  virtual void copy_to_host(void* host, const void* device, std::size_t bytes) = 0;

  /// Waits until all work is done. Work that failed throws Error here at the latest.
  virtual void synchronize() {}
  /// Runs `work` in capture mode: its launches are recorded and not executed. Null where the device cannot,
  /// with why_not telling the reason. `work` must not read results; what it uploads is uploaded again at
  /// every replay, unchanged.
  virtual std::unique_ptr<Replay> capture(const std::function<void()>& /*work*/, std::string* why_not) {
    if (why_not) *why_not = "this device executes calls at once";
    return nullptr;
  }
  /// Opens and closes ranges that profilers and the recorder see: Range does.
  void enter(RangeKind kind, const char* name);
  void enter_op(const Work& op);
  void leave();
  /// Whether products of f32 operands may round them to TF32, where there is such a thing.
  virtual void allow_tf32(bool /*on*/) {}
  /// Whether gradients cost time rather than memory: what is cheap to make again is not kept for them.
  void set_recompute(bool on) { recomputes_ = on; }
  bool recomputes() const { return recomputes_; }
  /// Whether gradients of weights that take more room than what they are made of wait for the update, which
  /// has them made when it needs them: see LateGradient. With recomputation outputs of 3x3 filters of few
  /// channels are made again, too.
  void set_late_gradients(bool on) { late_gradients_ = on; }
  bool late_gradients() const { return late_gradients_; }
  /// Times of this device's work: of the host's clock where calls are executed at once.
  virtual std::unique_ptr<Timeline> create_timeline();
  /// Null where the device keeps none, with why_not telling the reason. One at a time.
  virtual std::unique_ptr<ActivityLog> create_activity_log(std::string* why_not) {
    if (why_not) *why_not = "this device executes calls at once";
    return nullptr;
  }
  /// Opens and closes what profilers that wait for the program record (nsys, ncu).
  virtual void set_profiling(bool /*on*/) {}

  /// Whether work is counted and not executed, on memory that is address space only.
  bool is_dry() const { return is_dry_; }
  /// Counts work that is about to be done; false: do not do it, this is a dry run.
  bool note(const Work& work);
  /// Work since the last call, by kernel, most bytes first.
  std::vector<LaunchCount> take_launch_counts();
  /// Tells the recorder, if there is one, how a library does the product that comes next: text() in one line.
  template <class Text>
  void explain(Text&& text) {
    if (recorder_) recorder_->plan(text());
  }
  /// Who is told of ranges and work from now on; null: nobody. Must outlive the watching.
  void set_recorder(Recorder* recorder) { recorder_ = recorder; }
  Recorder* recorder() const { return recorder_; }

  /// A number that this context has not returned before, never 0.
  std::uint64_t next_stamp() { return ++stamp_; }

 protected:
  explicit Context(bool is_dry = false) : is_dry_(is_dry) {}
  /// Whether what is allocated now is going to stay: see LastingMemory.
  bool allocates_lasting() const { return lasting_ > 0; }
  /// Shows named ranges to profilers outside of the program.
  virtual void push_range(const char* /*name*/) {}
  virtual void pop_range() {}

 private:
  friend class LastingMemory;

  const bool is_dry_;
  bool recomputes_ = false, late_gradients_ = false;
  int lasting_ = 0;  // scopes of LastingMemory
  std::atomic<std::uint64_t> stamp_ = 0;
  std::unordered_map<const char*, LaunchCount> counts_;
  Recorder* recorder_ = nullptr;
};

/// A named range, or an op, around a scope.
class Range {
 public:
  Range(Context& context, const char* name, RangeKind kind = RangeKind::layer) : context_(context) {
    context_.enter(kind, name);
  }
  Range(Context& context, const Work& op) : context_(context) { context_.enter_op(op); }
  ~Range() { context_.leave(); }
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;

 private:
  Context& context_;
};

/// What is allocated in its scope stays for long: devices may place it apart from what a step takes and gives
/// back, which then leaves no holes between.
class LastingMemory {
 public:
  explicit LastingMemory(Context& context) : context_(context) { ++context_.lasting_; }
  ~LastingMemory() { --context_.lasting_; }
  LastingMemory(const LastingMemory&) = delete;
  LastingMemory& operator=(const LastingMemory&) = delete;

 private:
  Context& context_;
};

/// "cpu" with `threads` OpenMP threads (0: all cores the process may use), "cuda" (the first device that
/// CUDA_VISIBLE_DEVICES shows), either with tensors of at most `max_memory` bytes (0: all there are), or
/// "cpu-dry" and "cuda-dry": no device at all, memory is address space only and work is counted and not
/// executed. Throws Error for a device that this build or machine lacks, saying which and why.
std::unique_ptr<Context> create_context(const std::string& device = "cpu", int threads = 0,
                                        std::size_t max_memory = 0);

/// Why "cuda" would throw here; empty where it would not.
std::string why_no_cuda();
/// "cuDNN 9.19.0, cuBLASLt 13.1.0, CUDA runtime 13.0", of the libraries that are loaded; empty where this
/// build has no CUDA backend.
std::string cuda_library_versions();

}  // namespace sgm
