// What the kernels of PsaMask and PsaMaskGrad have in common on every device: check the inputs, allocate the output. A
// device's subclass fills it.

#ifndef PSANET_CUSTOM_OPS_PSA_MASK_KERNEL_H_
#define PSANET_CUSTOM_OPS_PSA_MASK_KERNEL_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "psa_mask_sizes.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/framework/tensor_shape.h"

namespace psanet {

class PsaMaskOp : public tensorflow::OpKernel {
 public:
  explicit PsaMaskOp(tensorflow::OpKernelConstruction* context) : tensorflow::OpKernel(context) {
    OP_REQUIRES_OK(context, mask_size_.Read(context));
  }

  void Compute(tensorflow::OpKernelContext* context) override {
    const tensorflow::Tensor& mask = context->input(0);
    MaskSizes sizes;
    tensorflow::TensorShape shape;
    OP_REQUIRES_OK(context, mask_size_.SizesOf(mask.shape(), &sizes));
    OP_REQUIRES_OK(context, AttentionShape(sizes, &shape));
    tensorflow::Tensor* attention = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, shape, &attention));
    if (attention->NumElements() > 0) Fill(context, sizes, mask, attention);
  }

 private:
  virtual void Fill(tensorflow::OpKernelContext* context, const MaskSizes& sizes, const tensorflow::Tensor& mask,
                    tensorflow::Tensor* attention) = 0;

  MaskSizeAttributes mask_size_;
};

class PsaMaskGradOp : public tensorflow::OpKernel {
 public:
  explicit PsaMaskGradOp(tensorflow::OpKernelConstruction* context) : tensorflow::OpKernel(context) {
    OP_REQUIRES_OK(context, mask_size_.Read(context));
  }

  void Compute(tensorflow::OpKernelContext* context) override {
    const tensorflow::Tensor& gradient = context->input(0);
    const tensorflow::Tensor& mask_shape = context->input(1);
    OP_REQUIRES(context, mask_shape.shape() == tensorflow::TensorShape({4}),
                absl::InvalidArgumentError(absl::StrCat("mask_shape must be a vector of 4 numbers, got shape ",
                                                        mask_shape.shape().DebugString())));
    const auto dimensions = mask_shape.vec<int32_t>();
    MaskSizes sizes;
    tensorflow::TensorShape shape;
    OP_REQUIRES_OK(context, tensorflow::TensorShape::BuildTensorShape(
                                {dimensions(0), dimensions(1), dimensions(2), dimensions(3)}, &shape));
    OP_REQUIRES_OK(context, mask_size_.SizesOf(shape, &sizes));
    OP_REQUIRES_OK(context, CheckGradientShape(sizes, gradient.shape()));
    tensorflow::Tensor* mask_gradient = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, shape, &mask_gradient));
    if (mask_gradient->NumElements() > 0) Fill(context, sizes, gradient, mask_gradient);
  }

 private:
  virtual void Fill(tensorflow::OpKernelContext* context, const MaskSizes& sizes, const tensorflow::Tensor& gradient,
                    tensorflow::Tensor* mask_gradient) = 0;

  MaskSizeAttributes mask_size_;
};

}  // namespace psanet

#endif  // PSANET_CUSTOM_OPS_PSA_MASK_KERNEL_H_
