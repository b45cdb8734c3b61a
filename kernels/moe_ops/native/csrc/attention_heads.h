// Vectors times the part of a packed matrix that belongs to one head, on the kernels of matrix.h.
#pragma once

#include <algorithm>
#include <cstdint>

#include "activations.h"

namespace tokenworks {

// Rows of x times outputs [first, first + count) of `matrix`; they need not begin or end with a tile.
struct HeadProduct {
  const Matrix& matrix;
  int64_t first, count;
  const float* x;
  int64_t x_stride;
  float* out;
  int64_t out_stride;
  int64_t rows;
};

namespace detail {

// Up to kColumns outputs of rows that are ready; `spare` takes what lies beside whole tiles.
inline void multiply_tiles(const HeadProduct& p, int64_t first, int64_t count, const Rows& ready, int rows,
                           float* out, float* spare) {
  const int tile = static_cast<int>(first / kTile), begin = static_cast<int>(first % kTile);
  const int tiles = Matrix::up(begin + static_cast<int>(count), kTile);
  if (tiles * kTile == count) {
    kernels().multiply(p.matrix, tile, tiles, ready, rows, out, static_cast<size_t>(p.out_stride));
    return;
  }
  kernels().multiply(p.matrix, tile, tiles, ready, rows, spare, kColumns);
  for (int row = 0; row < rows; ++row)
    std::copy_n(spare + row * kColumns + begin, count, out + row * p.out_stride);
}

}  // namespace detail

// Memory comes from the calling thread's Scratch.
inline void multiply_head(const HeadProduct& p) {
  const int64_t step = p.first % kTile == 0 ? kColumns : kColumns - kTile;
  const bool as_is = !p.matrix.rounds && p.matrix.padded() == p.matrix.inputs;
  const int together = rows_together(Activations(p.matrix, 1).row_bytes());
  const int most = static_cast<int>(std::min<int64_t>(p.rows, together));
  Activations activations(p.matrix, most);
  Scratch& scratch = Scratch::begin();
  scratch.reserve(activations.bytes() + Scratch::size<float>(static_cast<size_t>(most) * kColumns));
  activations.take(scratch);
  float* const spare = scratch.take<float>(static_cast<size_t>(most) * kColumns);
  for (int64_t row = 0; row < p.rows; row += most) {
    const int rows = static_cast<int>(std::min<int64_t>(most, p.rows - row));
    const float* const x = p.x + row * p.x_stride;
    Rows ready;
    if (as_is) {
      ready.x = x;
      ready.x_stride = static_cast<size_t>(p.x_stride);
    } else {
      for (int i = 0; i < rows; ++i) activations.put_row(i, x + i * p.x_stride);
      ready = activations.rows();
    }
    for (int64_t done = 0; done < p.count; done += step)
      detail::multiply_tiles(p, p.first + done, std::min(step, p.count - done), ready, rows,
                             p.out + row * p.out_stride + done, spare);
  }
}

}  // namespace tokenworks
