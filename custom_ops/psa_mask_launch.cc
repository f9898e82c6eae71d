#include "psa_mask_launch.h"

#include <dlfcn.h>

#include <iterator>
#include <map>
#include <mutex>
#include <string>

#include "psa_mask_ptx.h"
#include "psa_mask_vectors.h"
#include "psa_mask_window.h"

namespace psanet {
namespace {

// What is needed of cuda.h: part of the driver's binary interface, which does not change.
using Result = int;
using Device = int;
using Context = struct ContextOfDriver*;
using Module = struct ModuleOfDriver*;
using Function = struct FunctionOfDriver*;
using Stream = struct StreamOfDriver*;

constexpr Result kSuccess = 0;

// The driver's library: its functions, or why it cannot be used.
struct Driver {
  std::string problem;
  Result (*init)(unsigned flags);
  Result (*get_version)(int* version);
  Result (*get_error_name)(Result error, const char** name);
  Result (*get_error_string)(Result error, const char** text);
  Result (*get_device)(Device* device, int ordinal);
  Result (*retain_primary_context)(Context* context, Device device);
  Result (*get_context_of_stream)(Stream stream, Context* context);
  Result (*push_context)(Context context);
  Result (*pop_context)(Context* context);
  Result (*load_module)(Module* module, const void* image);
  Result (*get_function)(Function* function, Module module, const char* name);
  Result (*launch)(Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                   unsigned block_y, unsigned block_z, unsigned shared_bytes, Stream stream, void** arguments,
                   void** extra);

  Driver() {
    void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      problem = std::string("there is no NVIDIA driver: ") + dlerror();
      return;
    }
    Find(library, "cuInit", &init);
    Find(library, "cuDriverGetVersion", &get_version);
    Find(library, "cuGetErrorName", &get_error_name);
    Find(library, "cuGetErrorString", &get_error_string);
    Find(library, "cuDeviceGet", &get_device);
    Find(library, "cuDevicePrimaryCtxRetain", &retain_primary_context);
    Find(library, "cuStreamGetCtx", &get_context_of_stream);
    Find(library, "cuCtxPushCurrent_v2", &push_context);
    Find(library, "cuCtxPopCurrent_v2", &pop_context);
    Find(library, "cuModuleLoadData", &load_module);
    Find(library, "cuModuleGetFunction", &get_function);
    Find(library, "cuLaunchKernel", &launch);
    if (problem.empty()) problem = Problem("cuInit", init(0));
  }

  // What a call that returned `result` ran into; empty if all went well.
  std::string Problem(const char* call, Result result) const {
    if (result == kSuccess) return "";
    const char *name = nullptr, *text = nullptr;
    if (get_error_name(result, &name) != kSuccess || name == nullptr) name = "unknown error";
    if (get_error_string(result, &text) != kSuccess || text == nullptr) text = "no description";
    return std::string(call) + " failed with " + std::to_string(result) + " (" + name + ": " + text + ")";
  }

 private:
  template <typename Pointer>
  void Find(void* library, const char* name, Pointer* function) {
    *function = reinterpret_cast<Pointer>(dlsym(library, name));
    if (*function == nullptr && problem.empty()) problem = std::string("the NVIDIA driver has no ") + name;
  }
};

const Driver& GetDriver() {
  static const Driver* const driver = new Driver;  // for as long as the process lives: GPUs may still be at work
  return *driver;
}

// Makes a context the thread's current one within a block.
class CurrentContext {
 public:
  CurrentContext(const Driver& driver, Context context)
      : driver_(driver), problem_(driver.Problem("cuCtxPushCurrent", driver.push_context(context))) {}
  CurrentContext(const CurrentContext&) = delete;
  CurrentContext& operator=(const CurrentContext&) = delete;
  ~CurrentContext() {
    Context context;
    if (problem_.empty()) driver_.pop_context(&context);
  }

  const std::string& problem() const { return problem_; }

