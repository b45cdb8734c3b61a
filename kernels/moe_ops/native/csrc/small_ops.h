// The operations between the products: norms, rotary positions, writing the cache, choosing experts.
#pragma once

#include <cstdint>

namespace tokenworks::small_ops {

void rms_norm(const float* x, int64_t x_stride, const float* weight, float* out, int64_t tokens, int64_t width,
              float eps);

// `turn` holds the cosine and sine of every pair of rotary numbers.
struct Store {
  const float* fresh;
  int64_t fresh_stride;
  const float *norm, *turn;
  const int64_t* slot;
  void* cache;
  bool bfloat16;
  int64_t slots;
  float* q;
  int64_t q_stride;
  int64_t tokens, latent, rotary, heads, q_width;
  float eps;
};

// Writes each token's normed latent and rotated key to its slot and rotates its queries in place.
void latent_store(const Store& call);

struct Route {
  const float *x, *weight, *bias;
  const bool* allowed;
  int64_t allowed_stride;
  int64_t tokens, experts, width, top_k, groups, groups_kept;
  bool sigmoid, normalize;
  float scale;
  float* weights;
  int64_t* chosen;
};

void route(const Route& call);

}  // namespace tokenworks::small_ops
