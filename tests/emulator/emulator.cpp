// Launches: their limits, their order, their record; the poison of static shared memory; reports of crashes.

#include <signal.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>
#include <set>
#include <sstream>
#include <utility>

#include "emulator/cuda_emulator.h"
#include "emulator/scheduler.h"
#include "emulator/symbols.h"
#include "sgm/core/error.h"

namespace sgm::emulator {
namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr bool kSanitizerReports = true;
#else
constexpr bool kSanitizerReports = false;
#endif

std::mutex state_lock;

Order order_of_environment() {
  const char* text = std::getenv("SGM_EMULATOR_ORDER");
  return text ? parse_order(text) : Order{};
}

Order& current_order() {
  static Order the_order = order_of_environment();
  return the_order;
}

std::set<std::string>& names_run() {
  static std::set<std::string> names;
  return names;
}

/// Looked up once for each kernel.
const std::string& kernel_name(const Launch& launch, const void* kernel) {
  static std::map<const void*, std::string> names;
  const std::lock_guard lock(state_lock);
  std::string& name = names[kernel];
  if (name.empty()) name = function_name(kernel);
  if (name.empty()) name = launch.name;
  return name;
}

std::string title(const Launch& launch, const void* kernel) {
  return "kernel " + kernel_name(launch, kernel) + " (launch \"" + launch.name + "\")";
}

void record(const std::string& kernel) {
  const std::lock_guard lock(state_lock);
  if (!names_run().insert(kernel).second) return;
  if (const char* path = std::getenv("SGM_EMULATOR_RECORD"))
    std::ofstream(path, std::ios::app) << kernel + '\n';
}

/// Fills shared variables with 0xff. Not instrumented: the sizes that AddressSanitizer's symbols have may
/// include the zone behind the variable.
__attribute__((no_sanitize("address"))) void poison_bytes(const Variable& variable) {
  volatile char* bytes = static_cast<volatile char*>(variable.data);
  for (std::size_t i = 0; i < variable.bytes; ++i) bytes[i] = static_cast<char>(0xff);
}

}  // namespace

/// The shared variables of one function, which may have several marks.
struct SharedVariables {
  explicit SharedVariables(std::vector<Variable> variables) : all(std::move(variables)) {}

  std::vector<Variable> all;
  std::uint64_t poisoned_in = 0;  // block
};

namespace {

SharedVariables& shared_of_function(const SharedMark* mark) {
  static std::map<const void*, SharedVariables> functions;  // by their first variable
  std::vector<Variable> all = variables_beside(mark, "sgm_emulator_shared_");
  const void* first = all.empty() ? mark : all.front().data;
  return functions.try_emplace(first, std::move(all)).first->second;
}

const char* meaning_of(int signal, const void* address) {
  if (signal == SIGFPE) return "integer division by zero";
  if (signal == SIGSEGV && scheduler().below_stack(address)) return "stack overflow, too large local arrays";
  return "access of memory that is not there, or misaligned";
}

/// Prints what happened and returns to the faulty instruction, which then kills the process. The process is
/// lost, so what a signal handler may not do (allocate) does no further harm.
void report(int signal, siginfo_t* info, void*) {
  const std::string text = "kernel emulator: " + scheduler().where() + ": " +
                           meaning_of(signal, info->si_addr) + " (" + strsignal(signal) + ")\n";
  [[maybe_unused]] const auto written = write(STDERR_FILENO, text.data(), text.size());
}

/// A stack for the handler: that of the fiber may be full.
void install() {
  static thread_local std::array<char, 64 * 1024> stack;
  stack_t description{};
  description.ss_sp = stack.data();
  description.ss_size = stack.size();
  sigaltstack(&description, nullptr);
  struct sigaction action {};
  action.sa_sigaction = report;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | static_cast<int>(SA_RESETHAND);
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE}) sigaction(signal, &action, nullptr);
}

}  // namespace

void report_signals() {
  if (kSanitizerReports) return;
  static thread_local const bool installed = (install(), true);
  static_cast<void>(installed);
}

