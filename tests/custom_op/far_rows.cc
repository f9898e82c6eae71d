// The rows at the end of tensors with more than 2^31 elements, without the memory for them: the address space is
// reserved, and only the pages that these rows touch come into being.

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "psa_mask_rows.h"
#include "psa_mask_vectors.h"
#include "psa_mask_window.h"

namespace {

using Element = uint16_t;

Element* Reserve(int64_t elements) {
  void* memory = mmap(nullptr, elements * sizeof(Element), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("mmap");
    std::exit(2);
  }
  return static_cast<Element*>(memory);
}

}  // namespace

int main() {
  const int64_t maps = 40;
  const int32_t size = 64, mask_size = 2 * size - 1;
  const psanet::WindowCopy forward = psanet::MaskToResult(maps, size, size, mask_size, mask_size);
  const psanet::WindowCopy gradient = psanet::ResultToMask(maps, size, size, mask_size, mask_size);
  const int64_t mask_elements = forward.rows * forward.SourceSize();
  if (mask_elements <= int64_t{1} << 31) return 3;
  Element* mask = Reserve(mask_elements);
  Element* result = Reserve(forward.rows * forward.TargetSize());
  Element* mask_gradient = Reserve(mask_elements);
  // Position (h, w) = (size - 1, size - 1) of the last map: its window is the mask's upper left quarter.
  const int64_t last = forward.rows - 1;
  Element* last_mask = mask + last * forward.SourceSize();
  for (int32_t i = 0; i < forward.SourceSize(); ++i) last_mask[i] = static_cast<Element>(1 + i % 65521);
  auto check = [&](const char* what) {
    for (int32_t k = 0; k < size; ++k) {
      for (int32_t l = 0; l < size; ++l) {
        const Element expected = last_mask[k * mask_size + l];
        if (result[last * forward.TargetSize() + k * size + l] != expected ||
            mask_gradient[last * forward.SourceSize() + k * mask_size + l] != expected) {
          std::printf("%s: wrong at %d, %d\n", what, k, l);
          std::exit(1);
        }
        result[last * forward.TargetSize() + k * size + l] = 0;
        mask_gradient[last * forward.SourceSize() + k * mask_size + l] = 0;
      }
    }
  };
  psanet::CopyRows(forward, sizeof(Element), mask, result, last, last + 1);
  psanet::CopyRows(gradient, sizeof(Element), result, mask_gradient, last, last + 1);
  check("CPU");
  const int32_t lanes = 32;
  for (int32_t lane = 0; lane < lanes; ++lane) psanet::CopyRowPacks(forward, mask, result, last, lane, lanes);
  for (int32_t lane = 0; lane < lanes; ++lane) {
    psanet::CopyRowPacks(gradient, result, mask_gradient, last, lane, lanes);
  }
  check("CUDA");
  std::printf("%lld elements\n", static_cast<long long>(mask_elements));
}
