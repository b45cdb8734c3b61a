// All layers of a decoder in one call: the operations that each layer's modules would call, in the same order.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "attention.h"
#include "grouped_mlp.h"
#include "matrix.h"

namespace tokenworks::decoder {

// Pointers and sizes as moe_ops/decoder describes them.
struct Layer {
  const float* attention_norm;
  Matrix inner;
  const float* q_norm;  // null: `inner` gives the queries themselves
  std::optional<Matrix> q_b;
  const float* kv_norm;
  Matrix kv_b, key;
  Matrix o;
  const float* mlp_norm;
  const float* router;  // null: no experts to choose from
  const float* bias;    // of the choice; null: none
  Experts experts;
};

struct Shape {
  int64_t hidden, heads, nope, rotary, value, latent;
  float scale;  // of attention's scores
  float eps, inner_eps;

  int64_t cached() const { return latent + rotary; }
  int64_t query() const { return heads * (nope + rotary); }
  int64_t attended() const { return heads * value; }
};

struct Routing {
  int64_t top_k, groups, groups_kept;
  bool sigmoid, normalize;
  float scale;
};

// The tokens of short rows, as inference/layers/batch.py describes them.
struct Batch {
  const float* turn;
  const int64_t* slot;
  attention::Rows rows;
  int64_t tokens;
};

// That of all layers, one after the other.
struct Cache {
  void* data;
  bool bfloat16;
  int64_t pages, page_size;
};

// Adds what the layers compute to `x` (tokens, hidden), the first layer with the cache's first, and so on. Slots and
// rows must lie within the cache.
void add_layers(const std::vector<Layer>& layers, const Shape& shape, const Routing& routing, const Batch& batch,
                const Cache& cache, float* x);

}  // namespace tokenworks::decoder
