// Sizes of psa_mask's tensors and the checks that every kernel makes. Eager execution runs no shape function, so that a
// kernel checks everything itself.

#ifndef PSANET_CUSTOM_OPS_PSA_MASK_SIZES_H_
#define PSANET_CUSTOM_OPS_PSA_MASK_SIZES_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "psa_mask_window.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/tensor_shape.h"

namespace psanet {

struct MaskSizes {
  int64_t maps;                     // N
  int32_t height, width;            // H, W
  int32_t mask_height, mask_width;
};

inline absl::Status CheckMaskSize(int64_t mask_height, int64_t mask_width) {
  if (mask_height < 1 || mask_width < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("mask_height and mask_width must be positive, got ", mask_height, " and ", mask_width));
  }
  if (mask_height > kMaxRowSize / mask_width) {
    return absl::InvalidArgumentError(absl::StrCat("a mask has at most ", kMaxRowSize, " entries, got mask_height ",
                                                   mask_height, " * mask_width ", mask_width));
  }
  return absl::OkStatus();
}

// The attributes mask_height and mask_width.
struct MaskSizeAttributes {
  int64_t height, width;

  absl::Status Read(tensorflow::OpKernelConstruction* context) {
    absl::Status status = context->GetAttr("mask_height", &height);
    status.Update(context->GetAttr("mask_width", &width));
    return status.ok() ? CheckMaskSize(height, width) : status;
  }

  // The sizes in a mask of shape [N, H, W, mask_height * mask_width].
  absl::Status SizesOf(const tensorflow::TensorShape& mask, MaskSizes* sizes) const {
    if (mask.dims() != 4 || mask.dim_size(3) != height * width) {
      return absl::InvalidArgumentError(absl::StrCat("mask must be [N, H, W, mask_height * mask_width = ", height,
                                                     " * ", width, " = ", height * width, "], got shape ",
                                                     mask.DebugString()));
    }
    const int64_t rows = mask.dim_size(1), columns = mask.dim_size(2);
    if (columns > 0 && rows > kMaxRowSize / columns) {
      return absl::InvalidArgumentError(
          absl::StrCat("a map has at most ", kMaxRowSize, " positions, got a mask of shape ", mask.DebugString()));
    }
    *sizes = {mask.dim_size(0), static_cast<int32_t>(rows), static_cast<int32_t>(columns), static_cast<int32_t>(height),
              static_cast<int32_t>(width)};
    return absl::OkStatus();
  }
};

// [N, H * W, H * W], the shape of psa_mask's result and of its gradient.
inline absl::Status AttentionShape(const MaskSizes& sizes, tensorflow::TensorShape* shape) {
  const int64_t positions = static_cast<int64_t>(sizes.height) * sizes.width;
  return tensorflow::TensorShape::BuildTensorShape({sizes.maps, positions, positions}, shape);
}

inline absl::Status CheckGradientShape(const MaskSizes& sizes, const tensorflow::TensorShape& gradient) {
  tensorflow::TensorShape expected;
  absl::Status status = AttentionShape(sizes, &expected);
  if (status.ok() && gradient != expected) {
    status = absl::InvalidArgumentError(absl::StrCat("gradient must be of shape ", expected.DebugString(),
                                                     " for maps of ", sizes.height, " x ", sizes.width, ", got shape ",
                                                     gradient.DebugString()));
  }
  return status;
}

}  // namespace psanet

#endif  // PSANET_CUSTOM_OPS_PSA_MASK_SIZES_H_
