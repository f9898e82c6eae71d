// The CPU's way to copy the windows of psa_mask_window.h. Needs no TensorFlow.

#ifndef PSANET_CUSTOM_OPS_PSA_MASK_ROWS_H_
#define PSANET_CUSTOM_OPS_PSA_MASK_ROWS_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "psa_mask_window.h"

namespace psanet {

namespace internal {
inline int32_t Clamp(int64_t value, int32_t low, int32_t high) {
  return value < low ? low : value > high ? high : static_cast<int32_t>(value);
}
}  // namespace internal

// Rows [begin, end), each as runs of neighbours that are contiguous in both tensors and the gaps between them.
inline void CopyRows(const WindowCopy& copy, std::size_t element_size, const void* source, void* target, int64_t begin,
                     int64_t end) {
  const std::size_t target_bytes = static_cast<std::size_t>(copy.TargetSize()) * element_size;
  const std::size_t source_bytes = static_cast<std::size_t>(copy.SourceSize()) * element_size;
  const std::size_t target_pitch = static_cast<std::size_t>(copy.target_width) * element_size;
  const std::size_t source_pitch = static_cast<std::size_t>(copy.source_width) * element_size;
  for (int64_t row = begin; row < end; ++row) {
    int32_t dy, dx;
    copy.Shift(row, &dy, &dx);
    const int32_t top = internal::Clamp(-static_cast<int64_t>(dy), 0, copy.target_height);
    const int32_t bottom = internal::Clamp(static_cast<int64_t>(copy.source_height) - dy, top, copy.target_height);
    const int32_t left = internal::Clamp(-static_cast<int64_t>(dx), 0, copy.target_width);
    const int32_t right = internal::Clamp(static_cast<int64_t>(copy.source_width) - dx, left, copy.target_width);
    char* out = static_cast<char*>(target) + row * target_bytes;
    char* const out_end = out + target_bytes;
    if (top < bottom && left < right) {
      const char* in = static_cast<const char*>(source) + row * source_bytes +
                       static_cast<std::size_t>(top + dy) * source_pitch +
                       static_cast<std::size_t>(left + dx) * element_size;
      const std::size_t run = static_cast<std::size_t>(right - left) * element_size;
      const std::size_t gap = target_pitch - run;
      std::size_t zeros = static_cast<std::size_t>(top) * target_pitch + static_cast<std::size_t>(left) * element_size;
      for (int32_t y = top; y < bottom; ++y) {
        std::memset(out, 0, zeros);
        out += zeros;
        std::memcpy(out, in, run);
        out += run;
        in += source_pitch;
        zeros = gap;
      }
    }
    std::memset(out, 0, out_end - out);
  }
}

}  // namespace psanet

#endif  // PSANET_CUSTOM_OPS_PSA_MASK_ROWS_H_
