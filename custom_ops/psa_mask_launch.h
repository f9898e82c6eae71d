// Starts the CUDA kernels. Free of TensorFlow and of CUDA headers, so that either side compiles without the other.

#ifndef PSANET_CUSTOM_OPS_PSA_MASK_LAUNCH_H_
#define PSANET_CUSTOM_OPS_PSA_MASK_LAUNCH_H_

#include <cstdint>

extern "C" {

// mask [maps, height, width, mask_height * mask_width] -> result [maps, height * width, height * width].
//
// Elements are only moved: `element_size` is 2, 4 or 8 bytes, whatever they mean. Pointers are device memory, aligned
// to the element size at least; `stream` is a cudaStream_t. Returns nullptr, or a text that says what went wrong; an
// error in the kernel itself shows when the stream is synchronized.
const char* PsanetLaunchMask(const void* mask, void* result, int64_t maps, int32_t height, int32_t width,
                             int32_t mask_height, int32_t mask_width, int32_t element_size, void* stream);

// The gradient of the result -> the gradient of the mask.
const char* PsanetLaunchMaskGradient(const void* result_gradient, void* mask_gradient, int64_t maps, int32_t height,
                                     int32_t width, int32_t mask_height, int32_t mask_width, int32_t element_size,
                                     void* stream);

// Why the kernels cannot run on this machine's GPUs (no driver, a driver that is too old for the CUDA version that they
// were compiled with, a GPU older than the oldest that they were compiled for), or nullptr. Starts no CUDA context.
const char* PsanetDeviceProblem();

}  // extern "C"

#endif  // PSANET_CUSTOM_OPS_PSA_MASK_LAUNCH_H_
