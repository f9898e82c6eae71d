// PsaMask and PsaMaskGrad on the CPU, shared among TensorFlow's threads.

#include <cstddef>
#include <cstdint>

#include "psa_mask_kernel.h"
#include "psa_mask_rows.h"
#include "tensorflow/core/framework/register_types.h"
#include "tensorflow/core/platform/threadpool.h"

namespace psanet {
namespace {

using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::thread::ThreadPool;

void CopyOnCpu(OpKernelContext* context, const WindowCopy& copy, const Tensor& source, Tensor* target) {
  const std::size_t element_size = tensorflow::DataTypeSize(source.dtype());
  const void* from = source.data();
  void* to = target->data();
  // Nanoseconds per row at about 10 GB/s a core: decides how many rows are worth a thread.
  const int64_t cost = 1 + static_cast<int64_t>(copy.TargetSize()) * element_size / 10;
  context->device()->tensorflow_cpu_worker_threads()->workers->ParallelFor(
      copy.rows, ThreadPool::SchedulingParams(ThreadPool::SchedulingStrategy::kAdaptive, cost, {}),
      [&](int64_t begin, int64_t end) { CopyRows(copy, element_size, from, to, begin, end); });
}

class PsaMaskCpuOp : public PsaMaskOp {
  using PsaMaskOp::PsaMaskOp;

  void Fill(OpKernelContext* context, const MaskSizes& sizes, const Tensor& mask, Tensor* attention) override {
    CopyOnCpu(context, MaskToResult(sizes.maps, sizes.height, sizes.width, sizes.mask_height, sizes.mask_width), mask,
              attention);
  }
};

class PsaMaskGradCpuOp : public PsaMaskGradOp {
  using PsaMaskGradOp::PsaMaskGradOp;

  void Fill(OpKernelContext* context, const MaskSizes& sizes, const Tensor& gradient, Tensor* mask_gradient) override {
    CopyOnCpu(context, ResultToMask(sizes.maps, sizes.height, sizes.width, sizes.mask_height, sizes.mask_width),
              gradient, mask_gradient);
  }
};

#define REGISTER_CPU(T)                                                                                         \
  REGISTER_KERNEL_BUILDER(Name("PsaMask").Device(tensorflow::DEVICE_CPU).TypeConstraint<T>("T"), PsaMaskCpuOp); \
  REGISTER_KERNEL_BUILDER(Name("PsaMaskGrad").Device(tensorflow::DEVICE_CPU).TypeConstraint<T>("T"), PsaMaskGradCpuOp)
TF_CALL_half(REGISTER_CPU);
TF_CALL_bfloat16(REGISTER_CPU);
TF_CALL_float(REGISTER_CPU);
TF_CALL_double(REGISTER_CPU);
#undef REGISTER_CPU

}  // namespace
}  // namespace psanet
