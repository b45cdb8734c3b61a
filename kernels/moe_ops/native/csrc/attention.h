// Latent attention of few new tokens: what the kernels of one instruction set offer, and what they work on.
#pragma once

#include <cstdint>

#include "matrix.h"

namespace tokenworks::attention {

constexpr int kBlock = 64;    // positions whose scores are computed together
constexpr int kChunk = 256;   // positions whose result is one partial; never depends on batch or threads
constexpr int kPanel = 64;    // columns that weighted sums are computed in

// The paged cache of one layer: rows of `width` numbers, latent first.
struct Cache {
  const void* data;
  bool bfloat16;
  int64_t page_size, width, latent;
};

// Some queries of one row of the batch: `tokens` × `heads` vectors, heads running fastest.
struct Query {
  const float* q;  // (tokens, heads of the model, padded width), at the first token and head
  int64_t token_stride, head_stride;
  int64_t tokens, heads;
  const int32_t* pages;
  int64_t end;  // context length of the last token
  float scale;
};

// Running results of a query's vectors: maximum, sum and weighted latents, `padded` apart.
struct Partial {
  float* max;
  float* sum;
  float* latent;
};

// Many queries and a piece of their context, expanded: `both` holds nope-wide keys and values of all heads.
struct Piece {
  const float* q;
  int64_t q_token, q_head;  // strides
  const float* both;
  int64_t both_row;
  const float* rotary;  // of keys, shared by all heads
  int64_t rotary_row;
  float *out, *total;  // (tokens, heads, value) and (tokens, heads): logarithms of the sums of weights
  int64_t tokens, context, heads, nope, rotary_width, value;
  bool causal;  // query t sees positions 0 … t of the piece
  float scale;

  int64_t query() const { return nope + rotary_width; }
  int64_t blocks() const { return (context + kBlock - 1) / kBlock; }
  int64_t value_padded() const { return (value + kPanel - 1) / kPanel * kPanel; }
  // One head's keys, turned so that positions run fastest, and its values, of one block.
  int64_t block_floats() const { return kBlock * (query() + value_padded()); }
};

struct Kernels {
  // Sets `partial` to the result of positions [first, last); `scratch` holds scratch_floats(...).
  void (*attend)(const Cache&, const Query&, int64_t first, int64_t last, Partial partial, int64_t padded,
                 float* scratch);
  // Brings `other` into `into`: the order of merging is the order of positions.
  void (*merge)(Partial into, Partial other, int64_t vectors, int64_t padded);
  // Divides latents by sums and writes them to `out`.
  void (*finish)(Partial partial, int64_t vectors, int64_t padded, float* out);
  void (*turn)(const Piece&, int64_t head, int64_t block, float* out);
  // Queries [first, first + kBlock) of one head against its turned blocks; scratch: kBlock × (kBlock + padded).
  void (*attend_piece)(const Piece&, int64_t head, int64_t first, const float* turned, float* scratch);
  void (*rms_norm)(const float* x, const float* weight, float* out, int64_t width, float eps);
  // Products of each of `rows` vectors x with `count` rows of `weight`, all `width` long and dense.
  void (*dots)(const float* x, int64_t rows, const float* weight, int64_t width, int64_t count, float* out,
               int64_t out_stride);
};

// Latent width in whole panels; width of query and context rows in scratch memory.
constexpr int64_t padded_latent(int64_t latent) { return (latent + kPanel - 1) / kPanel * kPanel; }
constexpr int64_t padded_row(int64_t width, int64_t latent) {
  const int64_t whole = (width + 15) / 16 * 16;
  return whole > padded_latent(latent) ? whole : padded_latent(latent);
}
constexpr int64_t scratch_floats(int64_t width, int64_t latent, int64_t vectors) {
  return kBlock * padded_row(width, latent) + vectors * (padded_row(width, latent) + kBlock);
}

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

// Sets `out` and `total` of `piece`.
void expand(const Piece& piece);

}  // namespace tokenworks::attention
