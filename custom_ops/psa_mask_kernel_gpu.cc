// PsaMask and PsaMaskGrad on CUDA devices: hands pointers and the stream to the launcher. Needs no CUDA header.

#include <string>

#include "psa_mask_kernel.h"
#include "psa_mask_launch.h"
#include "tensorflow/core/framework/register_types.h"
#include "xla/stream_executor/stream.h"

namespace psanet {
namespace {

using tensorflow::OpKernelContext;
using tensorflow::Tensor;

void CopyOnGpu(OpKernelContext* context, const WindowCopy& copy, const Tensor& source, Tensor* target) {
  void* stream = context->op_device_context()->stream()->platform_specific_handle().stream;
  const std::string problem =
      LaunchCopy(copy, tensorflow::DataTypeSize(source.dtype()), source.data(), target->data(), stream);
  OP_REQUIRES(context, problem.empty(),
              absl::InternalError(absl::StrCat("CUDA kernel of ", context->op_kernel().name(), ": ", problem)));
}

class PsaMaskGpuOp : public PsaMaskOp {
  using PsaMaskOp::PsaMaskOp;

  void Fill(OpKernelContext* context, const MaskSizes& sizes, const Tensor& mask, Tensor* attention) override {
    CopyOnGpu(context, MaskToResult(sizes.maps, sizes.height, sizes.width, sizes.mask_height, sizes.mask_width), mask,
              attention);
  }
};

class PsaMaskGradGpuOp : public PsaMaskGradOp {
  using PsaMaskGradOp::PsaMaskGradOp;

  void Fill(OpKernelContext* context, const MaskSizes& sizes, const Tensor& gradient, Tensor* mask_gradient) override {
    CopyOnGpu(context, ResultToMask(sizes.maps, sizes.height, sizes.width, sizes.mask_height, sizes.mask_width),
              gradient, mask_gradient);
  }
};

#define REGISTER_GPU(T)                                                                                         \
  REGISTER_KERNEL_BUILDER(Name("PsaMask").Device(tensorflow::DEVICE_GPU).TypeConstraint<T>("T"), PsaMaskGpuOp); \
  REGISTER_KERNEL_BUILDER(                                                                                      \
      Name("PsaMaskGrad").Device(tensorflow::DEVICE_GPU).TypeConstraint<T>("T").HostMemory("mask_shape"),       \
      PsaMaskGradGpuOp)
TF_CALL_half(REGISTER_GPU);
TF_CALL_bfloat16(REGISTER_GPU);
TF_CALL_float(REGISTER_GPU);
TF_CALL_double(REGISTER_GPU);
#undef REGISTER_GPU

}  // namespace
}  // namespace psanet
