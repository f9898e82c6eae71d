// PsaMask and PsaMaskGrad for XLA (jit_compile=True), on CPU and GPU: a gather of whole windows.
//
// Compile with NDEBUG and without absl's verbose logging (ABSL_MAX_VLOG_VERBOSITY=-1): XLA's headers log through
// templates whose names g++ mangles differently from clang, with which TensorFlow is built.

#include <algorithm>
#include <cstdint>
#include <string>

#include "psa_mask_sizes.h"
#include "tensorflow/compiler/tf2xla/shape_util.h"
#include "tensorflow/compiler/tf2xla/xla_op_kernel.h"
#include "tensorflow/compiler/tf2xla/xla_op_registry.h"
#include "tensorflow/core/framework/kernel_def_builder.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "xla/hlo/builder/lib/constants.h"
#include "xla/hlo/builder/xla_builder.h"
#include "xla/shape.h"
#include "xla/shape_util.h"

namespace psanet {
namespace {

using tensorflow::OpKernelConstruction;
using tensorflow::TensorShape;
using tensorflow::XlaOpKernel;
using tensorflow::XlaOpKernelContext;

struct Padding {
  int64_t low, high;
};

// Offsets of a mask before its middle; behind it there is one more if the mask is even.
int64_t Half(int64_t mask_length) { return (mask_length - 1) / 2; }

// What the masks lack for windows at every position of a map of `length`.
Padding MaskPadding(int64_t length, int64_t mask_length) {
  const int64_t half = Half(mask_length);
  return {std::max<int64_t>(length - 1 - half, 0), std::max<int64_t>(length + half - mask_length, 0)};
}

// What the maps lack for windows of the mask's size at every position.
Padding MapPadding(int64_t mask_length) { return {Half(mask_length), mask_length - 1 - Half(mask_length)}; }

// source [N, H, W, A, B] -> [N, H, W, target_height, target_width], where element (y, x) of position (h, w) is the
// source's (y + direction * (h - half_height), x + direction * (w - half_width)), or 0 outside. Zeros around the source,
// `pad_height` and `pad_width` lines before and behind it, make room for all windows.
xla::XlaOp ShiftedWindows(xla::XlaOp source, const MaskSizes& sizes, int direction, Padding pad_height,
                          Padding pad_width, int64_t target_height, int64_t target_width) {
  xla::XlaBuilder* builder = source.builder();
  const xla::PrimitiveType type = builder->GetShape(source)->element_type();
  xla::PaddingConfig padding;
  for (const Padding& pad : {Padding{0, 0}, Padding{0, 0}, Padding{0, 0}, pad_height, pad_width}) {
    xla::PaddingConfig::PaddingConfigDimension* dimension = padding.add_dimensions();
    dimension->set_edge_padding_low(pad.low);
    dimension->set_edge_padding_high(pad.high);
  }
  source = xla::Pad(source, xla::Zero(builder, type), padding);
  // Of every position (h, w): where its window begins, along the source's axes 1 to 4.
  const xla::Shape starts = xla::ShapeUtil::MakeShape(xla::S32, {sizes.height, sizes.width, 1});
  const xla::XlaOp h = xla::Iota(builder, starts, 0);
  const xla::XlaOp w = xla::Iota(builder, starts, 1);
  const xla::XlaOp sign = xla::ConstantR0<int32_t>(builder, direction);
  auto start = [&](xla::XlaOp position, int64_t half, int64_t pad) {
    return xla::Add(xla::Mul(xla::Sub(position, xla::ConstantR0<int32_t>(builder, half)), sign),
                    xla::ConstantR0<int32_t>(builder, pad));
  };
  const xla::XlaOp indices = xla::ConcatInDim(
      builder,
      {h, w, start(h, Half(sizes.mask_height), pad_height.low), start(w, Half(sizes.mask_width), pad_width.low)}, 2);
  xla::GatherDimensionNumbers numbers;
  for (int64_t dimension : {0, 3, 4}) numbers.add_offset_dims(dimension);
  for (int64_t dimension : {1, 2}) numbers.add_collapsed_slice_dims(dimension);
  for (int64_t dimension : {1, 2, 3, 4}) numbers.add_start_index_map(dimension);
  numbers.set_index_vector_dim(2);
  return xla::Gather(source, indices, numbers, {sizes.maps, 1, 1, target_height, target_width});
}

absl::Status StaticInputShape(XlaOpKernelContext* context, TensorShape* shape) {
  const absl::StatusOr<xla::Shape> input = context->InputXlaShape(0);
  if (!input.ok()) return input.status();
  if (!input->is_static()) {
    return absl::UnimplementedError(absl::StrCat("psa_mask under XLA needs static shapes, got ", input->ToString()));
  }
  return tensorflow::XLAShapeToTensorShape(*input, shape);
}

class PsaMaskXlaOp : public XlaOpKernel {
 public:
  explicit PsaMaskXlaOp(OpKernelConstruction* context) : XlaOpKernel(context) {
    OP_REQUIRES_OK(context, mask_size_.Read(context));
  }

