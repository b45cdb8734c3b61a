// Vectors times the part of a packed matrix that belongs to one head, on the kernels of matrix.h.
#pragma once

#include <algorithm>
#include <cstdint>

#include "activations.h"

namespace tokenworks {

// `rows` vectors times outputs [first, first + count) of `matrix`, which need not begin or end with a tile; `spare`
// holds rows × kColumns numbers for what lies beside whole tiles.
inline void multiply_outputs(const Matrix& matrix, int64_t first, int64_t count, const Rows& ready, int rows,
                             float* out, int64_t out_stride, float* spare) {
  const int64_t step = first % kTile == 0 ? kColumns : kColumns - kTile;
  for (int64_t done = 0; done < count; done += step) {
    const int64_t columns = std::min(step, count - done);
    const int tile = static_cast<int>((first + done) / kTile), begin = static_cast<int>((first + done) % kTile);
    const int tiles = Matrix::up(begin + static_cast<int>(columns), kTile);
    if (tiles * kTile == columns) {
      kernels().multiply(matrix, tile, tiles, ready, rows, out + done, static_cast<size_t>(out_stride));
      continue;
    }
    kernels().multiply(matrix, tile, tiles, ready, rows, spare, kColumns);
    for (int row = 0; row < rows; ++row)
      std::copy_n(spare + row * kColumns + begin, columns, out + row * out_stride + done);
  }
}

// Rows of x times outputs [first, first + count) of `matrix`.
struct HeadProduct {
  const Matrix& matrix;
  int64_t first, count;
  const float* x;
  int64_t x_stride;
  float* out;
  int64_t out_stride;
  int64_t rows;
};

// Memory comes from the calling thread's Scratch.
inline void multiply_head(const HeadProduct& p) {
  const int together = rows_together(Activations(p.matrix, 1).row_bytes());
  const int most = static_cast<int>(std::min<int64_t>(p.rows, together));
  Activations activations(p.matrix, most);
  const bool as_is = activations.as_is();
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
    multiply_outputs(p.matrix, p.first, p.count, ready, rows, p.out + row * p.out_stride, p.out_stride, spare);
  }
}

}  // namespace tokenworks