Order parse_order(const std::string& text) {
  if (text == "forward") return {};
  if (text == "reverse") return {Order::Kind::reverse, 0};
  const std::string random = "random:";
  if (text.starts_with(random) && text.size() > random.size() &&
      text.find_first_not_of("0123456789", random.size()) == std::string::npos)
    return {Order::Kind::random, std::strtoull(text.c_str() + random.size(), nullptr, 10)};
  fail("order of emulated threads: expected forward, reverse or random:SEED, got '", text, "'");
}

std::string to_string(const Order& order) {
  switch (order.kind) {
    case Order::Kind::forward: return "forward";
    case Order::Kind::reverse: return "reverse";
    case Order::Kind::random: return "random:" + std::to_string(order.seed);
  }
  return "";
}

Order order() {
  const std::lock_guard lock(state_lock);
  return current_order();
}

void set_order(const Order& order) {
  const std::lock_guard lock(state_lock);
  current_order() = order;
}

std::vector<std::string> kernels_run() {
  const std::lock_guard lock(state_lock);
  return {names_run().begin(), names_run().end()};
}

void check_launch(const Launch& launch, const void* kernel) {
  const dim3 &blocks = launch.blocks, &threads = launch.threads;
  const std::string name = title(launch, kernel);
  const auto in_block = static_cast<std::uint64_t>(threads.x) * threads.y * threads.z;
  check(in_block > 0 && in_block <= 1024 && threads.x <= 1024 && threads.y <= 1024 && threads.z <= 64, name,
        ": a block has 1 to 1024 threads and at most 64 along z, got ", threads.x, " x ", threads.y, " x ",
        threads.z);
  check(blocks.x > 0 && blocks.y > 0 && blocks.z > 0 && blocks.x <= 0x7fffffffu && blocks.y <= 65535 &&
            blocks.z <= 65535,
        name, ": a grid has 1 to 2147483647 blocks along x and 1 to 65535 along y and z, got ", blocks.x,
        " x ", blocks.y, " x ", blocks.z);
  check(launch.shared_bytes <= kMostShared, name, ": a block has at most ", kMostShared,
        " bytes of shared memory, got ", launch.shared_bytes);
}

void check_pointer(const Launch& launch, const void* kernel, int position, const void* pointer) {
  if (is_device_pointer(pointer)) return;
  fail(title(launch, kernel), ": argument ", position, ", ", pointer, ", is not a pointer to device memory");
}

void run(const Launch& launch, const void* kernel, void (*call)(const void*), const void* arguments) {
  record(kernel_name(launch, kernel));
  const Grid grid{title(launch, kernel), launch.blocks, launch.threads, launch.shared_bytes, call, arguments};
  scheduler().run(grid, order());
}

void* dynamic_shared() { return scheduler().dynamic_shared(); }

std::uint64_t warp_call(WarpOp op, unsigned mask, std::uint64_t value, unsigned operand, int width,
                        Place place) {
  return scheduler().warp_call(op, mask, value, operand, width, place);
}

int block_barrier(bool predicate, Place place) { return scheduler().block_barrier(predicate, place); }

unsigned live_lanes() { return scheduler().live_lanes(); }

void misaligned(const void* p, std::size_t bytes) {
  std::ostringstream text;
  text << "access of " << bytes << " bytes at " << p << ", which is not a multiple of " << bytes;
  scheduler().fault(text.str());
}

void SharedMark::poison() {
  block_ = running_block;
  if (!variables_) variables_ = &shared_of_function(this);
  if (variables_->poisoned_in == running_block) return;
  variables_->poisoned_in = running_block;
  std::size_t bytes = 0;
  for (const Variable& variable : variables_->all) {
    poison_bytes(variable);
    bytes += variable.bytes;
  }
  scheduler().add_static_shared(bytes);
}

float product(float a, float b) { return a * b; }
float sum(float a, float b) { return a + b; }
double product(double a, double b) { return a * b; }
double sum(double a, double b) { return a + b; }

}  // namespace sgm::emulator
