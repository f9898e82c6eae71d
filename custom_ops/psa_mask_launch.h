// Loads the CUDA kernels with the driver of this machine and starts them. Free of TensorFlow and of CUDA headers: the
// driver is opened at run time, where there is one.

#ifndef PSANET_CUSTOM_OPS_PSA_MASK_LAUNCH_H_
#define PSANET_CUSTOM_OPS_PSA_MASK_LAUNCH_H_

#include <cstdint>
#include <string>

#include "psa_mask_window.h"

namespace psanet {

// Copies on `stream` (a CUstream), in the context that the stream belongs to; returns when the kernel is queued. The
// first call in a context loads the kernels there.
//
// Elements are only moved: `element_size` is 2, 4 or 8 bytes, whatever they mean. `source` and `target` are memory of
// the stream's GPU, aligned to the element size at least, and `copy` has at least one row. Returns an empty text, or
// what went wrong; an error in the kernel itself shows when the stream is synchronized. Any thread may call it.
std::string LaunchCopy(const WindowCopy& copy, int32_t element_size, const void* source, void* target, void* stream);

}  // namespace psanet

extern "C" {

// Why the kernels cannot run on the GPU that the driver counts as `ordinal`, or nullptr. Loads them there, into the
// GPU's primary context, which is TensorFlow's. The text is valid until the thread's next call.
const char* PsanetGpuProblem(int32_t ordinal);

}  // extern "C"

#endif  // PSANET_CUSTOM_OPS_PSA_MASK_LAUNCH_H_
