// Packed weights times rows of activations: the interface between operations and instruction sets.
// The layout is described in moe_ops/linear/packing.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tokenworks {

constexpr int kTile = 16;    // outputs of a tile
constexpr int kGroup = 128;  // inputs that share a scale of the activations
constexpr int kSum = 32;     // inputs whose codes are summed for each row
constexpr int kColumns = 256;  // outputs that one call of Kernels::multiply may produce

enum class Format : int { float32 = 0, bfloat16 = 1, int8 = 2, int4 = 3 };

struct Matrix {
  Format format;
  bool rounds;  // activations are rounded, where the instruction set has such products: Kernels::code_bytes_of
  int inputs;
  int tiles;
  const uint8_t* data;
  const uint16_t* scales;  // bfloat16

  Matrix(int code, int64_t outputs, int64_t inputs_, const void* data_, const void* scales_)
      : format(static_cast<Format>(code % 4)),
        rounds(code < 4),
        inputs(static_cast<int>(inputs_)),
        tiles(static_cast<int>((outputs + kTile - 1) / kTile)),
        data(static_cast<const uint8_t*>(data_)),
        scales(static_cast<const uint16_t*>(scales_)),
        padded_(up(inputs, whole()) * whole()),
        steps_(padded_ / together()),
        groups_(format < Format::int8 ? 1 : up(inputs, group())) {}

  static int up(int count, int multiple) { return (count + multiple - 1) / multiple; }

  // Inputs of one step, which is 64 bytes of a tile: 1, 2, 4, 8.
  int together() const {
    return 1 << static_cast<int>(format);
  }
  // Inputs that share a scale of the weights; all of them without scales.
  int group() const { return format == Format::int8 ? kGroup : format == Format::int4 ? kSum : padded_; }
  int groups() const { return groups_; }
  // Inputs with the zeros that fill the last step: rows of activations must be as long.
  int padded() const { return padded_; }
  int steps() const { return steps_; }
  const uint8_t* tile(int index) const { return data + static_cast<size_t>(index) * steps_ * 64; }
  const uint16_t* tile_scales(int index) const {
    return scales + static_cast<size_t>(index) * groups_ * kTile;
  }

 private:
  int whole() const { return format == Format::int4 ? kSum : together(); }  // inputs that are filled up together

  int padded_;
  int steps_;
  int groups_;
};

// Rows of activations: `x` where they meet weights as fp32, the others where they are rounded. For integer weights
// code i of a row is x[i] / scale[i / 128], and sum[j] adds up codes 32 j … 32 j + 31; for bf16 ones codes are bf16
// numbers, without scales and sums.
struct Rows {
  const float* x = nullptr;
  const uint8_t* codes = nullptr;  // null: rows of `x`
  const float* scale = nullptr;
  const int32_t* sum = nullptr;
  size_t x_stride = 0;  // all strides in elements, that of codes in bytes
  size_t code_stride = 0;
  size_t scale_stride = 0;
  size_t sum_stride = 0;
  const int32_t* index = nullptr;  // which row is the i-th; null: row i

  size_t at(int i) const { return index == nullptr ? static_cast<size_t>(i) : static_cast<size_t>(index[i]); }
  Rows from(int first) const {
    Rows part = *this;
    if (index != nullptr) {
      part.index = index + first;
      return part;
    }
    part.x += first * x_stride;
    part.codes += first * code_stride;
    part.scale += first * scale_stride;
    part.sum += first * sum_stride;
    return part;
  }
};

// What an instruction set must offer. No result depends on which rows or tiles share a call.
struct Kernels {
  // y[row][16 · (t - first)…] = row · tile t, for `count` tiles (16 · count ≤ kColumns); y has `y_stride` floats a row.
  void (*multiply)(const Matrix& matrix, int first, int count, const Rows& rows, int row_count, float* y,
                   size_t y_stride);
  // Codes, scales and sums of one group of `count` ≤ 128 activations; codes are filled up to `padded` with zeros.
  // Without `scale`, which only sets ask that round for bf16 weights: the nearest bf16 numbers, ties to even.
  void (*round_group)(const float* x, int count, int padded, int code_bytes, uint8_t* codes, float* scale,
                      int32_t* sum);
  // act[i] = silu(gate[i]) · up[i] where tiles of gate and up take turns in `both`; `count` is a multiple of 16.
  void (*gate)(const float* both, int count, float* act);
  // out[i] += weight · y[i]
  void (*add_scaled)(float* out, const float* y, float weight, int count);
  int code_bytes[4];  // size of a code, for each format; 0: its weights always meet fp32

  int code_bytes_of(const Matrix& matrix) const {
    return matrix.rounds ? code_bytes[static_cast<int>(matrix.format)] : 0;
  }
};

const Kernels& kernels();  // those of isa()

const Kernels& kernels_portable();
#if defined(__x86_64__)
const Kernels& kernels_avx2();
const Kernels& kernels_avx512();
const Kernels& kernels_vnni();
const Kernels& kernels_bf16();
#endif

}  // namespace tokenworks
