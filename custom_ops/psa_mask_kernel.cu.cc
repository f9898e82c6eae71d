// The CUDA kernels of psa_mask and its gradient. Free of TensorFlow headers; psa_mask_vectors.h has the body.

#include <cuda_runtime_api.h>

#include "psa_mask_launch.h"
#include "psa_mask_vectors.h"

namespace psanet {
namespace {

template <typename Element>
__global__ void __launch_bounds__(256)
    CopyRowsKernel(const WindowCopy copy, const Element* __restrict__ source, Element* __restrict__ target) {
  CopyRowsOfThread(copy, source, target, blockIdx.x, gridDim.x, threadIdx.y, blockDim.y, threadIdx.x, blockDim.x);
}

template <typename Element>
const char* Launch(const WindowCopy& copy, const void* source, void* target, cudaStream_t stream) {
  const LaunchShape shape = ShapeLaunch<Element>(copy);
  const dim3 threads(shape.lanes, shape.rows_per_block);
  CopyRowsKernel<Element><<<static_cast<unsigned>(shape.blocks), threads, 0, stream>>>(
      copy, static_cast<const Element*>(source), static_cast<Element*>(target));
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

const char* LaunchForSize(const WindowCopy& copy, int32_t element_size, const void* source, void* target,
                          void* stream) {
  const cudaStream_t cuda_stream = static_cast<cudaStream_t>(stream);
  switch (element_size) {
    case 2:
      return Launch<uint16_t>(copy, source, target, cuda_stream);
    case 4:
      return Launch<uint32_t>(copy, source, target, cuda_stream);
    case 8:
      return Launch<uint64_t>(copy, source, target, cuda_stream);
    default:
      return "elements must be of 2, 4 or 8 bytes";
  }
}

}  // namespace
}  // namespace psanet

const char* PsanetLaunchMask(const void* mask, void* result, int64_t maps, int32_t height, int32_t width,
                             int32_t mask_height, int32_t mask_width, int32_t element_size, void* stream) {
  if (maps == 0 || height == 0 || width == 0) return nullptr;
  return psanet::LaunchForSize(psanet::MaskToResult(maps, height, width, mask_height, mask_width), element_size, mask,
                               result, stream);
}

const char* PsanetLaunchMaskGradient(const void* result_gradient, void* mask_gradient, int64_t maps, int32_t height,
                                     int32_t width, int32_t mask_height, int32_t mask_width, int32_t element_size,
                                     void* stream) {
  if (maps == 0 || height == 0 || width == 0) return nullptr;
  return psanet::LaunchForSize(psanet::ResultToMask(maps, height, width, mask_height, mask_width), element_size,
                               result_gradient, mask_gradient, stream);
}

const char* PsanetDeviceProblem() {
  // The compute capabilities that this file is compiled for, as 10 * (10 * major + minor), in rising order.
  constexpr int kArchitectures[] = {__CUDA_ARCH_LIST__};
  int devices = 0;
  cudaError_t error = cudaGetDeviceCount(&devices);
  for (int device = 0; error == cudaSuccess && device < devices; ++device) {
    int major = 0, minor = 0;
    error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    if (error != cudaSuccess) break;
    error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    if (100 * major + 10 * minor < kArchitectures[0])
      return "a GPU here is older than the CUDA kernels were compiled for";
  }
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}
