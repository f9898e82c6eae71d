// The CUDA kernels of psa_mask and its gradient, one for each size of an element; psa_mask_vectors.h has their body.
// NVRTC compiles them to the PTX in psa_mask_ptx.h: after a change here, or in a header named here or there, run
// make_ptx.py.

#include "psa_mask_vectors.h"
#include "psa_mask_window.h"

#define PSANET_COPY_ROWS(name, Element)                                                                             \
  extern "C" __global__ void __launch_bounds__(psanet::kThreads)                                                    \
      name(const psanet::WindowCopy copy, const Element* __restrict__ source, Element* __restrict__ target) {       \
    psanet::CopyRowsOfThread(copy, source, target, blockIdx.x, gridDim.x, threadIdx.y, blockDim.y, threadIdx.x,     \
                             blockDim.x);                                                                           \
  }

PSANET_COPY_ROWS(PsanetCopyRows2, uint16_t)
PSANET_COPY_ROWS(PsanetCopyRows4, uint32_t)
PSANET_COPY_ROWS(PsanetCopyRows8, uint64_t)
