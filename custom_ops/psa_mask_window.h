// The index arithmetic of psa_mask and of its gradient: one description for the CPU kernels, the CUDA kernels and the
// host test that runs the CUDA kernel's body. Needs neither TensorFlow nor CUDA, and no header where NVRTC compiles it.
//
// The mask of position p = (h, w) is an image of offsets [mask_height, mask_width], and row p of the result is an image
// of positions [height, width]. With half = (size - 1) / 2, rounded down (an even mask reaches one step farther down and
// to the right than up and to the left), the one is the other, shifted:
//
//   psa_mask:          result[p][k, l] = mask[p][k - h + half_h, l - w + half_w]   where that is on the mask, else 0
//   its gradient:      mask[p][r, s] = result[p][r + h - half_h, s + w - half_w]   where that is on the map, else 0
//
// So both directions are one operation: every row of the target is a shifted window of the same row of the source, with
// zeros where the window leaves the source. Every target element is written once, no source element is needed by
// two target elements, and the gradient is the exact transpose without any addition.

#ifndef PSANET_CUSTOM_OPS_PSA_MASK_WINDOW_H_
#define PSANET_CUSTOM_OPS_PSA_MASK_WINDOW_H_

#if defined(__CUDACC_RTC__)
using int32_t = int;
using uint16_t = unsigned short;
using uint32_t = unsigned int;
using int64_t = long long;
using uint64_t = unsigned long long;
using uintptr_t = unsigned long long;
#else
#include <cstdint>
#endif

namespace psanet {

// Division by a number that is known before the kernel starts, as a multiplication and a shift (Granlund and
// Montgomery, 1994). Exact for dividends and divisors in [0, 2^31) and [1, 2^31).
struct Divisor {
  uint32_t value;
  uint32_t multiplier;
  uint32_t shift;

  Divisor() = default;
  explicit Divisor(uint32_t divisor) : value(divisor), multiplier(0), shift(0) {
    if (divisor == 1) return;
    while ((uint64_t{1} << shift) < divisor) ++shift;
    // ceil(2^(31 + shift) / divisor): at most 32 bits, since 2^(shift - 1) < divisor.
    multiplier = static_cast<uint32_t>(((uint64_t{1} << (31 + shift)) + divisor - 1) / divisor);
  }

  uint32_t Quotient(uint32_t dividend) const {
    if (value == 1) return dividend;
    return static_cast<uint32_t>((static_cast<uint64_t>(dividend) * multiplier) >> (31 + shift));
  }
};

// Most elements of one row, of the mask or of the result; the tensors as a whole may have any number.
constexpr int64_t kMaxRowSize = int64_t{1} << 30;

constexpr int32_t kMaxInt32 = 0x7fffffff;

// A shifted copy of every row.
struct WindowCopy {
  int64_t rows;  // N * H * W
  int32_t target_height, target_width;
  int32_t source_height, source_width;
  int32_t half_height, half_width;  // of the mask
  int32_t direction;                // -1: psa_mask, +1: its gradient
  Divisor map_width;                // W
  Divisor map_size;                 // H * W
  Divisor target_columns;           // target_width

  int32_t TargetSize() const { return target_height * target_width; }
  int32_t SourceSize() const { return source_height * source_width; }

  bool InSource(int32_t y, int32_t x) const {
    return y >= 0 && y < source_height && x >= 0 && x < source_width;
  }

  // Target element (y, x) of this row is source element (y + *dy, x + *dx).
  void Shift(int64_t row, int32_t* dy, int32_t* dx) const {
    // 64-bit division costs a GPU several times what 32-bit division does.
    const uint32_t position =
        rows <= kMaxInt32 ? static_cast<uint32_t>(row) - map_size.Quotient(static_cast<uint32_t>(row)) * map_size.value
                          : static_cast<uint32_t>(row % map_size.value);
    const int32_t h = static_cast<int32_t>(map_width.Quotient(position));
    const int32_t w = static_cast<int32_t>(position) - h * static_cast<int32_t>(map_width.value);
    *dy = direction * (h - half_height);
    *dx = direction * (w - half_width);
  }
};

// The host hands it to the kernels byte by byte.
static_assert(sizeof(WindowCopy) == 72 && alignof(WindowCopy) == 8, "the PTX takes another WindowCopy");

// mask [maps, height, width, mask_height * mask_width] -> result [maps, height * width, height * width]. No size is 0.
inline WindowCopy MaskToResult(int64_t maps, int32_t height, int32_t width, int32_t mask_height, int32_t mask_width) {
  WindowCopy copy;
  copy.rows = maps * height * width;
  copy.target_height = height;
  copy.target_width = width;
  copy.source_height = mask_height;
  copy.source_width = mask_width;
  copy.half_height = (mask_height - 1) / 2;
  copy.half_width = (mask_width - 1) / 2;
  copy.direction = -1;
  copy.map_width = Divisor(width);
  copy.map_size = Divisor(height * width);
  copy.target_columns = Divisor(width);
  return copy;
}

// The gradient of the result -> the gradient of the mask, same shapes the other way round.
inline WindowCopy ResultToMask(int64_t maps, int32_t height, int32_t width, int32_t mask_height, int32_t mask_width) {
  WindowCopy copy = MaskToResult(maps, height, width, mask_height, mask_width);
  copy.target_height = mask_height;
  copy.target_width = mask_width;
  copy.source_height = height;
  copy.source_width = width;
  copy.direction = 1;
  copy.target_columns = Divisor(mask_width);
  return copy;
}

}  // namespace psanet

#endif  // PSANET_CUSTOM_OPS_PSA_MASK_WINDOW_H_
