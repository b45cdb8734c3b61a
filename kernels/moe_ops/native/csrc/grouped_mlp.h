#pragma once

#include "matrix.h"

namespace tokenworks {

// Experts one after the other in two matrices, as moe_ops/grouped_mlp/packing.py lays them out.
struct Experts {
  Matrix gate_up;
  Matrix down;
  int count;
  int hidden;
  int shared;  // the last ones, used for every token with weight 1
};

// The choice of each token: `chosen` experts and their weights, token after token.
struct Choice {
  const int64_t* experts;
  const float* weights;
  int chosen;
};

// out += Σ weight · down(silu(gate x) · up x) over each token's experts; strides in elements.
void grouped_mlp(const Experts& experts, const Choice& choice, const float* x, int64_t x_stride, int tokens,
                 float* out, int64_t out_stride);

}  // namespace tokenworks
