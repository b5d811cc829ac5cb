// A mutation loop for the fuzz targets that needs no libFuzzer.
//
//   fuzz_x [--seconds N] [--seed S]   mutates the target's seeds for N seconds (default 5)
//   fuzz_x FILE...                    runs the target on these files
//
// Input i is a pure function of (seed, i). The loop runs in a child process; the parent holds the current
// input in shared memory, so that a crash, a sanitizer report or a hang leaves it behind as
// <program>-crash.bin.

#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <fstream>
#include <iterator>

#include "fuzz/fuzz.h"
#include "sgm/core/random.h"

#if defined(__SANITIZE_ADDRESS__)
// A reader that believes a size in a damaged header asks for far more than this.
extern "C" const char* __asan_default_options() {
  return "max_allocation_size_mb=1024:allocator_may_return_null=0";
}
#endif

namespace {

constexpr std::size_t kMaxInput = std::size_t{1} << 18;
constexpr int kSecondsPerInput = 20;  // a slower input counts as a hang
constexpr int kWatchMilliseconds = 100;

/// What the child tells the parent.
struct Progress {
  std::atomic<std::uint64_t> inputs;
  std::atomic<std::size_t> size;
  char input[kMaxInput];
};

/// Philox words in order.
class Random {
 public:
  Random(std::uint64_t seed, std::uint64_t input) : seed_(seed), input_(input) {}
  std::uint32_t word() {
    if (used_ == 4) {
      words_ = sgm::philox(block_++, static_cast<std::uint32_t>(input_),
                           static_cast<std::uint32_t>(input_ >> 32), 0, seed_);
      used_ = 0;
    }
    return words_.word[used_++];
  }
  /// Uniform on [0, count), count >= 1.
  std::size_t below(std::size_t count) { return word() % count; }

