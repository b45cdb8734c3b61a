// torch.classes.tokenworks.Decoder: weights are checked and bound once, a call checks its batch.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/custom_class.h>

#include <algorithm>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "checks.h"
#include "decoder.h"
#include "linear.h"
#include "small_ops.h"
#include "threads.h"

namespace {

using at::Tensor;
using tokenworks::Matrix;
namespace checks = tokenworks::checks;
namespace decoder = tokenworks::decoder;

using Tensors = c10::Dict<std::string, Tensor>;
using Numbers = c10::Dict<std::string, int64_t>;
using Factors = c10::Dict<std::string, double>;

template <class Value>
Value of(const c10::Dict<std::string, Value>& named, const std::string& name) {
  const auto found = named.find(name);
  TORCH_CHECK(found != named.end(), "decoder: no ", name);
  return found->value();
}

const float* row(const Tensors& tensors, const std::string& name, int64_t width) {
  const Tensor t = of(tensors, name);
  TORCH_CHECK(t.dim() == 1 && t.size(0) == width, "decoder: ", name, " has shape ", t.sizes(), ", not (", width, ")");
  return checks::floats(t, name.c_str());
}

const float* row_if(const Tensors& tensors, const std::string& name, int64_t width) {
  return tensors.contains(name) ? row(tensors, name, width) : nullptr;
}

Matrix product(const Tensors& tensors, const Numbers& numbers, const std::string& name, int64_t outputs,
               int64_t inputs) {
  return checks::matrix(of(numbers, name + "_code"), outputs, inputs, of(tensors, name),
                        of(tensors, name + "_scales"));
}

class Decoder : public torch::CustomClassHolder {
 public:
  Decoder(const Numbers& sizes, const Factors& factors) {
    shape_ = {of(sizes, "hidden"),
              of(sizes, "heads"),
              of(sizes, "nope"),
              of(sizes, "rotary"),
              of(sizes, "value"),
              of(sizes, "latent"),
              static_cast<float>(of(factors, "scale")),
              static_cast<float>(of(factors, "eps")),
              static_cast<float>(of(factors, "inner_eps"))};
    const decoder::Shape& s = shape_;
    TORCH_CHECK(s.hidden > 0 && s.heads > 0 && s.nope > 0 && s.rotary >= 0 && s.rotary % 2 == 0 && s.value > 0 &&
                    s.latent > 0,
                "decoder: sizes must be positive, and rotary an even number");
    routing_ = {of(sizes, "top_k"),        of(sizes, "groups"),    of(sizes, "groups_kept"),
                of(sizes, "sigmoid") != 0, of(sizes, "normalize") != 0, static_cast<float>(of(factors, "routed"))};
  }

  // What comes before the layers and after them.
  void set_ends(const Tensors& tensors, const Numbers& numbers) {
    embedding_ = of(tensors, "embedding");
    TORCH_CHECK(embedding_.dim() == 2 && embedding_.size(1) == shape_.hidden && embedding_.is_contiguous() &&
                    (embedding_.scalar_type() == at::kFloat || embedding_.scalar_type() == at::kBFloat16),
                "decoder: the embedding must be contiguous float32 or bfloat16 of ", shape_.hidden, " columns");
    norm_ = row(tensors, "norm", shape_.hidden);
    head_.assign(1, product(tensors, numbers, "head", of(numbers, "vocabulary"), shape_.hidden));
    vocabulary_ = of(numbers, "vocabulary");
    kept_.push_back(tensors.copy());
  }

