// Low-rank changes of weights, B A, laid out as moe_ops/lora/bank.py says, for tokens of many adapters at once.
#pragma once

#include "grouped_mlp.h"
#include "matrix.h"

namespace tokenworks::lora {

// What one adapter changes of one module. Factors are float matrices in tiles; those of A lie `a_stride` bytes apart,
// more than their size where only some of the inputs are meant.
struct Change {
  int rank = 0;  // 0: nothing
  int inputs = 0;
  int outputs = 0;
  int column = 0;  // of the result, where the outputs begin
  int a_code = 0;
  int b_code = 0;
  const uint8_t* a = nullptr;
  size_t a_stride = 0;
  const uint8_t* b = nullptr;

  int tiles() const { return Matrix::up(rank, kTile); }
  Matrix a_tile(int index) const { return {a_code, kTile, inputs, a + index * a_stride, nullptr}; }
  Matrix whole_b() const { return {b_code, outputs, rank, b, nullptr}; }
};

// The tokens of one adapter.
struct Segment {
  const int32_t* token;
  int count;
};

// out[t] += B (A x[t]) at the change's column, for all tokens of all segments; `changes` are `parts` of each segment,
// whose columns do not overlap. Strides in elements.
void add(const Segment* segments, int segment_count, const Change* changes, int parts, const float* x,
         int64_t x_stride, float* out, int64_t out_stride);

constexpr int kSides = 3;  // gate, up, down

// As grouped_mlp, with the three changes of each pair of token and expert: first those of token 0 and its chosen
// experts in their order, then the shared ones. A token without changes has the very result of grouped_mlp.
void mlp(const Experts& experts, const Choice& choice, const Change* changes, const float* x, int64_t x_stride,
         int tokens, float* out, int64_t out_stride);

}  // namespace tokenworks::lora
