// How a call is cut into blocks of outputs and rows that fit the registers. Include after one of simd_*.h.
#pragma once

#include "matrix.h"

namespace {

using tokenworks::Format;
using tokenworks::kGroup;
using tokenworks::kSum;
using tokenworks::kTile;
using tokenworks::Matrix;
using tokenworks::Rows;

constexpr int kVectors = kTile / Simd::lanes;  // of a tile
constexpr int kRows = 6;                       // of a block
constexpr int kFewRows = 3;                    // take more outputs at once, to hide latency
constexpr int kAhead = 2048;                   // bytes of weights asked for early: pre-fetchers stop at each page

// Where the weights of one vector of outputs start.
struct Column {
  const uint8_t* data;
  const uint16_t* scales;

  Column() = default;
  Column(const Matrix& m, int vector) {
    const int tile = vector / kVectors, part = vector % kVectors * Simd::lanes;
    data = m.tile(tile) + part * 4;
    scales = m.tile_scales(tile) + part;
  }
};

// V vectors of outputs from `vector` on for all rows, in blocks of nearly equal size.
template <template <int, int> class Block, int V, int most>
void multiply_rows(const Matrix& m, int vector, const Rows& rows, int row_count, float* y, size_t y_stride) {
  const int blocks = (row_count + kRows - 1) / kRows;
  for (int row = 0, block = 0; block < blocks; ++block) {
    const int size = (row_count - row + blocks - block - 1) / (blocks - block);
    const Rows part = rows.from(row);
    float* const target = y + row * y_stride;
    if (size == 1) Block<V, 1>::run(m, vector, part, target, y_stride);
    if (size == 2) Block<V, 2>::run(m, vector, part, target, y_stride);
    if (size == 3) Block<V, 3>::run(m, vector, part, target, y_stride);
    if constexpr (most > kFewRows) {
      if (size == 4) Block<V, 4>::run(m, vector, part, target, y_stride);
      if (size == 5) Block<V, 5>::run(m, vector, part, target, y_stride);
      if (size == 6) Block<V, 6>::run(m, vector, part, target, y_stride);
    }
    row += size;
  }
}

// Block<V, T>::run computes V vectors of outputs of T rows: kWide vectors of few rows, kNarrow of more.
template <template <int, int> class Block, int kWide, int kNarrow>
void multiply_blocks(const Matrix& m, int first, int count, const Rows& rows, int row_count, float* y,
                     size_t y_stride) {
  const int begin = first * kVectors, end = (first + count) * kVectors;
  for (int vector = begin; vector < end;) {
    float* const target = y + (vector - begin) * Simd::lanes;
    if (row_count <= kFewRows && vector + kWide <= end) {
      multiply_rows<Block, kWide, kFewRows>(m, vector, rows, row_count, target, y_stride);
      vector += kWide;
    } else if (vector + kNarrow <= end) {
      multiply_rows<Block, kNarrow, kRows>(m, vector, rows, row_count, target, y_stride);
      vector += kNarrow;
    } else {
      multiply_rows<Block, 1, kRows>(m, vector, rows, row_count, target, y_stride);
      ++vector;
    }
  }
}

}  // namespace
