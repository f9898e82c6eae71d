// The body of the CUDA kernels, in a form that a host compiler takes too: a test runs it for every thread on a CPU.

#ifndef PSANET_CUSTOM_OPS_PSA_MASK_VECTORS_H_
#define PSANET_CUSTOM_OPS_PSA_MASK_VECTORS_H_

#include "psa_mask_window.h"

namespace psanet {

// 16 bytes, the widest load and store that a GPU thread has.
template <typename Element>
struct alignas(16) Pack {
  static constexpr int32_t kSize = 16 / sizeof(Element);
  Element elements[kSize];
};

// Element (y, x) of the row of the source that begins at `row`; 0 outside.
template <typename Element>
inline Element LoadElement(const WindowCopy& copy, const Element* row, int32_t y, int32_t x) {
  return copy.InSource(y, x) ? row[y * copy.source_width + x] : Element{0};
}

// The source of the pack that begins at the target's (y, x) and may go on in the target's next lines.
template <typename Element>
inline Pack<Element> LoadPack(const WindowCopy& copy, const Element* row, int32_t y, int32_t x, int32_t dy,
                              int32_t dx) {
  constexpr int32_t kSize = Pack<Element>::kSize;
  if (x + kSize <= copy.target_width && copy.InSource(y + dy, x + dx) && copy.InSource(y + dy, x + dx + kSize - 1)) {
    const Element* run = row + (y + dy) * copy.source_width + x + dx;
    if (reinterpret_cast<uintptr_t>(run) % sizeof(Pack<Element>) == 0) {
      return *reinterpret_cast<const Pack<Element>*>(run);
    }
  }
  Pack<Element> pack;
#if defined(__CUDACC_RTC__)
#pragma unroll
#endif
  for (int32_t i = 0; i < kSize; ++i) {
    pack.elements[i] = LoadElement(copy, row, y + dy, x + dx);
    if (++x == copy.target_width) {
      x = 0;
      ++y;
    }
  }
  return pack;
}

// What thread `lane` of the `lanes` that share a row does: every lanes-th pack of the row. Neighbouring lanes write
// neighbouring packs. A row that begins or ends inside a pack shares that one with its neighbour: such packs are
// written element by element.
template <typename Element>
inline void CopyRowPacks(const WindowCopy& copy, const Element* source, Element* target, int64_t row, int32_t lane,
                         int32_t lanes) {
  constexpr int32_t kSize = Pack<Element>::kSize;
  const int32_t size = copy.TargetSize();
  int32_t dy, dx;
  copy.Shift(row, &dy, &dx);
  source += row * copy.SourceSize();
  target += row * size;
  // Elements between the last 16-byte boundary and the row's first element.
  const int32_t lead = static_cast<int32_t>(reinterpret_cast<uintptr_t>(target) / sizeof(Element) % kSize);
  const int32_t packs = (lead + size + kSize - 1) / kSize;
  for (int32_t i = lane; i < packs; i += lanes) {
    const int32_t begin = i * kSize - lead;
    const int32_t end = begin + kSize;
    if (begin >= 0 && end <= size) {
      const int32_t y = static_cast<int32_t>(copy.target_columns.Quotient(begin));
      const int32_t x = begin - y * copy.target_width;
      *reinterpret_cast<Pack<Element>*>(target + begin) = LoadPack(copy, source, y, x, dy, dx);
    } else {
      for (int32_t j = begin < 0 ? 0 : begin; j < end && j < size; ++j) {
        const int32_t y = static_cast<int32_t>(copy.target_columns.Quotient(j));
        const int32_t x = j - y * copy.target_width;
        target[j] = LoadElement(copy, source, y + dy, x + dx);
      }
    }
  }
}

// How the threads of a launch share the rows: blocks of `rows_per_block` groups of `lanes` threads each; a group takes
// every (blocks * rows_per_block)-th row.
struct LaunchShape {
  int64_t blocks;
  int32_t rows_per_block;
  int32_t lanes;
};

constexpr int32_t kThreads = 256;  // of a block

template <typename Element>
inline LaunchShape ShapeLaunch(const WindowCopy& copy) {
  constexpr int32_t kWarp = 32;
  // About four packs per thread: enough loads under way at once, and the row's own arithmetic is shared.
  constexpr int32_t kPacksPerThread = 4;
  constexpr int64_t kMaxBlocks = kMaxInt32;
  LaunchShape shape;
  shape.lanes = kWarp;
  while (shape.lanes < kThreads && shape.lanes * kPacksPerThread * Pack<Element>::kSize < copy.TargetSize()) {
    shape.lanes *= 2;
  }
  shape.rows_per_block = kThreads / shape.lanes;
  shape.blocks = (copy.rows + shape.rows_per_block - 1) / shape.rows_per_block;
  if (shape.blocks > kMaxBlocks) shape.blocks = kMaxBlocks;
  return shape;
}

// What thread (block, group, lane) of a launch does.
template <typename Element>
inline void CopyRowsOfThread(const WindowCopy& copy, const Element* source, Element* target, int64_t block,
                             int64_t blocks, int32_t group, int32_t groups, int32_t lane, int32_t lanes) {
  for (int64_t row = block * groups + group; row < copy.rows; row += blocks * groups) {
    CopyRowPacks(copy, source, target, row, lane, lanes);
  }
}

}  // namespace psanet

#endif  // PSANET_CUSTOM_OPS_PSA_MASK_VECTORS_H_