  void Compile(XlaOpKernelContext* context) override {
    TensorShape shape, attention;
    MaskSizes sizes;
    OP_REQUIRES_OK(context, StaticInputShape(context, &shape));
    OP_REQUIRES_OK(context, mask_size_.SizesOf(shape, &sizes));
    OP_REQUIRES_OK(context, AttentionShape(sizes, &attention));
    const int64_t h = sizes.height, w = sizes.width, mask_h = sizes.mask_height, mask_w = sizes.mask_width;
    const xla::XlaOp mask = xla::Reshape(context->Input(0), {sizes.maps, h, w, mask_h, mask_w});
    const xla::XlaOp windows = ShiftedWindows(mask, sizes, -1, MaskPadding(h, mask_h), MaskPadding(w, mask_w), h, w);
    context->SetOutput(0, xla::Reshape(windows, attention.dim_sizes()));
  }

 private:
  MaskSizeAttributes mask_size_;
};

class PsaMaskGradXlaOp : public XlaOpKernel {
 public:
  explicit PsaMaskGradXlaOp(OpKernelConstruction* context) : XlaOpKernel(context) {
    OP_REQUIRES_OK(context, mask_size_.Read(context));
  }

  void Compile(XlaOpKernelContext* context) override {
    TensorShape shape, mask;
    MaskSizes sizes;
    OP_REQUIRES_OK(context, StaticInputShape(context, &shape));
    OP_REQUIRES_OK(context, context->ConstantInputAsShape(1, &mask));
    OP_REQUIRES_OK(context, mask_size_.SizesOf(mask, &sizes));
    OP_REQUIRES_OK(context, CheckGradientShape(sizes, shape));
    const int64_t h = sizes.height, w = sizes.width, mask_h = sizes.mask_height, mask_w = sizes.mask_width;
    const xla::XlaOp gradient = xla::Reshape(context->Input(0), {sizes.maps, h, w, h, w});
    const xla::XlaOp windows = ShiftedWindows(gradient, sizes, 1, MapPadding(mask_h), MapPadding(mask_w), mask_h, mask_w);
    context->SetOutput(0, xla::Reshape(windows, mask.dim_sizes()));
  }

 private:
  MaskSizeAttributes mask_size_;
};

REGISTER_XLA_OP(Name("PsaMask"), PsaMaskXlaOp);
REGISTER_XLA_OP(Name("PsaMaskGrad").CompileTimeConstantInput("mask_shape"), PsaMaskGradXlaOp);

// TensorFlow makes kernels of the registrations above once, when XLA is first used. If that was before this library was
// loaded, the kernels are still missing and are registered here, one for each XLA backend.
bool XlaIsInUse() {
  const tensorflow::KernelList kernels = tensorflow::GetRegisteredKernelsForOp("Identity");
  for (const tensorflow::KernelDef& kernel : kernels.kernel()) {
    if (kernel.device_type() == tensorflow::DEVICE_CPU_XLA_JIT) return true;
  }
  return false;
}

template <typename Kernel>
void RegisterForXlaInUse(const char* op) {
  for (const std::string& backend : tensorflow::XlaOpRegistry::BackendNames()) {
    // The registry refers to the registrar for as long as the process lives.
    new tensorflow::kernel_factory::OpKernelRegistrar(
        tensorflow::KernelDefBuilder(op).Device(backend.c_str()).Build(), op,
        [](OpKernelConstruction* context) -> tensorflow::OpKernel* { return new Kernel(context); });
  }
}

const bool late_registration = [] {
  if (!XlaIsInUse()) return false;
  RegisterForXlaInUse<PsaMaskXlaOp>("PsaMask");
  RegisterForXlaInUse<PsaMaskGradXlaOp>("PsaMaskGrad");
  return true;
}();

}  // namespace
}  // namespace psanet
