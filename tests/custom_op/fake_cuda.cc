// A libcuda.so.1 for tests: two "GPUs" in host memory. What the launcher calls is written to standard error, one line
// each; kernels run at once, thread by thread, on the host. Handles are numbers: device d's context is 4096 * (d + 1),
// and what belongs to a context (streams, modules, kernels) lies within its 4096.
//
// FAKE_CUDA_FAIL="cuInit=100" has a function fail; compiled with FAKE_CUDA_WITHOUT_GET_FUNCTION, one is missing.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "psa_mask_vectors.h"

namespace {

constexpr uintptr_t kPage = 4096;
constexpr int kDevices = 2;
constexpr int kInvalidValue = 1, kInvalidContext = 201, kInvalidDevice = 101, kInvalidPtx = 218, kNotFound = 500;

thread_local std::vector<uintptr_t> current;  // contexts, the last one counts

uintptr_t ContextOf(uintptr_t handle) { return handle / kPage * kPage; }

bool IsContext(uintptr_t handle) { return handle > 0 && handle % kPage == 0 && handle <= kDevices * kPage; }

// What the environment says that `function` returns; 0 if nothing.
int Failure(const char* function) {
  const char* text = std::getenv("FAKE_CUDA_FAIL");
  const std::size_t length = std::strlen(function);
  return text && !std::strncmp(text, function, length) && text[length] == '=' ? std::atoi(text + length + 1) : 0;
}

int Call(const char* function, uintptr_t handle) {
  std::fprintf(stderr, "%s %zu\n", function, static_cast<std::size_t>(handle));
  return Failure(function);
}

template <typename Element>
void Run(unsigned blocks, unsigned lanes, unsigned groups, void** arguments) {
  psanet::WindowCopy copy;  // the launcher's may be gone by the time that a real kernel runs
  std::memcpy(static_cast<void*>(&copy), arguments[0], sizeof copy);
  const Element* source = *static_cast<const Element**>(arguments[1]);
  Element* target = *static_cast<Element**>(arguments[2]);
  for (unsigned block = 0; block < blocks; ++block) {
    for (unsigned group = 0; group < groups; ++group) {
      for (unsigned lane = 0; lane < lanes; ++lane) {
        psanet::CopyRowsOfThread(copy, source, target, block, blocks, group, groups, lane, lanes);
      }
    }
  }
}

}  // namespace

extern "C" {

int cuInit(unsigned flags) {
  const int error = Call("cuInit", 0);
  return flags ? kInvalidValue : error;
}

int cuDriverGetVersion(int* version) {
  *version = 11040;
  return 0;
}

int cuGetErrorName(int error, const char** name) {
  *name = error == 222 ? "CUDA_ERROR_UNSUPPORTED_PTX_VERSION" : error == 100 ? "CUDA_ERROR_NO_DEVICE" : nullptr;
  return *name ? 0 : kInvalidValue;
}

int cuGetErrorString(int error, const char** text) {
  *text = error == 222 ? "unsupported toolchain" : error == 100 ? "no CUDA-capable device is detected" : nullptr;
  return *text ? 0 : kInvalidValue;
}

int cuDeviceGet(int* device, int ordinal) {
  *device = 40 + ordinal;
  return ordinal < kDevices ? Failure("cuDeviceGet") : kInvalidDevice;
}

int cuDevicePrimaryCtxRetain(uintptr_t* context, int device) {
  *context = kPage * (device - 40 + 1);
  return Call("cuDevicePrimaryCtxRetain", *context);
}

int cuStreamGetCtx(uintptr_t stream, uintptr_t* context) {
  *context = ContextOf(stream);
  return Failure("cuStreamGetCtx");
}

int cuCtxPushCurrent_v2(uintptr_t context) {
  if (!IsContext(context)) return kInvalidContext;
  if (Failure("cuCtxPushCurrent")) return Failure("cuCtxPushCurrent");
  current.push_back(context);
  return 0;
}

int cuCtxPopCurrent_v2(uintptr_t* context) {
  if (current.empty()) std::abort();
  *context = current.back();
  current.pop_back();
  return 0;
}

int cuModuleLoadData(uintptr_t* module, const void* image) {
  if (current.empty()) return kInvalidContext;
  if (!std::strstr(static_cast<const char*>(image), ".version 7.8\n.target sm_60\n")) return kInvalidPtx;
  *module = current.back() + 1;
  return Call("cuModuleLoadData", current.back());
}

#if !FAKE_CUDA_WITHOUT_GET_FUNCTION
int cuModuleGetFunction(uintptr_t* function, uintptr_t module, const char* name) {
  const std::string text = name;
  *function = ContextOf(module) + 100 + (text.back() - '0');
  return text.substr(0, text.size() - 1) == "PsanetCopyRows" ? Failure("cuModuleGetFunction") : kNotFound;
}
#endif

int cuLaunchKernel(uintptr_t function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                   unsigned block_y, unsigned block_z, unsigned shared_bytes, uintptr_t stream, void** arguments,
                   void** extra) {
  const int error = Call("cuLaunchKernel", stream);
  if (error) return error;
  if (current.empty() || current.back() != ContextOf(stream) || current.back() != ContextOf(function)) {
    return kInvalidContext;
  }
  if (grid_x < 1 || grid_x > 0x7fffffff || grid_y != 1 || grid_z != 1 || block_x * block_y > 256 || block_z != 1 ||
      shared_bytes || extra) {
    return kInvalidValue;
  }
  switch (function % kPage) {
    case 102:
      Run<uint16_t>(grid_x, block_x, block_y, arguments);
      return 0;
    case 104:
      Run<uint32_t>(grid_x, block_x, block_y, arguments);
      return 0;
    case 108:
      Run<uint64_t>(grid_x, block_x, block_y, arguments);
      return 0;
    default:
      return kNotFound;
  }
}

// Whether every context that was made current was taken back.
bool FakeCudaIsTidy() { return current.empty(); }

}  // extern "C"