  void add_layer(const Tensors& tensors, const Numbers& numbers) {
    const decoder::Shape& s = shape_;
    const int64_t low = of(numbers, "low"), experts = of(numbers, "experts"), shared = of(numbers, "shared");
    const int64_t first = low > 0 ? low : s.query();
    std::optional<Matrix> q_b;
    if (low > 0) q_b = product(tensors, numbers, "q_b", s.query(), low);
    decoder::Layer layer{
        row(tensors, "attention_norm", s.hidden),
        product(tensors, numbers, "inner", first + s.cached(), s.hidden),
        low > 0 ? row(tensors, "q_norm", low) : nullptr,
        q_b,
        row(tensors, "kv_norm", s.latent),
        product(tensors, numbers, "kv_b", s.heads * (s.nope + s.value), s.latent),
        product(tensors, numbers, "key", s.heads * s.latent, s.nope),
        product(tensors, numbers, "o", s.hidden, s.attended()),
        row(tensors, "mlp_norm", s.hidden),
        nullptr,
        nullptr,
        checks::experts(of(numbers, "experts_code"), experts, s.hidden, of(numbers, "width"), shared,
                        of(tensors, "gate_up"), of(tensors, "gate_up_scales"), of(tensors, "down"),
                        of(tensors, "down_scales"))};
    if (tensors.contains("router")) bind_router(layer, tensors, experts - shared);
    TORCH_CHECK(layer.router != nullptr || shared == experts, "decoder: experts without a router");
    layers_.push_back(layer);
    kept_.push_back(tensors.copy());
  }

  // Logits of the tokens `last_S`, and all tokens' states after the last norm.
  std::tuple<Tensor, Tensor> forward(const Tensor& token_T, const Tensor& turn_TR, const Tensor& slot_T,
                                     const Tensor& pages_BP, const Tensor& first_B, const Tensor& count_B,
                                     const Tensor& end_B, const Tensor& last_S, const Tensor& cache_LPZC) const {
    TORCH_CHECK(!head_.empty(), "decoder: it has no ends");
    const decoder::Cache cache = cache_of(cache_LPZC);
    const decoder::Batch batch = batch_of(turn_TR, slot_T, pages_BP, first_B, count_B, end_B, cache);
    const int64_t tokens = batch.tokens, hidden = shape_.hidden;
    const int64_t* const token = places(token_T, "token_T", embedding_.size(0));
    const int64_t* const last = places(last_S, "last_S", tokens);
    TORCH_CHECK(token_T.size(0) == tokens && last_S.size(0) <= tokens, "decoder: ", token_T.size(0), " tokens, ", tokens,
                " slots and ", last_S.size(0), " logits do not fit each other");
    const auto floats = embedding_.options().dtype(at::kFloat);
    Tensor x_TD = at::empty({tokens, hidden}, floats), hidden_TD = at::empty({tokens, hidden}, floats);
    Tensor logits_SV = at::empty({last_S.size(0), vocabulary_}, floats);
    float* const x = x_TD.mutable_data_ptr<float>();
    for (int64_t t = 0; t < tokens; ++t) embed(token[t], x + t * hidden);
    tokenworks::together([&] {
      decoder::add_layers(layers_, shape_, routing_, batch, cache, x);
      float* const state = hidden_TD.mutable_data_ptr<float>();
      tokenworks::small_ops::rms_norm(x, hidden, norm_, state, tokens, hidden, shape_.eps);
      for (int64_t s = 0; s < last_S.size(0); ++s) std::copy_n(state + last[s] * hidden, hidden, x + s * hidden);
      tokenworks::linear(head_.front(), static_cast<int>(vocabulary_), x, hidden, static_cast<int>(last_S.size(0)),
                         logits_SV.mutable_data_ptr<float>(), vocabulary_, false);
    });
    return {logits_SV, hidden_TD};
  }

 private:
  void bind_router(decoder::Layer& layer, const Tensors& tensors, int64_t routed) const {
    const Tensor router = of(tensors, "router");
    const decoder::Routing& r = routing_;
    TORCH_CHECK(router.dim() == 2 && router.size(0) == routed && router.size(1) == shape_.hidden,
                "decoder: router has shape ", router.sizes(), ", not (", routed, ", ", shape_.hidden, ")");
    TORCH_CHECK(r.groups >= 1 && routed % r.groups == 0 && 1 <= r.groups_kept && r.groups_kept <= r.groups &&
                    1 <= r.top_k && r.top_k <= routed,
                "decoder: ", routed, " experts can not be routed so");
    layer.router = checks::floats(router, "router");
    layer.bias = row_if(tensors, "bias", routed);
  }

