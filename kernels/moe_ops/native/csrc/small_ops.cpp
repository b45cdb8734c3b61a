#include "small_ops.h"

#include <cstring>
#include <stdexcept>
#include <vector>

#include "attention.h"
#include "threads.h"

namespace tokenworks::small_ops {
namespace {

constexpr int64_t kAlone = 8192;  // numbers that one thread is done with sooner than others wake up

int threads_for(int64_t numbers) { return numbers < kAlone ? 1 : thread_count(); }

void store_token(const Store& c, int64_t token, std::vector<float>& row) {
  const float* turn = c.turn + token * c.rotary;
  const float* fresh = c.fresh + token * c.fresh_stride;
  const int64_t width = c.latent + c.rotary;
  const attention::Kernels& k = attention::kernels();
  k.rms_norm(fresh, c.norm, row.data(), c.latent, c.eps);
  k.rotate(fresh + c.latent, turn, row.data() + c.latent, c.rotary);
  if (c.bfloat16) {
    k.narrow(row.data(), static_cast<uint16_t*>(c.cache) + c.slot[token] * width, width);
  } else {
    std::memcpy(static_cast<float*>(c.cache) + c.slot[token] * width, row.data(), width * sizeof(float));
  }
  for (int64_t head = 0; head < c.heads; ++head) {
    float* q = c.q + token * c.q_stride + (head + 1) * c.q_width - c.rotary;
    k.rotate(q, turn, q, c.rotary);
  }
}

}  // namespace

void rms_norm(const float* x, int64_t x_stride, const float* weight, float* out, int64_t tokens, int64_t width,
              float eps) {
  const auto& kernels = attention::kernels();
  parallel(threads_for(tokens * width), [&](int thread, int threads) {
    for (int64_t t = tokens * thread / threads; t < tokens * (thread + 1) / threads; ++t)
      kernels.rms_norm(x + t * x_stride, weight, out + t * width, width, eps);
  });
}

void latent_store(const Store& call) {
  for (int64_t t = 0; t < call.tokens; ++t)
    if (call.slot[t] < 0 || call.slot[t] >= call.slots) throw std::out_of_range("a slot is outside the cache");
  const int64_t numbers = call.tokens * (call.latent + call.rotary * (call.heads + 1));
  parallel(threads_for(numbers), [&](int thread, int threads) {
    std::vector<float> row(call.latent + call.rotary);
    for (int64_t t = call.tokens * thread / threads; t < call.tokens * (thread + 1) / threads; ++t)
      store_token(call, t, row);
  });
}

}  // namespace tokenworks::small_ops
