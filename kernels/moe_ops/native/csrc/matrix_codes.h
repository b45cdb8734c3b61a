// What a block of rounded activations and int8 or int4 weights reads. Sums of codes are exact, and groups are added
// in order, so results do not depend on the block. Include after one of simd_*.h.
#pragma once

#include "matrix_blocks.h"

namespace {

// Sums of codes that stand for numbers beyond all limits may wrap; such results are NaN by their scale.
inline int32_t product(uint32_t sum, int factor) {
  return static_cast<int32_t>(sum * static_cast<uint32_t>(factor));
}

template <int V, int T>
struct Place {
  const uint8_t* data[V];
  const uint16_t* scales[V];
  const uint8_t* codes[T];
  const float* scale[T];
  const int32_t* sum[T];

  Place(const Matrix& m, int first, const Rows& rows) {
    for (int v = 0; v < V; ++v) {
      const Column column(m, first + v);
      data[v] = column.data;
      scales[v] = column.scales;
    }
    for (int t = 0; t < T; ++t) {
      const size_t row = rows.at(t);
      codes[t] = rows.codes + row * rows.code_stride;
      scale[t] = rows.scale + row * rows.scale_stride;
      sum[t] = rows.sum + row * rows.sum_stride;
    }
  }
};

}  // namespace
