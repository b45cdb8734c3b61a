// Rows of rounded activations times int8 or int4 tiles: how blocks are laid over a call. An instruction set gives
// Block<format>::run<V, T>, V vectors of outputs times T rows. Sums of codes are exact, and groups are added in
// order, so results do not depend on the call. Include after one of simd_*.h.
#pragma once

#include "matrix.h"

namespace {

using tokenworks::Format;
using tokenworks::kGroup;
using tokenworks::kSum;
using tokenworks::kTile;
using tokenworks::Matrix;
using tokenworks::Rows;

constexpr int kAhead = 2048;  // bytes of weights that are asked for early: a pre-fetcher stops at each page

// Where a block reads: the tiles of its vectors and its rows.
template <int V, int T>
struct Place {
  const uint8_t* data[V];
  const uint16_t* scales[V];
  const uint8_t* codes[T];
  const float* scale[T];
  const int32_t* sum[T];

  Place(const Matrix& m, int first, const Rows& rows) {
    constexpr int kVectors = kTile / Simd::lanes;
    for (int v = 0; v < V; ++v) {
      const int tile = (first + v) / kVectors, part = (first + v) % kVectors * Simd::lanes;
      data[v] = m.tile(tile) + part * 4;
      scales[v] = m.tile_scales(tile) + part;
    }
    for (int t = 0; t < T; ++t) {
      const size_t row = rows.at(t);
      codes[t] = rows.codes + row * rows.code_stride;
      scale[t] = rows.scale + row * rows.scale_stride;
      sum[t] = rows.sum + row * rows.sum_stride;
    }
  }
};

template <template <int, int> class Block, int kWide, int kNarrow, int kRows>
void multiply_codes(const Matrix& m, int first, int count, const Rows& rows, int row_count, float* y,
                    size_t y_stride) {
  constexpr int kVectors = kTile / Simd::lanes;
  const int end = (first + count) * kVectors;
  const int blocks = (row_count + kRows - 1) / kRows;
  int vector = first * kVectors;
  while (vector < end) {
    const bool wide = row_count <= 3 && vector + kWide <= end;
    int row = 0;
    for (int block = 0; block < blocks; ++block) {
      const int size = (row_count - row + blocks - block - 1) / (blocks - block);
      const Rows part = rows.from(row);
      float* target = y + row * y_stride + (vector - first * kVectors) * Simd::lanes;
      if (wide) {
        if (size == 1) Block<kWide, 1>::run(m, vector, part, target, y_stride);
        if (size == 2) Block<kWide, 2>::run(m, vector, part, target, y_stride);
        if (size == 3) Block<kWide, 3>::run(m, vector, part, target, y_stride);
      } else {
        if (size == 1) Block<kNarrow, 1>::run(m, vector, part, target, y_stride);
        if (size == 2) Block<kNarrow, 2>::run(m, vector, part, target, y_stride);
        if (size == 3) Block<kNarrow, 3>::run(m, vector, part, target, y_stride);
        if (size == 4) Block<kNarrow, 4>::run(m, vector, part, target, y_stride);
        if (size == 5) Block<kNarrow, 5>::run(m, vector, part, target, y_stride);
        if (size == 6) Block<kNarrow, 6>::run(m, vector, part, target, y_stride);
      }
      row += size;
    }
    vector += wide ? kWide : kNarrow;
  }
}

}  // namespace
