// Rows of activations in the form that a matrix wants to meet.
#pragma once

#include "matrix.h"
#include "scratch.h"

namespace tokenworks {

// Room for `count` rows, filled one group of 128 inputs at a time, in any order and by any thread.
class Activations {
 public:
  Activations(const Matrix& matrix, int count)
      : inputs_(matrix.inputs),
        padded_(matrix.padded()),
        code_bytes_(kernels().code_bytes_of(matrix)),
        scaled_(code_bytes_ > 0 && matrix.format >= Format::int8),
        groups_(Matrix::up(padded_, kGroup)),
        count_(static_cast<size_t>(count)) {}

  int groups() const { return groups_; }
  size_t row_bytes() const { return static_cast<size_t>(padded_) * (rounds() ? code_bytes_ : sizeof(float)); }
  bool as_is() const { return !rounds() && padded_ == inputs_; }  // rows need no preparation

  size_t bytes() const {
    if (!rounds()) return Scratch::size<float>(count_ * padded_);
    const size_t codes = Scratch::size<uint8_t>(count_ * padded_ * code_bytes_);
    if (!scaled_) return codes;
    return codes + Scratch::size<float>(count_ * groups_) + Scratch::size<int32_t>(count_ * groups_ * kSums);
  }

  void take(Scratch& scratch) {
    if (!rounds()) {
      x_ = scratch.take<float>(count_ * padded_);
      return;
    }
    codes_ = scratch.take<uint8_t>(count_ * padded_ * code_bytes_);
    if (!scaled_) return;
    scale_ = scratch.take<float>(count_ * groups_);
    sum_ = scratch.take<int32_t>(count_ * groups_ * kSums);
  }

  // Group `group` of row `row` from `x`, where the group starts.
  void put(size_t row, int group, const float* x) const {
    const int first = group * kGroup;
    const int given = inputs_ - first < kGroup ? inputs_ - first : kGroup;
    const int wanted = padded_ - first < kGroup ? padded_ - first : kGroup;
    if (rounds()) {
      kernels().round_group(x, given, wanted, code_bytes_, codes_ + (row * padded_ + first) * code_bytes_,
                            scaled_ ? scale_ + row * groups_ + group : nullptr,
                            scaled_ ? sum_ + (row * groups_ + group) * kSums : nullptr);
      return;
    }
    float* const target = x_ + row * padded_ + first;
    for (int i = 0; i < wanted; ++i) target[i] = i < given ? x[i] : 0.0f;
  }

  void put_row(size_t row, const float* x) const {
    for (int group = 0; group < groups_; ++group) put(row, group, x + group * kGroup);
  }

  Rows rows() const {
    Rows rows;
    rows.x = x_;
    rows.x_stride = rounds() ? 0 : padded_;
    rows.codes = codes_;
    rows.code_stride = static_cast<size_t>(padded_) * code_bytes_;
    rows.scale = scale_;
    rows.scale_stride = scaled_ ? groups_ : 0;
    rows.sum = sum_;
    rows.sum_stride = scaled_ ? static_cast<size_t>(groups_) * kSums : 0;
    return rows;
  }

 private:
  bool rounds() const { return code_bytes_ > 0; }

  static constexpr int kSums = kGroup / kSum;
  const int inputs_;
  const int padded_;
  const int code_bytes_;
  const bool scaled_;
  const int groups_;
  const size_t count_;
  float* x_ = nullptr;
  uint8_t* codes_ = nullptr;
  float* scale_ = nullptr;
  int32_t* sum_ = nullptr;
};

// Rows that stay in the second-level cache while tiles pass; a multiple of all widths of blocks.
inline int rows_together(size_t row_bytes) {
  const int fit = static_cast<int>((192 << 10) / (row_bytes + 1)) / 12 * 12;
  return fit < 12 ? 12 : fit > 96 ? 96 : fit;
}

}  // namespace tokenworks
