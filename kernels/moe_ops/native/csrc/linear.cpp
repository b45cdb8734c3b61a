#include "linear.h"

#include <algorithm>
#include <cstring>

#include "activations.h"
#include "threads.h"

namespace tokenworks {
namespace {

constexpr int kTilesTogether = 4;
constexpr int kSerialWork = 16 << 10;  // activations: fewer are prepared before the threads start

}  // namespace

void linear(const Matrix& matrix, int outputs, const float* x, int64_t x_stride, int rows, float* out,
            int64_t out_stride, bool add) {
  if (rows == 0) return;
  const Kernels& kernel = kernels();
  Activations activations(matrix, rows);
  const bool as_is = activations.as_is();
  const int chunk = std::min(rows, rows_together(activations.row_bytes()));
  const int chunks = Matrix::up(rows, chunk), blocks = Matrix::up(matrix.tiles, kTilesTogether);
  constexpr int kWidth = kTilesTogether * kTile;
  const size_t product = Scratch::size<float>(static_cast<size_t>(chunk) * kWidth);

  Scratch& scratch = Scratch::begin();
  const int threads = std::min(thread_count(), blocks * chunks);
  scratch.reserve((as_is ? 0 : activations.bytes()) + Scratch::size<uint8_t>(threads * product));
  uint8_t* const products = scratch.take<uint8_t>(threads * product);
  Rows prepared;
  if (as_is) {
    prepared.x = x;
    prepared.x_stride = static_cast<size_t>(x_stride);
  } else {
    activations.take(scratch);
    prepared = activations.rows();
  }
  const bool serial = as_is || static_cast<int64_t>(rows) * matrix.inputs <= kSerialWork;
  if (serial && !as_is)
    for (int row = 0; row < rows; ++row) activations.put_row(row, x + row * x_stride);

  Queue queue(blocks * chunks);
  parallel(threads, [&](int thread, int team) {
    if (!serial) {
      for (int row = thread; row < rows; row += team) activations.put_row(row, x + row * x_stride);
      barrier(team);
    }
    float* const y = reinterpret_cast<float*>(products + thread * product);
    for (int item; (item = queue.take()) >= 0;) {
      const int row = item / blocks * chunk, tile = item % blocks * kTilesTogether;
      const int count = std::min(chunk, rows - row), tiles = std::min(kTilesTogether, matrix.tiles - tile);
      const int column = tile * kTile, width = std::min(tiles * kTile, outputs - column);
      float* const result = out + row * out_stride + column;
      if (!add && width == tiles * kTile) {
        kernel.multiply(matrix, tile, tiles, prepared.from(row), count, result, static_cast<size_t>(out_stride));
        continue;
      }
      kernel.multiply(matrix, tile, tiles, prepared.from(row), count, y, kWidth);
      for (int i = 0; i < count; ++i) {
        float* const target = result + i * out_stride;
        if (add)
          for (int c = 0; c < width; ++c) target[c] += y[i * kWidth + c];
        else
          std::memcpy(target, y + i * kWidth, width * sizeof(float));
      }
    }
  });
}

}  // namespace tokenworks
