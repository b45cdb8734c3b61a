#include "decoder.h"

#include <algorithm>

#include "linear.h"
#include "scratch.h"
#include "small_ops.h"

namespace tokenworks::decoder {
namespace {

// What a layer's operations hand to each other; the next layer writes over it.
struct Between {
  float *normed, *inner, *low, *q, *attended, *weights;
  int64_t* chosen;
};

class Pass {
 public:
  Pass(const std::vector<Layer>& layers, const Shape& shape, const Routing& routing, const Batch& batch,
       const Cache& cache, float* x)
      : layers_(layers), s_(shape), routing_(routing), batch_(batch), cache_(cache), x_(x) {
    int64_t low = 0;
    for (const Layer& layer : layers) low = std::max<int64_t>(low, layer.q_b ? layer.q_b->inputs : 0);
    const int64_t inner = std::max(low, s_.query()) + s_.cached(), tokens = batch.tokens;
    thread_local Scratch memory;
    memory.clear();
    memory.reserve(Scratch::size<float>(tokens * s_.hidden) + Scratch::size<float>(tokens * inner) +
                   Scratch::size<float>(tokens * low) + Scratch::size<float>(tokens * s_.query()) +
                   Scratch::size<float>(tokens * s_.attended()) + Scratch::size<float>(tokens * routing.top_k) +
                   Scratch::size<int64_t>(tokens * routing.top_k));
    m_.normed = memory.take<float>(tokens * s_.hidden);
    m_.inner = memory.take<float>(tokens * inner);
    m_.low = memory.take<float>(tokens * low);
    m_.q = memory.take<float>(tokens * s_.query());
    m_.attended = memory.take<float>(tokens * s_.attended());
    m_.weights = memory.take<float>(tokens * routing.top_k);
    m_.chosen = memory.take<int64_t>(tokens * routing.top_k);
  }

  void run() const {
    const int64_t bytes = cache_.pages * cache_.page_size * s_.cached() * (cache_.bfloat16 ? 2 : 4);
    for (size_t i = 0; i < layers_.size(); ++i) {
      add_attention(layers_[i], static_cast<char*>(cache_.data) + i * bytes);
      add_mlp(layers_[i]);
    }
  }

 private:
  void norm(const float* weight) const {
    small_ops::rms_norm(x_, s_.hidden, weight, m_.normed, batch_.tokens, s_.hidden, s_.eps);
  }

  void product(const Matrix& w, int64_t outputs, const float* x, int64_t x_stride, float* out, int64_t out_stride,
               bool add = false) const {
    linear(w, static_cast<int>(outputs), x, x_stride, static_cast<int>(batch_.tokens), out, out_stride, add);
  }

  void add_attention(const Layer& l, void* cache) const {
    const int64_t first = l.q_b ? l.q_b->inputs : s_.query(), inner = first + s_.cached(), tokens = batch_.tokens;
    norm(l.attention_norm);
    product(l.inner, inner, m_.normed, s_.hidden, m_.inner, inner);
    float* q = m_.inner;
    int64_t q_stride = inner;
    if (l.q_b) {
      small_ops::rms_norm(m_.inner, inner, l.q_norm, m_.low, tokens, first, s_.inner_eps);
      product(*l.q_b, s_.query(), m_.low, first, m_.q, s_.query());
      q = m_.q;
      q_stride = s_.query();
    }
    const int64_t width = s_.nope + s_.rotary;
    small_ops::latent_store({m_.inner + first, inner, l.kv_norm, batch_.turn, batch_.slot, cache, cache_.bfloat16,
                             cache_.pages * cache_.page_size, q, q_stride, tokens, s_.latent, s_.rotary, s_.heads,
                             width, s_.inner_eps});
    attention::decode({{cache, cache_.bfloat16, cache_.page_size, s_.cached(), s_.latent}, batch_.rows, l.kv_b,
                       l.key, q, m_.attended, q_stride, tokens, s_.heads, s_.nope, s_.rotary, s_.value, s_.scale});
    product(l.o, s_.hidden, m_.attended, s_.attended(), x_, s_.hidden, true);
  }

  void add_mlp(const Layer& l) const {
    norm(l.mlp_norm);
    Choice choice{m_.chosen, m_.weights, 0};
    if (l.router != nullptr) {
      const Routing& r = routing_;
      small_ops::route({m_.normed, l.router, l.bias, nullptr, 0, batch_.tokens, l.experts.count - l.experts.shared,
                        s_.hidden, r.top_k, r.groups, r.groups_kept, r.sigmoid, r.normalize, r.scale, m_.weights,
                        m_.chosen});
      choice.chosen = static_cast<int>(r.top_k);
    }
    grouped_mlp(l.experts, choice, m_.normed, s_.hidden, static_cast<int>(batch_.tokens), x_, s_.hidden);
  }

  const std::vector<Layer>& layers_;
  const Shape& s_;
  const Routing& routing_;
  const Batch& batch_;
  const Cache& cache_;
  float* const x_;
  Between m_;
};

}  // namespace

void add_layers(const std::vector<Layer>& layers, const Shape& shape, const Routing& routing, const Batch& batch,
                const Cache& cache, float* x) {
  Pass(layers, shape, routing, batch, cache, x).run();
}

}  // namespace tokenworks::decoder
