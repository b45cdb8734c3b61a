// Any processor: what the compiler makes of plain loops.
#include "simd_portable.h"
//
#include "matrix_codes.h"
#include "matrix_float.h"
#include "rows_simd.h"

namespace {

// One row times one tile; the sum of `count` inputs is exact.
inline void add_step(const int8_t* w, const int8_t* x, int32_t (&sum)[kTile]) {
  for (int o = 0; o < kTile; ++o)
    for (int k = 0; k < 4; ++k) sum[o] += w[o * 4 + k] * x[k];
}

template <bool nibbles>
void multiply_row(const Matrix& m, int tile, const Rows& rows, int row, float* y) {
  const int8_t* x = reinterpret_cast<const int8_t*>(rows.codes + row * rows.code_stride);
  const float* x_scale = rows.scale + row * rows.scale_stride;
  const uint8_t* data = m.tile(tile);
  const uint16_t* scales = m.tile_scales(tile);
  const int steps = m.steps(), group_steps = m.group() / m.together();
  Simd::F total = Simd::set(0.0f);
  for (int done = 0, group = 0; done < steps; ++group) {
    const int end = done + group_steps < steps ? done + group_steps : steps;
    int32_t sum[kTile] = {};
    for (; done < end; ++done, data += 64) {
      int8_t w[2][64];
      if constexpr (nibbles) {
        for (int i = 0; i < 64; ++i) {
          w[0][i] = static_cast<int8_t>((data[i] & 15) - 8);
          w[1][i] = static_cast<int8_t>((data[i] >> 4) - 8);
        }
        add_step(w[0], x + done * 8, sum);
        add_step(w[1], x + done * 8 + 4, sum);
      } else {
        add_step(reinterpret_cast<const int8_t*>(data), x + done * 4, sum);
      }
    }
    const Simd::F both = Simd::mul(Simd::widen_bf16(scales + group * kTile),
                                   Simd::set(x_scale[group * m.group() / kGroup]));
    total = Simd::fma(Simd::to_float(Simd::load_int(sum)), both, total);
  }
  Simd::store(y, total);
}

void multiply(const Matrix& m, int first, int count, const Rows& rows, int row_count, float* y,
              size_t y_stride) {
  if (rows.codes == nullptr) return multiply_floats_by_format(m, first, count, rows, row_count, y, y_stride);
  for (int tile = 0; tile < count; ++tile)
    for (int t = 0; t < row_count; ++t) {
      const int row = static_cast<int>(rows.at(t));
      float* target = y + t * y_stride + tile * kTile;
      if (m.format == Format::int8)
        multiply_row<false>(m, first + tile, rows, row, target);
      else
        multiply_row<true>(m, first + tile, rows, row, target);
    }
}

}  // namespace

namespace tokenworks {

const Kernels& kernels_portable() {
  static const Kernels table{multiply, round_group, gate, add_scaled, {0, 0, 1, 1}};
  return table;
}

}  // namespace tokenworks
