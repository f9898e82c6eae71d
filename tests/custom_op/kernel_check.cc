// Runs the kernels' arithmetic without TensorFlow and without a GPU: the CPU kernels' loop, and the CUDA kernels' body
// once for every thread of the launch.
//
// Built with sanitizers it compares both with a plain loop over random shapes, with buffers of exactly the right size at
// every alignment that an element may have, and prints the number of cases. An argument, "1", makes it go one row too
// far.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "psa_mask_rows.h"
#include "psa_mask_vectors.h"
#include "psa_mask_window.h"

namespace {

using psanet::WindowCopy;

template <typename Element>
void RunEveryThread(const WindowCopy& copy, const void* source, void* target, int64_t max_blocks) {
  const psanet::LaunchShape shape = psanet::ShapeLaunch<Element>(copy);
  const int64_t blocks = shape.blocks < max_blocks ? shape.blocks : max_blocks;
  for (int64_t block = 0; block < blocks; ++block) {
    for (int32_t group = 0; group < shape.rows_per_block; ++group) {
      for (int32_t lane = 0; lane < shape.lanes; ++lane) {
        psanet::CopyRowsOfThread(copy, static_cast<const Element*>(source), static_cast<Element*>(target), block,
                                 blocks, group, shape.rows_per_block, lane, shape.lanes);
      }
    }
  }
}

void Emulate(const WindowCopy& copy, std::size_t element_size, const void* source, void* target,
             int64_t max_blocks = psanet::kMaxInt32) {
  if (element_size == 2) RunEveryThread<uint16_t>(copy, source, target, max_blocks);
  if (element_size == 4) RunEveryThread<uint32_t>(copy, source, target, max_blocks);
  if (element_size == 8) RunEveryThread<uint64_t>(copy, source, target, max_blocks);
}

struct Case {
  int64_t maps;
  int32_t height, width, mask_height, mask_width;
};

// The formula at the top of psa_mask_window.h, one element at a time.
void PlainLoop(const Case& c, bool gradient, std::size_t element_size, const char* source, char* target) {
  const int64_t positions = int64_t{c.height} * c.width, channels = int64_t{c.mask_height} * c.mask_width;
  for (int64_t row = 0; row < c.maps * positions; ++row) {
    const int64_t h = row % positions / c.width, w = row % c.width;
    for (int64_t entry = 0; gradient && entry < channels; ++entry) {
      std::memset(target + (row * channels + entry) * element_size, 0, element_size);
    }
    for (int64_t q = 0; q < positions; ++q) {
      const int64_t y = q / c.width - h + (c.mask_height - 1) / 2, x = q % c.width - w + (c.mask_width - 1) / 2;
      const bool on_mask = y >= 0 && y < c.mask_height && x >= 0 && x < c.mask_width;
      const int64_t in_mask = row * channels + y * c.mask_width + x, in_result = row * positions + q;
      if (gradient) {
        if (on_mask) std::memcpy(target + in_mask * element_size, source + in_result * element_size, element_size);
      } else if (on_mask) {
        std::memcpy(target + in_result * element_size, source + in_mask * element_size, element_size);
      } else {
        std::memset(target + in_result * element_size, 0, element_size);
      }
    }
  }
}

int64_t rows_too_many = 0;

// Bytes [offset, offset + size) of a heap block that ends there: the sanitizer sees every access behind the end.
class Buffer {
 public:
  Buffer(std::size_t size, std::size_t offset) : size_(size), offset_(offset), block_(new char[size + offset]) {}
  char* data() { return block_.get() + offset_; }
  std::size_t size() const { return size_; }

 private:
  std::size_t size_, offset_;
  std::unique_ptr<char[]> block_;
};

void Expect(bool equal, const Case& c, const char* what, std::size_t element_size) {
  if (equal) return;
  std::printf("%s differs: N %ld, %d x %d, mask %d x %d, %zu bytes\n", what, static_cast<long>(c.maps), c.height,
              c.width, c.mask_height, c.mask_width, element_size);
  std::exit(1);
}

void Check(const Case& c, std::size_t element_size, std::mt19937& random) {
  const std::size_t positions = std::size_t(c.height) * c.width;
  const std::size_t mask_bytes = c.maps * positions * c.mask_height * c.mask_width * element_size;
  const std::size_t result_bytes = c.maps * positions * positions * element_size;
  for (const bool gradient : {false, true}) {
    const WindowCopy copy = gradient ? psanet::ResultToMask(c.maps, c.height, c.width, c.mask_height, c.mask_width)
                                     : psanet::MaskToResult(c.maps, c.height, c.width, c.mask_height, c.mask_width);
    const std::size_t per_pack = 16 / element_size;
    Buffer source(gradient ? result_bytes : mask_bytes, random() % per_pack * element_size);
    for (std::size_t i = 0; i < source.size(); ++i) source.data()[i] = static_cast<char>(1 + random() % 255);
    Buffer expected(gradient ? mask_bytes : result_bytes, 0);
    PlainLoop(c, gradient, element_size, source.data(), expected.data());
    const std::size_t offset = random() % per_pack * element_size;
    Buffer cpu(expected.size(), offset), cuda(expected.size(), offset), few_blocks(expected.size(), offset);
    for (Buffer* buffer : {&cpu, &cuda, &few_blocks}) std::memset(buffer->data(), 0xA5, buffer->size());
    const int64_t middle = copy.rows / 2;
    const int64_t end = copy.rows + rows_too_many;
    psanet::CopyRows(copy, element_size, source.data(), cpu.data(), middle, end);
    psanet::CopyRows(copy, element_size, source.data(), cpu.data(), 0, middle);
    Emulate(copy, element_size, source.data(), cuda.data());
    Emulate(copy, element_size, source.data(), few_blocks.data(), 2);
    auto equal = [&](Buffer& buffer) { return !std::memcmp(buffer.data(), expected.data(), expected.size()); };
    Expect(equal(cpu), c, gradient ? "CPU gradient" : "CPU forward", element_size);
    Expect(equal(cuda), c, gradient ? "CUDA gradient" : "CUDA forward", element_size);
    Expect(equal(few_blocks), c, gradient ? "CUDA gradient, few blocks" : "CUDA forward, few blocks", element_size);
  }
}

void CheckDivisors(std::mt19937& random) {
  for (int i = 0; i < 200000; ++i) {
    const uint32_t divisor = 1 + (random() % INT32_MAX >> random() % 31);
    const uint32_t near = divisor * (INT32_MAX / divisor);
    const psanet::Divisor division(divisor);
    for (const uint32_t dividend : {uint32_t{0}, divisor - 1, divisor & INT32_MAX, near - 1, near, uint32_t{INT32_MAX},
                                    uint32_t(random() % INT32_MAX)}) {
      if (division.Quotient(dividend) != dividend / divisor) {
        std::printf("%u / %u\n", dividend, divisor);
        std::exit(1);
      }
    }
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count > 1) rows_too_many = std::atoi(arguments[1]);
  std::mt19937 random(2018);
  CheckDivisors(random);
  int cases = 0;
  for (; cases < 200; ++cases) {
    auto length = [&](int limit) { return static_cast<int32_t>(1 + random() % limit); };
    const Case c = {length(3), length(9), length(14), length(24), length(32)};
    for (const std::size_t element_size : {2, 4, 8}) Check(c, element_size, random);
  }
  // Rows long enough for several threads per row to have several packs each.
  Check({1, 17, 40, 33, 79}, 2, random);
  Check({1, 17, 40, 33, 79}, 4, random);
  Check({1, 17, 40, 34, 66}, 4, random);
  std::printf("%d cases\n", cases);
}
