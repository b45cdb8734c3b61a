// Latent attention: what the kernels of one instruction set offer, and what they work on.
#pragma once

#include <cstdint>

#include "matrix.h"

namespace tokenworks::attention {

constexpr int kBlock = 64;   // positions of context that are worked on together
constexpr int kChunk = 256;  // positions whose result is one partial; never depends on batch or threads
constexpr int kLanes = 16;   // columns of a panel; queries of a tile
// A panel holds kLanes columns of a block, position after position. The line more keeps panels off each other's
// sets of the first-level cache.
constexpr int64_t kPanel = (kBlock + 1) * kLanes;

constexpr int64_t panels(int64_t columns) { return (columns + kLanes - 1) / kLanes; }
constexpr int64_t padded(int64_t columns) { return panels(columns) * kLanes; }

// The paged cache of one layer: rows of `width` numbers, latent first.
struct Cache {
  const void* data;
  bool bfloat16;
  int64_t page_size, width, latent;
};

// A block of context in panels: keys of `width` columns, and values of `value` columns, which may be the same.
struct Block {
  const float *keys, *values;
  int64_t width, value;
};

// `count` queries in tiles of kLanes, scaled and turned: (tiles, width, kLanes). `seen`, kLanes a tile, says how
// many positions of the block each sees; lanes without a query repeat another's.
struct Queries {
  const float* turned;
  const int32_t* seen;
  int64_t count;
};

// Running results of queries: maxima and sums, kLanes a tile, and weighted values, a row of padded(value) each.
struct Partial {
  float *max, *sum, *values;
};

struct Kernels {
  // Columns [column, column + width) of `count` cache rows from position `first` on, to columns from `to` on.
  void (*gather)(const Cache&, const int32_t* pages, int64_t first, int64_t count, int64_t column, int64_t width,
                 int64_t to, float* panels);
  // The first `width` columns of one position's row.
  void (*read)(const Cache&, const int32_t* pages, int64_t position, int64_t width, float* row);
  // The same as gather for rows in memory, `stride` apart.
  void (*spread)(const float* rows, int64_t stride, int64_t count, int64_t width, int64_t to, float* panels);
  // `count` ≤ kLanes rows times `scale`, turned: (width, kLanes).
  void (*turn)(const float* const* rows, int64_t count, int64_t width, float scale, float* out);
  void (*clear)(Partial, int64_t count, int64_t value);
  // Brings what queries see of a block into `partial`; `scores` holds kBlock × kLanes numbers.
  void (*attend)(const Block&, const Queries&, Partial partial, float* scores);
  // Brings `other` into `into`: the order of merging is the order of positions.
  void (*merge)(Partial into, Partial other, int64_t count, int64_t value);
  // Values divided by sums: the first `width` columns, to rows `stride` apart.
  void (*finish)(Partial partial, int64_t first, int64_t count, int64_t value, int64_t width, float* out,
                 int64_t stride);
  void (*rms_norm)(const float* x, const float* weight, float* out, int64_t width, float eps);
  // Products of each of `rows` vectors x with `count` rows of `weight`, all `width` long and dense; `sums` is room
  // for rows · count · kLanes numbers.
  void (*dots)(const float* x, int64_t rows, const float* weight, int64_t width, int64_t count, float* sums,
               float* out, int64_t out_stride);
  // Pairs of `width` numbers turned by the cosines and sines of `turn`; `out` may be `x`.
  void (*rotate)(const float* x, const float* turn, float* out, int64_t width);
  void (*narrow)(const float* x, uint16_t* out, int64_t width);  // to bfloat16, nearest, ties to even
};

const Kernels& kernels_portable();
const Kernels& kernels_avx2();
const Kernels& kernels_avx512();
const Kernels& kernels();  // for the instruction set in use

// What the new tokens of `batch` rows are: tokens first … first + count of the queries, the last of them at
// context length `end`; `columns` page numbers a row.
struct Rows {
  const int32_t *pages, *first, *count, *end;
  int64_t batch, columns;
};

// Absorb queries (tokens, heads, nope + rotary), attend, and take latents to values (tokens, heads, value).
struct Decode {
  Cache cache;
  Rows rows;
  Matrix kv_b;  // heads · (nope + value) outputs, latent inputs
  Matrix key;   // heads · latent outputs, nope inputs: the turned rows of the keys
  const float* q;
  float* out;
  int64_t q_stride;  // from token to token
  int64_t tokens, heads, nope, rotary, value_width;
  float scale;
};
void decode(const Decode& call);

// The same for one row of many new tokens, at positions from `start` on: keys and values of all heads are made from
// the latents.
struct Expand {
  Cache cache;
  const int32_t* pages;
  Matrix kv_b;
  const float* q;
  float* out;
  int64_t q_stride;  // from token to token
  int64_t start, tokens, heads, nope, rotary, value_width;
  float scale;
};
void expand(const Expand& call);

}  // namespace tokenworks::attention
