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

// The expert in place `k` of a token's: those it chose, then the shared ones.
inline int expert_of(const Experts& experts, const Choice& choice, int64_t token, int64_t k) {
  return static_cast<int>(k < choice.chosen ? choice.experts[token * choice.chosen + k]
                                            : experts.count - experts.shared + k - choice.chosen);
}

// How the work is cut, with changes (lora_mlp.cpp) and without: the order of sums follows from it.
constexpr int kGateTiles = 2 * kGroup / kTile;  // tiles that make one group of activations
constexpr int kGateWidth = kGateTiles * kTile;
constexpr int kGateRows = 24;  // their products stay in the first-level cache
constexpr int kDownTiles = 4;
constexpr int kDownTilesFew = 2;  // more and smaller items where each is short
constexpr int kDownWidth = kDownTiles * kTile;
static_assert(kGateWidth <= kColumns);

// out += Σ weight · down(silu(gate x) · up x) over each token's experts; strides in elements.
void grouped_mlp(const Experts& experts, const Choice& choice, const float* x, int64_t x_stride, int tokens,
                 float* out, int64_t out_stride);

}  // namespace tokenworks
