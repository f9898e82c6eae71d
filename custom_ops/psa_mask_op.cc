// Interfaces of the ops PsaMask and PsaMaskGrad: shapes, attributes, documentation.

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "psa_mask_sizes.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace psanet {
namespace {

using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

// Checks that `mask` is [N, H, W, mask_height * mask_width].
absl::Status CheckMask(InferenceContext* c, ShapeHandle mask) {
  int64_t mask_height, mask_width;
  TF_RETURN_IF_ERROR(c->GetAttr("mask_height", &mask_height));
  TF_RETURN_IF_ERROR(c->GetAttr("mask_width", &mask_width));
  TF_RETURN_IF_ERROR(CheckMaskSize(mask_height, mask_width));
  const DimensionHandle channels = c->Dim(mask, 3);
  if (c->ValueKnown(channels) && c->Value(channels) != mask_height * mask_width) {
    return absl::InvalidArgumentError(absl::StrCat("mask must have mask_height * mask_width = ", mask_height, " * ",
                                                   mask_width, " = ", mask_height * mask_width, " channels, got shape ",
                                                   c->DebugString(mask)));
  }
  return absl::OkStatus();
}

absl::Status PsaMaskShape(InferenceContext* c) {
  ShapeHandle mask;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 4, &mask));
  TF_RETURN_IF_ERROR(CheckMask(c, mask));
  DimensionHandle positions;
  TF_RETURN_IF_ERROR(c->Multiply(c->Dim(mask, 1), c->Dim(mask, 2), &positions));
  c->set_output(0, c->MakeShape({c->Dim(mask, 0), positions, positions}));
  return absl::OkStatus();
}

absl::Status PsaMaskGradShape(InferenceContext* c) {
  ShapeHandle gradient, mask;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 3, &gradient));
  TF_RETURN_IF_ERROR(c->MakeShapeFromShapeTensor(1, &mask));
  TF_RETURN_IF_ERROR(c->WithRank(mask, 4, &mask));
  TF_RETURN_IF_ERROR(CheckMask(c, mask));
  c->set_output(0, mask);
  return absl::OkStatus();
}

}  // namespace

REGISTER_OP("PsaMask")
    .Input("mask: T")
    .Output("attention: T")
    .Attr("T: {half, bfloat16, float, double}")
    .Attr("mask_height: int >= 1")
    .Attr("mask_width: int >= 1")
    .SetShapeFn(PsaMaskShape)
    .Doc(R"doc(
Cuts, for every position, the window that falls on the feature map out of its over-complete mask.

With p = (h, w) the position that predicted, q = (k, l) any position and half = (size - 1) / 2, rounded down:
attention[n, p, q] = mask[n, h, w, (k - h + half_height) * mask_width + (l - w + half_width)] on the mask, else 0.

mask: [N, H, W, mask_height * mask_width].
attention: [N, H * W, H * W].
mask_height: Rows of the mask, odd or even.
mask_width: Columns of the mask, odd or even.
)doc");

REGISTER_OP("PsaMaskGrad")
    .Input("gradient: T")
    .Input("mask_shape: int32")
    .Output("mask_gradient: T")
    .Attr("T: {half, bfloat16, float, double}")
    .Attr("mask_height: int >= 1")
    .Attr("mask_width: int >= 1")
    .SetShapeFn(PsaMaskGradShape)
    .Doc(R"doc(
The gradient of PsaMask with respect to its mask; entries that PsaMask did not use get 0.

gradient: [N, H * W, H * W], the gradient with respect to PsaMask's output.
mask_shape: The shape of PsaMask's input, [N, H, W, mask_height * mask_width].
mask_gradient: [N, H, W, mask_height * mask_width].
mask_height: Rows of the mask, odd or even.
mask_width: Columns of the mask, odd or even.
)doc");

}  // namespace psanet