 private:
  const Driver& driver_;
  const std::string problem_;
};

// The kernels of one context, for elements of 2, 4 and 8 bytes.
struct Kernels {
  Function of_size[3];
};

constexpr const char* kNames[] = {"PsanetCopyRows2", "PsanetCopyRows4", "PsanetCopyRows8"};
static_assert(std::size(kNames) == std::size(decltype(Kernels::of_size){}));

std::string LoadKernels(const Driver& driver, Kernels* kernels) {
  Module module;
  std::string problem = driver.Problem("cuModuleLoadData", driver.load_module(&module, kPtx));
  if (!problem.empty()) {
    int version = 0;
    driver.get_version(&version);
    return "the NVIDIA driver (for CUDA " + std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10) +
           ") does not take the kernels, which need CUDA 11.8 and compute capability 6.0: " + problem;
  }
  for (std::size_t i = 0; i < std::size(kNames); ++i) {
    problem = driver.Problem(kNames[i], driver.get_function(&kernels->of_size[i], module, kNames[i]));
    if (!problem.empty()) return problem;
  }
  return "";
}

// The kernels of the current context, `context`: loaded at the first call. A failure is not kept: where memory was
// lacking, it may not be later.
std::string GetKernels(const Driver& driver, Context context, Kernels* kernels) {
  static std::mutex* const mutex = new std::mutex;
  static std::map<Context, Kernels>* const loaded = new std::map<Context, Kernels>;
  const std::lock_guard<std::mutex> lock(*mutex);
  const auto found = loaded->find(context);
  if (found != loaded->end()) {
    *kernels = found->second;
    return "";
  }
  const std::string problem = LoadKernels(driver, kernels);
  if (problem.empty()) loaded->emplace(context, *kernels);
  return problem;
}

template <typename Element>
std::string Launch(const Driver& driver, Function kernel, const WindowCopy& copy, const void* source, void* target,
                   Stream stream) {
  const LaunchShape shape = ShapeLaunch<Element>(copy);
  void* arguments[] = {const_cast<WindowCopy*>(&copy), &source, &target};
  return driver.Problem("cuLaunchKernel",
                        driver.launch(kernel, static_cast<unsigned>(shape.blocks), 1, 1, shape.lanes,
                                      shape.rows_per_block, 1, 0, stream, arguments, nullptr));
}

std::string GpuProblem(int32_t ordinal) {
  const Driver& driver = GetDriver();
  if (!driver.problem.empty()) return driver.problem;
  Device device;
  Context context;
  std::string problem = driver.Problem("cuDeviceGet", driver.get_device(&device, ordinal));
  if (!problem.empty()) return problem;
  // Never released: it must not end before what is loaded in it is used.
  problem = driver.Problem("cuDevicePrimaryCtxRetain", driver.retain_primary_context(&context, device));
  if (!problem.empty()) return problem;
  const CurrentContext current(driver, context);
  if (!current.problem().empty()) return current.problem();
  Kernels kernels;
  return GetKernels(driver, context, &kernels);
}

}  // namespace

std::string LaunchCopy(const WindowCopy& copy, int32_t element_size, const void* source, void* target, void* stream) {
  const Driver& driver = GetDriver();
  if (!driver.problem.empty()) return driver.problem;
  const Stream on = static_cast<Stream>(stream);
  Context context;
  std::string problem = driver.Problem("cuStreamGetCtx", driver.get_context_of_stream(on, &context));
  if (!problem.empty()) return problem;
  const CurrentContext current(driver, context);
  if (!current.problem().empty()) return current.problem();
  Kernels kernels;
  problem = GetKernels(driver, context, &kernels);
  if (!problem.empty()) return problem;
  switch (element_size) {
    case 2:
      return Launch<uint16_t>(driver, kernels.of_size[0], copy, source, target, on);
    case 4:
      return Launch<uint32_t>(driver, kernels.of_size[1], copy, source, target, on);
    case 8:
      return Launch<uint64_t>(driver, kernels.of_size[2], copy, source, target, on);
    default:
      return "elements must be of 2, 4 or 8 bytes, got " + std::to_string(element_size);
  }
}

}  // namespace psanet

const char* PsanetGpuProblem(int32_t ordinal) {
  thread_local std::string problem;
  problem = psanet::GpuProblem(ordinal);
  return problem.empty() ? nullptr : problem.c_str();
}
