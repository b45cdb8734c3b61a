// Latent attention and what surrounds it, as Python calls them.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <optional>

#include "attention.h"
#include "checks.h"
#include "small_ops.h"

namespace {

using at::Tensor;
using tokenworks::checks::check_places;
using tokenworks::checks::floats;
using tokenworks::checks::ints;
using tokenworks::checks::is_bfloat16;
using tokenworks::checks::matrix;

// What is wanted of the queries and results of both ways.
void check_heads(const Tensor& out_THV, const Tensor& q_THQ, const char* name) {
  floats(out_THV, "out_THV");
  TORCH_CHECK(q_THQ.scalar_type() == at::kFloat && q_THQ.stride(2) == 1 && q_THQ.stride(1) == q_THQ.size(2), name,
              ": queries must be float32 and dense within a token");
}

void latent_decode(const Tensor& out_THV, const Tensor& q_THQ, const Tensor& cache_PZC, const Tensor& pages_BP,
                   const Tensor& first_B, const Tensor& count_B, const Tensor& end_B, const Tensor& key,
                   const Tensor& key_scales, int64_t key_code, const Tensor& kv_b, const Tensor& kv_b_scales,
                   int64_t kv_b_code, int64_t nope, int64_t latent, double scale) {
  const int64_t tokens = q_THQ.size(0), heads = q_THQ.size(1), rotary = q_THQ.size(2) - nope;
  const int64_t values = out_THV.size(2), batch = pages_BP.size(0);
  TORCH_CHECK(nope > 0 && latent > 0 && rotary >= 0 && cache_PZC.size(2) == latent + rotary &&
                  out_THV.size(0) == tokens && out_THV.size(1) == heads &&
                  first_B.numel() == batch && count_B.numel() == batch && end_B.numel() == batch,
              "latent_decode: shapes do not fit each other");
  check_heads(out_THV, q_THQ, "latent_decode");
  const tokenworks::attention::Rows rows{ints(pages_BP, "pages_BP"), ints(first_B, "first_B"),
                                         ints(count_B, "count_B"), ints(end_B, "end_B"),
                                         batch, pages_BP.size(1)};
  check_places(rows, tokens, cache_PZC.size(0), cache_PZC.size(1));
  tokenworks::attention::decode(
      {{cache_PZC.const_data_ptr(), is_bfloat16(cache_PZC), cache_PZC.size(1), latent + rotary, latent},
       rows,
       matrix(kv_b_code, heads * (nope + values), latent, kv_b, kv_b_scales),
       matrix(key_code, heads * latent, nope, key, key_scales),
       q_THQ.const_data_ptr<float>(),
       out_THV.mutable_data_ptr<float>(),
       q_THQ.stride(0),
       tokens,
       heads,
       nope,
       rotary,
       values,
       static_cast<float>(scale)});
}

void latent_expand(const Tensor& out_THV, const Tensor& q_THQ, const Tensor& cache_PZC, const Tensor& pages_P,
                   int64_t start, const Tensor& kv_b, const Tensor& kv_b_scales, int64_t kv_b_code, int64_t nope,
                   int64_t latent, double scale) {
  const int64_t tokens = q_THQ.size(0), heads = q_THQ.size(1), rotary = q_THQ.size(2) - nope;
  const int64_t values = out_THV.size(2), end = start + tokens;
  TORCH_CHECK(tokens > 0 && nope > 0 && latent > 0 && rotary >= 0 && start >= 0 &&
                  cache_PZC.size(2) == latent + rotary && out_THV.size(0) == tokens && out_THV.size(1) == heads &&
                  pages_P.dim() == 1,
              "latent_expand: shapes do not fit each other");
  check_heads(out_THV, q_THQ, "latent_expand");
  const int32_t first = 0, count = static_cast<int32_t>(tokens), length = static_cast<int32_t>(end);
  const int32_t* const pages = ints(pages_P, "pages_P");
  check_places({pages, &first, &count, &length, 1, pages_P.size(0)}, tokens, cache_PZC.size(0), cache_PZC.size(1));
  tokenworks::attention::expand(
      {{cache_PZC.const_data_ptr(), is_bfloat16(cache_PZC), cache_PZC.size(1), latent + rotary, latent},
       pages,
       matrix(kv_b_code, heads * (nope + values), latent, kv_b, kv_b_scales),
       q_THQ.const_data_ptr<float>(),
       out_THV.mutable_data_ptr<float>(),
       q_THQ.stride(0),
       start,
       tokens,
       heads,
       nope,
       rotary,
       values,
       static_cast<float>(scale)});
}

// Rows may be a slice of wider ones: only the last dimension has to be dense.
void latent_store(const Tensor& fresh_TC, const Tensor& norm_L, double eps, const Tensor& turn_TR,
                  const Tensor& slot_T, const Tensor& cache_PZC, const Tensor& q_THQ) {
  const int64_t tokens = fresh_TC.size(0), latent = norm_L.size(0), width = fresh_TC.size(1);
  TORCH_CHECK(fresh_TC.scalar_type() == at::kFloat && fresh_TC.stride(1) == 1 && cache_PZC.size(2) == width &&
                  turn_TR.size(0) == tokens && turn_TR.size(1) * 2 == width - latent &&
                  turn_TR.scalar_type() == at::kComplexFloat && turn_TR.is_contiguous() && slot_T.size(0) == tokens &&
                  slot_T.scalar_type() == at::kLong && slot_T.is_contiguous(),
              "latent_store_: arguments do not fit each other");
  TORCH_CHECK(q_THQ.scalar_type() == at::kFloat && q_THQ.dim() == 3 && q_THQ.size(0) == tokens &&
                  q_THQ.stride(2) == 1 && q_THQ.stride(1) == q_THQ.size(2) && q_THQ.size(2) >= width - latent,
              "latent_store_: queries must be dense within a token");
  tokenworks::small_ops::latent_store(
      {fresh_TC.const_data_ptr<float>(), fresh_TC.stride(0), floats(norm_L, "norm_L"),
       static_cast<const float*>(turn_TR.const_data_ptr()),
       slot_T.const_data_ptr<int64_t>(), cache_PZC.mutable_data_ptr(), is_bfloat16(cache_PZC),
       cache_PZC.size(0) * cache_PZC.size(1), q_THQ.mutable_data_ptr<float>(), q_THQ.stride(0), tokens, latent,
       width - latent, q_THQ.size(1), q_THQ.size(2), static_cast<float>(eps)});
}

Tensor rms_norm(const Tensor& x_TD, const Tensor& weight_D, double eps) {
  TORCH_CHECK(x_TD.scalar_type() == at::kFloat && x_TD.dim() == 2 && x_TD.stride(1) == 1 &&
                  x_TD.size(1) == weight_D.size(0),
              "rms_norm: expected float32 rows as wide as the weight");
  Tensor out = at::empty(x_TD.sizes(), x_TD.options());
  tokenworks::small_ops::rms_norm(x_TD.const_data_ptr<float>(), x_TD.stride(0), floats(weight_D, "weight_D"),
                                  out.mutable_data_ptr<float>(), x_TD.size(0), x_TD.size(1),
                                  static_cast<float>(eps));
  return out;
}

std::tuple<Tensor, Tensor> route(const Tensor& x_TD, const Tensor& weight_ED, const std::optional<Tensor>& bias_E,
                                 const std::optional<Tensor>& allowed_TE, int64_t top_k, int64_t groups,
                                 int64_t groups_kept, bool sigmoid, bool normalize, double scale) {
  const int64_t tokens = x_TD.size(0), experts = weight_ED.size(0), width = weight_ED.size(1);
  TORCH_CHECK(x_TD.dim() == 2 && x_TD.size(1) == width && (!bias_E || bias_E->numel() == experts) &&
                  groups >= 1 && experts % groups == 0 && groups_kept <= groups && 1 <= top_k && top_k <= experts,
              "route: arguments do not fit each other");
  const bool* allowed = nullptr;
  int64_t allowed_stride = 0;
  if (allowed_TE) {
    TORCH_CHECK(allowed_TE->scalar_type() == at::kBool && allowed_TE->is_contiguous() &&
                    allowed_TE->size(-1) == experts && (allowed_TE->dim() == 1 || allowed_TE->size(0) == tokens),
                "route: allowed experts must be contiguous bool, (E) or (T, E)");
    allowed = allowed_TE->const_data_ptr<bool>();
    allowed_stride = allowed_TE->dim() == 1 ? 0 : experts;
  }
  Tensor weights = at::empty({tokens, top_k}, x_TD.options());
  Tensor chosen = at::empty({tokens, top_k}, x_TD.options().dtype(at::kLong));
  tokenworks::small_ops::route({floats(x_TD, "x_TD"), floats(weight_ED, "weight_ED"),
                                bias_E ? floats(*bias_E, "bias_E") : nullptr, allowed, allowed_stride, tokens,
                                experts, width, top_k, groups, groups_kept, sigmoid, normalize,
                                static_cast<float>(scale), weights.mutable_data_ptr<float>(),
                                chosen.mutable_data_ptr<int64_t>()});
  return {weights, chosen};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(tokenworks, m) {
  m.def(
      "latent_decode_(Tensor(a!) out, Tensor q, Tensor cache, Tensor pages, Tensor first, Tensor count, "
      "Tensor end, Tensor key, Tensor key_scales, int key_code, Tensor kv_b, Tensor kv_b_scales, int kv_b_code, "
      "int nope, int latent, float scale) -> ()",
      latent_decode);
  m.def(
      "latent_store_(Tensor fresh, Tensor norm, float eps, Tensor turn, Tensor slot, Tensor(a!) cache, "
      "Tensor(b!) q) -> ()",
      latent_store);
  m.def(
      "latent_expand_(Tensor(a!) out, Tensor q, Tensor cache, Tensor pages, int start, Tensor kv_b, "
      "Tensor kv_b_scales, int kv_b_code, int nope, int latent, float scale) -> ()",
      latent_expand);
  m.def("rms_norm(Tensor x, Tensor weight, float eps) -> Tensor", rms_norm);
  m.def(
      "route(Tensor x, Tensor weight, Tensor? bias, Tensor? allowed, int top_k, int groups, int groups_kept, "
      "bool sigmoid, bool normalize, float scale) -> (Tensor, Tensor)",
      route);
}
