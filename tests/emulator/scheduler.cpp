#include "emulator/scheduler.h"

#include <bit>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>
#include <numeric>
#include <sstream>

#include "sgm/core/error.h"

uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace sgm::emulator {
namespace {

Scheduler the_scheduler;
std::mutex one_grid_at_a_time;

/// Steele, Lea and Flood's SplitMix64.
class Splitmix {
 public:
  explicit Splitmix(std::uint64_t seed) : state_(seed) {}
  std::uint64_t operator()() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

 private:
  std::uint64_t state_;
};

/// Visits 0 .. n - 1 in the order: a random one is an arithmetic progression modulo n.
class BlockSequence {
 public:
  BlockSequence(const Order& order, std::uint64_t n) : n_(n) {
    if (order.kind == Order::Kind::reverse) {
      next_ = n - 1;
      stride_ = n - 1;
    } else if (order.kind == Order::Kind::random) {
      Splitmix random(order.seed);
      next_ = random() % n;
      stride_ = random() % n;
      while (std::gcd(stride_, n) != 1) stride_ = (stride_ + 1) % n;
    }
  }
  std::uint64_t operator()() {
    const std::uint64_t block = next_;
    next_ = (next_ + stride_) % n_;
    return block;
  }

 private:
  std::uint64_t n_, next_ = 0, stride_ = 1;
};

/// Unwinds the stack of a thread at fault.
struct Faulted {};

std::string coordinates(const uint3& at) {
  std::ostringstream text;
  text << '(' << at.x << ", " << at.y << ", " << at.z << ')';
  return text.str();
}

std::uint64_t volume(const dim3& size) { return std::uint64_t{size.x} * size.y * size.z; }

uint3 unfold(std::uint64_t i, const dim3& size) {
  return {static_cast<unsigned>(i % size.x), static_cast<unsigned>(i / size.x % size.y),
          static_cast<unsigned>(i / size.x / size.y)};
}

}  // namespace

std::uint64_t SharedMark::running_block = 0;

Scheduler& scheduler() { return the_scheduler; }

void Scheduler::run(const Grid& grid, const Order& order) {
  static thread_local bool running_here = false;
  check(!running_here, "kernel emulator: ", grid.kernel, " launched from inside a kernel");
  const std::lock_guard lock(one_grid_at_a_time);
  running_here = true;
  report_signals();
  grid_ = &grid;
  threads_in_block_ = static_cast<int>(volume(grid.threads));
  blockDim = {grid.threads.x, grid.threads.y, grid.threads.z};
  gridDim = {grid.blocks.x, grid.blocks.y, grid.blocks.z};
  // Exactly as large as asked for, so that AddressSanitizer sees the byte behind it.
  shared_ = {std::malloc(grid.shared_bytes), std::free};
  fault_.clear();
  const std::uint64_t blocks = volume(grid.blocks);
  BlockSequence next_block(order, blocks);
  for (std::uint64_t i = 0; i < blocks && fault_.empty(); ++i) {
    const std::uint64_t block = next_block();
    blockIdx = unfold(block, grid.blocks);
    if (i == 0 || order.kind == Order::Kind::random) arrange(order, block);
    run_block();
  }
  grid_ = nullptr;
  running_here = false;
  shared_.reset();
  if (!fault_.empty()) throw Error(fault_);
}

/// Puts the threads of a block in their order.
void Scheduler::arrange(const Order& order, std::uint64_t block) {
  const int n = threads_in_block_;
  std::iota(order_.begin(), order_.begin() + n, 0);
  if (order.kind == Order::Kind::reverse) std::reverse(order_.begin(), order_.begin() + n);
  if (order.kind == Order::Kind::random) {
    Splitmix random(order.seed ^ (block + 1) * 0x9e3779b97f4a7c15u);
    for (int i = n - 1; i > 0; --i) std::swap(order_[i], order_[random() % (i + 1)]);
  }
  for (Warp& warp : warps_) warp.existing = 0;
  for (int position = 0; position < n; ++position) {
    const int linear = order_[position], lane = linear % kLanes;
    threads_[position].linear = linear;
    threads_[position].index = unfold(static_cast<std::uint64_t>(linear), grid_->threads);
    Warp& warp = warps_[linear / kLanes];
    warp.existing |= 1u << lane;
    warp.position[lane] = position;
  }
}

void Scheduler::run_block() {
  const int n = threads_in_block_;
  ++SharedMark::running_block;
  if (grid_->shared_bytes) std::memset(shared_.get(), 0xff, grid_->shared_bytes);
  live_ = n;
  arrived_ = predicates_ = 0;
  static_shared_ = 0;
  for (int word = 0; word < kWords; ++word) {
    const int left = n - 64 * word;
    live_bits_[word] = left >= 64 ? ~std::uint64_t{0} : left > 0 ? (std::uint64_t{1} << left) - 1 : 0;
  }
  runnable_ = live_bits_;
  runnable_words_ = (1u << (n + 63) / 64) - 1;
  for (int position = 0; position < n; ++position) {
    threads_[position].fiber = nullptr;
    threads_[position].at_barrier = false;
    threads_[position].copies.clear();
  }
  for (int warp = 0; warp * kLanes < n; ++warp) {
    warps_[warp].live = warps_[warp].existing;
    warps_[warp].waiting = 0;
  }
  become(0);
  threads_[0].fiber = take_fiber();
  Fiber::switch_to(launcher_, *threads_[0].fiber);
  current_ = -1;
  if (fault_.empty() && live_ > 0)
    fault_ = grid_->kernel + ", block " + coordinates(blockIdx) + ": " + describe_waiting();
  if (!fault_.empty()) abandon();
}

/// Takes back the stacks of the threads that did not return; what they hold is lost.
void Scheduler::abandon() {
  free_.clear();
  for (const auto& fiber : fibers_) free_.push_back(fiber.get());
}

/// The life of a fiber: it runs one thread after the other as long as the next one has not started.
void Scheduler::run_threads() {
  for (;;) {
    Fiber* const fiber = threads_[current_].fiber;
    try {
      grid_->call(grid_->arguments);
      thread_returned();
    } catch (const Faulted&) {
    } catch (const std::exception& error) {
      fault_ = where() + ": threw an exception: " + error.what();
    } catch (...) {
      fault_ = where() + ": threw what is no std::exception";
    }
    if (!fault_.empty()) Fiber::switch_to(*fiber, launcher_, true);
    const int next = first_runnable();
    if (next >= 0 && !threads_[next].fiber) {
      threads_[next].fiber = fiber;
      become(next);
      continue;
    }
    free_.push_back(fiber);
    if (next >= 0) become(next);
    Fiber::switch_to(*fiber, next >= 0 ? *threads_[next].fiber : launcher_, true);
  }
}

void Scheduler::thread_returned() {
  const int linear = threads_[current_].linear;
  const unsigned lane = static_cast<unsigned>(linear % kLanes);
  Warp& warp = warps_[linear / kLanes];
  for (unsigned waiting = warp.waiting; waiting != 0; waiting &= waiting - 1) {
    const int other = std::countr_zero(waiting);
    const Deposit& deposit = warp.deposit[other];
    if (deposit.mask >> lane & 1u)
      fault("returned, while lane " + std::to_string(other) + " waits for it in " + describe(deposit));
  }
  for (const Copy& copy : copies())
    if (!copy.ends_group) fault("returned before its copies to shared memory had arrived");
  warp.live &= ~(1u << lane);
  --live_;
  live_bits_[current_ / 64] &= ~(std::uint64_t{1} << current_ % 64);
  block(current_);
}

int Scheduler::first_runnable() const {
  if (runnable_words_ == 0) return -1;
  const int word = std::countr_zero(runnable_words_);
  return 64 * word + std::countr_zero(runnable_[word]);
}

void Scheduler::make_runnable(int position) {
  runnable_[position / 64] |= std::uint64_t{1} << position % 64;
  runnable_words_ |= 1u << position / 64;
}

void Scheduler::block(int position) {
  std::uint64_t& word = runnable_[position / 64];
  word &= ~(std::uint64_t{1} << position % 64);
  if (word == 0) runnable_words_ &= ~(1u << position / 64);
}

void Scheduler::become(int position) {
  current_ = position;
  threadIdx = threads_[position].index;
}

/// Runs the first thread that can run, until it is the caller's turn again.
void Scheduler::give_way() {
  const int next = first_runnable();
  if (next == current_) return;
  Fiber& me = *threads_[current_].fiber;
  if (next < 0) {
    Fiber::switch_to(me, launcher_);
    return;
  }
  if (!threads_[next].fiber) threads_[next].fiber = take_fiber();
  become(next);
  Fiber::switch_to(me, *threads_[next].fiber);
}

Fiber* Scheduler::take_fiber() {
  if (free_.empty()) {
    fibers_.push_back(std::make_unique<Fiber>(static_cast<int>(fibers_.size())));
    free_.push_back(fibers_.back().get());
    free_.reserve(fibers_.size());
  }
  Fiber* fiber = free_.back();
  free_.pop_back();
  fiber->prepare([] {
    Fiber::entered();
    the_scheduler.run_threads();
  });
  return fiber;
}

int Scheduler::block_barrier(bool predicate, Place place) {
  Thread& me = threads_[current_];
  if (arrived_ > 0 && (barrier_.line != place.line ||
                       (barrier_.file != place.file && std::strcmp(barrier_.file, place.file)))) {
    std::ostringstream text;
    text << "reached __syncthreads at " << place.file << ':' << place.line << ", while " << arrived_
         << " threads of the block wait at " << barrier_.file << ':' << barrier_.line;
    fault(text.str());
  }
  barrier_ = place;
  predicates_ += predicate;
  if (++arrived_ < threads_in_block_) {
    me.at_barrier = true;
    block(current_);
  } else {
    arrived_ = 0;
    barrier_result_ = predicates_;
    predicates_ = 0;
    runnable_ = live_bits_;
    runnable_words_ = (1u << (threads_in_block_ + 63) / 64) - 1;
  }
  give_way();
  me.at_barrier = false;
  return barrier_result_;
}

unsigned Scheduler::live_lanes() const { return warps_[threads_[current_].linear / kLanes].live; }

void* Scheduler::dynamic_shared() const { return shared_.get(); }

void Scheduler::add_static_shared(std::size_t bytes) {
  static_shared_ += bytes;
  const std::size_t total = static_shared_ + grid_->shared_bytes;
  const std::size_t most = grid_->shared_bytes > kPlainShared ? kMostShared : kPlainShared;
  if (total > most)
    fault(std::to_string(static_shared_) + " bytes of static and " + std::to_string(grid_->shared_bytes) +
          " of dynamic shared memory, more than the " + std::to_string(most) + " of such a launch");
}

std::string Scheduler::where() const {
  if (!grid_) return "no kernel";
  std::string text = grid_->kernel + ", block " + coordinates(blockIdx);
  if (current_ >= 0) text += ", thread " + coordinates(threads_[current_].index);
  return text;
}

bool Scheduler::below_stack(const void* address) const {
  return current_ >= 0 && threads_[current_].fiber && threads_[current_].fiber->guards(address);
}

void Scheduler::fault(const std::string& what) {
  fault_ = where() + ": " + what;
  throw Faulted();
}

/// Why nothing can run, though threads are left.
std::string Scheduler::describe_waiting() const {
  std::ostringstream text;
  const int returned = threads_in_block_ - live_;
  if (arrived_ > 0) {
    int someone_else = -1;  // who did not come
    for (int position = 0; position < threads_in_block_; ++position)
      if (!threads_[position].at_barrier && someone_else < 0) someone_else = position;
    text << "__syncthreads at " << barrier_.file << ':' << barrier_.line << " was reached by " << arrived_
         << " of " << threads_in_block_ << " threads";
    if (returned > 0) text << ", " << returned << " have returned";
    if (someone_else >= 0) text << "; not by thread " << coordinates(threads_[someone_else].index);
  }
  const char* separator = arrived_ > 0 ? "; " : "";
  for (int warp = 0; warp * kLanes < threads_in_block_; ++warp) {
    if (warps_[warp].waiting == 0) continue;
    const int lane = std::countr_zero(warps_[warp].waiting);
    text << separator << "lanes 0x" << std::hex << warps_[warp].waiting << std::dec << " of warp " << warp
         << " wait, lane " << lane << " in " << describe(warps_[warp].deposit[lane]);
    break;
  }
  return text.str();
}

}  // namespace sgm::emulator