 private:
  std::uint64_t seed_, input_;
  std::uint32_t block_ = 0;
  int used_ = 4;
  sgm::PhiloxWords words_{};
};

/// Writes an integer that parsers get wrong over 1, 2, 4 or 8 bytes, in either byte order.
void plant_integer(std::string& text, Random& random) {
  constexpr std::uint64_t kValues[] = {0,          1,          2,          0x7f,        0x80,
                                       0xff,       0x100,      0x7fff,     0xffff,      0x10000,
                                       0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 0x7fffffffffffffff,
                                       ~0ull,      ~0ull - 7,  1ull << 40};
  std::uint64_t value = kValues[random.below(std::size(kValues))];
  char bytes[8];
  const std::size_t width = std::size_t{1} << random.below(4);
  std::memcpy(bytes, &value, sizeof bytes);
  if (random.below(2)) std::reverse(bytes, bytes + width);
  if (text.size() < width) return;
  std::memcpy(text.data() + random.below(text.size() - width + 1), bytes, width);
}

/// Replaces one run of digits, as textual headers have them.
void plant_digits(std::string& text, Random& random) {
  constexpr const char* kValues[] = {
      "0",     "-1", "1", "255", "65536", "4294967296", "9223372036854775807", "99999999999999999999",
      "1e999", "nan"};
  const std::size_t start = text.find_first_of("0123456789", random.below(text.size()));
  if (start == std::string::npos) return;
  std::size_t end = text.find_first_not_of("0123456789", start);
  if (end == std::string::npos) end = text.size();
  text.replace(start, end - start, kValues[random.below(std::size(kValues))]);
}

void mutate_once(std::string& text, const std::vector<std::string>& seeds, Random& random) {
  if (text.empty()) text = "0";
  const std::size_t at = random.below(text.size());
  const std::size_t length = 1 + random.below(std::min<std::size_t>(text.size() - at, 64));
  switch (random.below(10)) {
    case 0: text[at] = static_cast<char>(text[at] ^ (1 << random.below(8))); break;
    case 1: text[at] = static_cast<char>(random.word()); break;
    case 2:
    case 3: plant_integer(text, random); break;
    case 4: plant_digits(text, random); break;
    case 5: text.resize(at); break;
    case 6: text.erase(at, length); break;
    case 7: text.insert(at, text.substr(random.below(text.size()), length)); break;
    case 8: {
      std::string noise(length, '\0');
      for (char& c : noise) c = static_cast<char>(random.word());
      text.insert(at, noise);
      break;
    }
    case 9: {
      const std::string& other = seeds[random.below(seeds.size())];
      if (!other.empty()) text.replace(at, std::string::npos, other.substr(random.below(other.size())));
      break;
    }
  }
}

std::string input_number(std::uint64_t number, std::uint64_t seed, const std::vector<std::string>& seeds) {
  if (number < seeds.size()) return seeds[number];  // the seeds as they are come first
  Random random(seed, number);
  std::string text = seeds[random.below(seeds.size())];
  for (std::size_t left = 1 + random.below(6); left > 0; --left) mutate_once(text, seeds, random);
  if (text.size() > kMaxInput) text.resize(kMaxInput);
  return text;
}

[[noreturn]] void run_child(Progress& progress, double seconds, std::uint64_t seed) {
#if !defined(__SANITIZE_ADDRESS__)
  const rlimit limit{rlim_t{4} << 30, rlim_t{4} << 30};
  ::setrlimit(RLIMIT_AS, &limit);
#endif
  const std::vector<std::string> seeds = fuzz_seeds();
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  for (std::uint64_t number = 0; number < seeds.size() || std::chrono::steady_clock::now() < end; ++number) {
    const std::string input = input_number(number, seed, seeds);
    std::memcpy(progress.input, input.data(), input.size());
    progress.size = input.size();
    progress.inputs = number + 1;
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
  }
  std::exit(0);
}

/// Waits for the child; kills it when one input takes too long. Returns its status.
int watch(pid_t child, const Progress& progress) {
  std::uint64_t seen = 0;
  int waited = 0, status = 0;
  while (::waitpid(child, &status, WNOHANG) == 0) {
    ::usleep(kWatchMilliseconds * 1000);
    waited = progress.inputs == seen ? waited + kWatchMilliseconds : 0;
    seen = progress.inputs;
    if (waited > kSecondsPerInput * 1000) {
      std::fprintf(stderr, "input %llu hangs\n", static_cast<unsigned long long>(seen));
      ::kill(child, SIGKILL);
      ::waitpid(child, &status, 0);
      break;
    }
  }
  return status;
}

int fuzz(const std::string& program, double seconds, std::uint64_t seed) {
  void* memory = ::mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 2;
  Progress& progress = *new (memory) Progress;
  const pid_t child = ::fork();
  if (child < 0) return 2;
  if (child == 0) run_child(progress, seconds, seed);
  const int status = watch(child, progress);
  std::printf("%s: %llu inputs\n", program.c_str(), static_cast<unsigned long long>(progress.inputs));
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return 0;
  const std::string file = program + "-crash.bin";
  std::ofstream(file, std::ios::binary)
      .write(progress.input, static_cast<std::streamsize>(progress.size.load()));
  std::printf("FAILED at input %llu of seed %llu, kept as %s\n",
              static_cast<unsigned long long>(progress.inputs) - 1, static_cast<unsigned long long>(seed),
              file.c_str());
  return 1;
}

int run_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string input((std::istreambuf_iterator<char>(file)), {});
  std::printf("%s: %zu bytes\n", path.c_str(), input.size());
  return LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
}

}  // namespace

int main(int argc, char** argv) {
  double seconds = 5;
  std::uint64_t seed = 1;
  bool ran_files = false;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--seconds" && i + 1 < argc) {
      seconds = std::atof(argv[++i]);
    } else if (argument == "--seed" && i + 1 < argc) {
      seed = std::strtoull(argv[++i], nullptr, 10);
    } else {
      run_file(argument);
      ran_files = true;
    }
  }
  return ran_files ? 0 : fuzz(argv[0], seconds, seed);
}
