// Calls the launcher of the CUDA kernels as its users do, with whatever libcuda.so.1 is found. What it returned is
// written to standard output, one line each, "none" for no problem.
//
//   launch_check problem 0 1                         PsanetGpuProblem of these GPUs
//   launch_check launch THREADS ELEMENT_SIZE 4097 .. every thread launches a small copy on each of these streams
//   launch_check copy forward|gradient ELEMENT_SIZE MAPS HEIGHT WIDTH MASK_HEIGHT MASK_WIDTH < source > target

#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "psa_mask_launch.h"

namespace {

void* StreamOf(const char* text) { return reinterpret_cast<void*>(std::strtoull(text, nullptr, 10)); }

void Say(const std::string& problem) { std::printf("%s\n", problem.empty() ? "none" : problem.c_str()); }

void LaunchOnEach(int32_t element_size, char** streams, int count) {
  for (int i = 0; i < count; ++i) {
    std::vector<uint64_t> mask(5 * 3 * 6, 7), result(6 * 6, 1);
    const psanet::WindowCopy copy = psanet::MaskToResult(1, 3, 2, 5, 3);
    std::string problem = psanet::LaunchCopy(copy, element_size, mask.data(), result.data(), StreamOf(streams[i]));
    if (problem.empty() && element_size == 8 && result != std::vector<uint64_t>(36, 7)) problem = "wrong numbers";
    Say(problem);
  }
}

int CopyInput(bool gradient, int32_t element_size, char** sizes) {
  const int64_t maps = std::atoi(sizes[0]);
  const int32_t h = std::atoi(sizes[1]), w = std::atoi(sizes[2]);
  const int32_t mask_h = std::atoi(sizes[3]), mask_w = std::atoi(sizes[4]);
  const psanet::WindowCopy copy =
      (gradient ? psanet::ResultToMask : psanet::MaskToResult)(maps, h, w, mask_h, mask_w);
  std::vector<char> source(copy.rows * copy.SourceSize() * element_size);
  std::vector<char> target(copy.rows * copy.TargetSize() * element_size, '\xA5');
  if (std::fread(source.data(), 1, source.size(), stdin) != source.size()) return 2;
  const std::string problem = psanet::LaunchCopy(copy, element_size, source.data(), target.data(), StreamOf("4097"));
  if (!problem.empty()) return 1;
  return std::fwrite(target.data(), 1, target.size(), stdout) == target.size() ? 0 : 3;
}

}  // namespace

int main(int count, char** arguments) {
  const std::string what = arguments[1];
  if (what == "copy") {
    return CopyInput(!std::strcmp(arguments[2], "gradient"), std::atoi(arguments[3]), arguments + 4);
  }
  if (what == "problem") {
    for (int i = 2; i < count; ++i) {
      const char* problem = PsanetGpuProblem(std::atoi(arguments[i]));
      Say(problem == nullptr ? "" : problem);
    }
  } else {
    std::vector<std::thread> threads;
    for (int i = 0; i < std::atoi(arguments[2]); ++i) {
      threads.emplace_back(LaunchOnEach, std::atoi(arguments[3]), arguments + 4, count - 4);
    }
    for (std::thread& thread : threads) thread.join();
  }
  // Of the fake library, if that is in use and was opened.
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  void* tidy = library == nullptr ? nullptr : dlsym(library, "FakeCudaIsTidy");
  return tidy == nullptr || reinterpret_cast<bool (*)()>(tidy)() ? 0 : 4;
}
