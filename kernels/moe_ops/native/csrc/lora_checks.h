// Changes as Python describes them: places in a bank, which is one adapter's memory.
#pragma once

#include <ATen/core/Tensor.h>

#include "lora.h"

namespace tokenworks::lora {

// The rows of a table are changes: rank, inputs, outputs, column, A's offset, stride and format, B's offset and format.
class Table {
 public:
  Table(const at::Tensor& bank, const at::Tensor& table)
      : bank_(static_cast<const uint8_t*>(bank.const_data_ptr())), bytes_(static_cast<int64_t>(bank.nbytes())) {
    TORCH_CHECK(bank.device().is_cpu() && bank.scalar_type() == at::kByte && bank.is_contiguous(),
                "a bank must be contiguous bytes");
    TORCH_CHECK(table.scalar_type() == at::kLong && table.dim() == 2 && table.size(1) == kFields &&
                    table.is_contiguous(),
                "a table must be contiguous int64 of shape (changes, ", kFields, "), not ", table.sizes());
    numbers_ = table.const_data_ptr<int64_t>();
    size_ = table.size(0);
  }

  int64_t size() const { return size_; }

  // Change `row`, which must take `inputs` numbers.
  Change at(int64_t row, int64_t inputs) const {
    const int64_t* const n = numbers_ + row * kFields;
    Change change;
    if (n[0] == 0) return change;
    TORCH_CHECK(n[1] == inputs, "a change of ", n[1], " inputs meets ", inputs);
    TORCH_CHECK(0 < n[0] && n[0] < kMost && 0 < n[1] && n[1] < kMost && 0 < n[2] && n[2] < kMost && 0 <= n[3] &&
                    n[3] < kMost,
                "no change of rank ", n[0], ", ", n[2], " × ", n[1], " at column ", n[3]);
    TORCH_CHECK((n[6] == 0 || n[6] == 1) && (n[8] == 0 || n[8] == 1), "factors must be float32 or bfloat16");
    TORCH_CHECK(n[6] == 0 || inputs % 2 == 0, "rows of ", inputs, " inputs do not meet a bfloat16 factor");
    change.rank = static_cast<int>(n[0]);
    change.inputs = static_cast<int>(n[1]);
    change.outputs = static_cast<int>(n[2]);
    change.column = static_cast<int>(n[3]);
    change.a_code = static_cast<int>(n[6]);
    change.b_code = static_cast<int>(n[8]);
    const int64_t tile = static_cast<int64_t>(change.a_tile(0).steps()) * kTileStep;
    const int64_t b = static_cast<int64_t>(change.whole_b().tiles) * change.whole_b().steps() * kTileStep;
    TORCH_CHECK(tile <= n[5] && n[5] <= bytes_ && inside(n[4], (change.tiles() - 1) * n[5] + tile) && inside(n[7], b),
                "a change lies outside its bank");
    change.a = bank_ + n[4];
    change.a_stride = static_cast<size_t>(n[5]);
    change.b = bank_ + n[7];
    return change;
  }

 private:
  static constexpr int64_t kFields = 9;
  static constexpr int64_t kMost = int64_t{1} << 24;
  static constexpr int64_t kTileStep = 64;

  bool inside(int64_t offset, int64_t size) const {
    return 0 <= offset && offset <= bytes_ && size <= bytes_ - offset;
  }

  const uint8_t* const bank_;
  const int64_t bytes_;
  const int64_t* numbers_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace tokenworks::lora