  decoder::Cache cache_of(const Tensor& cache_LPZC) const {
    TORCH_CHECK(cache_LPZC.dim() == 4 && cache_LPZC.size(3) == shape_.cached() &&
                    cache_LPZC.size(0) >= static_cast<int64_t>(layers_.size()) && cache_LPZC.is_contiguous() &&
                    (cache_LPZC.scalar_type() == at::kFloat || cache_LPZC.scalar_type() == at::kBFloat16),
                "decoder: a cache of ", cache_LPZC.scalar_type(), " ", cache_LPZC.sizes(), " does not fit ",
                layers_.size(), " layers of ", shape_.cached(), " numbers");
    return {cache_LPZC.mutable_data_ptr(), cache_LPZC.scalar_type() == at::kBFloat16, cache_LPZC.size(1),
            cache_LPZC.size(2)};
  }

  decoder::Batch batch_of(const Tensor& turn_TR, const Tensor& slot_T, const Tensor& pages_BP, const Tensor& first_B,
                          const Tensor& count_B, const Tensor& end_B, const decoder::Cache& cache) const {
    const int64_t tokens = slot_T.numel(), batch = pages_BP.size(0);
    const int64_t* const slot = places(slot_T, "slot_T", cache.pages * cache.page_size);
    TORCH_CHECK(turn_TR.dim() == 2 && turn_TR.size(0) == tokens && turn_TR.size(1) * 2 == shape_.rotary &&
                    turn_TR.scalar_type() == at::kComplexFloat && turn_TR.is_contiguous(),
                "decoder: turn_TR must be contiguous complex64 of shape (", tokens, ", ", shape_.rotary / 2, ")");
    TORCH_CHECK(pages_BP.dim() == 2 && first_B.numel() == batch && count_B.numel() == batch && end_B.numel() == batch,
                "decoder: rows do not fit each other");
    const tokenworks::attention::Rows rows{checks::ints(pages_BP, "pages_BP"), checks::ints(first_B, "first_B"),
                                           checks::ints(count_B, "count_B"),   checks::ints(end_B, "end_B"),
                                           batch,                              pages_BP.size(1)};
    checks::check_places(rows, tokens, cache.pages, cache.page_size);
    return {static_cast<const float*>(turn_TR.const_data_ptr()), slot, rows, tokens};
  }

  static const int64_t* places(const Tensor& t, const char* name, int64_t end) {
    TORCH_CHECK(t.dim() == 1 && t.scalar_type() == at::kLong && t.is_contiguous(), "decoder: ", name,
                " must be contiguous int64 of one dimension");
    const int64_t* const place = t.const_data_ptr<int64_t>();
    for (int64_t i = 0; i < t.size(0); ++i)
      TORCH_CHECK_INDEX(place[i] >= 0 && place[i] < end, "decoder: ", name, " has ", place[i], " of ", end);
    return place;
  }

  void embed(int64_t token, float* out) const {
    const int64_t hidden = shape_.hidden, from = token * hidden;
    if (embedding_.scalar_type() == at::kFloat) {
      std::copy_n(embedding_.const_data_ptr<float>() + from, hidden, out);
      return;
    }
    const at::BFloat16* const source = embedding_.const_data_ptr<at::BFloat16>() + from;
    for (int64_t i = 0; i < hidden; ++i) out[i] = source[i];
  }

  decoder::Shape shape_;
  decoder::Routing routing_;
  std::vector<decoder::Layer> layers_;
  std::vector<Tensors> kept_;  // what the layers point to
  Tensor embedding_;
  const float* norm_ = nullptr;
  std::vector<Matrix> head_;
  int64_t vocabulary_ = 0;
};

}  // namespace

TORCH_LIBRARY_FRAGMENT(tokenworks, m) {
  m.class_<Decoder>("Decoder")
      .def(torch::init<const Numbers&, const Factors&>())
      .def("set_ends", &Decoder::set_ends)
      .def("add_layer", &Decoder::add_layer)
      .def("forward", &Decoder::forward);
}
