// Choosing tokens, as Python calls it: checks, then pointers.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <limits>
#include <optional>
#include <tuple>

#include "sample.h"

namespace {

using at::Tensor;
using tokenworks::sample::Changes;
using tokenworks::sample::Limits;

constexpr int64_t kLimits = sizeof(Limits) / sizeof(float);

const float* floats(const Tensor& t, const char* name, int64_t count) {
  TORCH_CHECK(t.scalar_type() == at::kFloat && t.is_contiguous() && t.numel() == count, name, ": expected ", count,
              " contiguous float32, not ", t.scalar_type(), " ", t.sizes());
  return t.const_data_ptr<float>();
}

const int32_t* ints(const Tensor& t, const char* name, int64_t count) {
  TORCH_CHECK(t.scalar_type() == at::kInt && t.is_contiguous() && t.numel() == count, name, ": expected ", count,
              " contiguous int32, not ", t.scalar_type(), " ", t.sizes());
  return t.const_data_ptr<int32_t>();
}

void check_logits(const Tensor& logits) {
  TORCH_CHECK(logits.device().is_cpu() && logits.scalar_type() == at::kFloat && logits.dim() == 2 &&
                  logits.size(1) > 0 && (logits.stride(1) == 1 || logits.size(1) == 1),
              "logits: expected float32 of two dimensions, a row's side by side");
  TORCH_CHECK(logits.size(1) <= std::numeric_limits<int32_t>::max(), "logits of ", logits.size(1), " tokens");
}

void check_entries(const Changes& changes, int64_t rows, int64_t count, int64_t tokens, int64_t masks) {
  TORCH_CHECK(changes.first[0] == 0 && changes.first[rows] == count, "first: must begin with 0 and end with ",
              count);
  for (int64_t row = 0; row < rows; ++row) {
    TORCH_CHECK(changes.first[row] <= changes.first[row + 1], "first: must not fall");
    TORCH_CHECK(changes.mask == nullptr || changes.mask_row[row] < masks, "no such mask: ",
                changes.mask_row[row]);
  }
  for (int64_t i = 0; i < count; ++i)
    TORCH_CHECK(changes.token[i] >= 0 && changes.token[i] < tokens, "token ", changes.token[i], " of ", tokens);
}

Tensor choose(const Tensor& logits, const Tensor& limits) {
  check_logits(logits);
  const int64_t rows = logits.size(0);
  const auto* each = reinterpret_cast<const Limits*>(floats(limits, "limits", rows * kLimits));
  Tensor chosen = at::empty({rows}, at::kLong);
  tokenworks::sample::choose({logits.const_data_ptr<float>(), logits.stride(0), rows, logits.size(1), each, nullptr,
                              chosen.mutable_data_ptr<int64_t>()});
  return chosen;
}

Tensor choose_changed(const Tensor& logits, const Tensor& limits, const Tensor& first, const Tensor& token,
                      const Tensor& count, const Tensor& bias, const Tensor& strength,
                      const std::optional<Tensor>& mask, const Tensor& mask_row) {
  check_logits(logits);
  const int64_t rows = logits.size(0), entries = token.numel();
  const auto* each = reinterpret_cast<const Limits*>(floats(limits, "limits", rows * kLimits));
  TORCH_CHECK(!mask || (mask->scalar_type() == at::kByte && mask->dim() == 2 && mask->is_contiguous()),
              "mask: expected contiguous uint8 of two dimensions");
  const Changes changes{ints(first, "first", rows + 1),
                        ints(token, "token", entries),
                        floats(count, "count", entries),
                        floats(bias, "bias", entries),
                        floats(strength, "strength", rows * 3),
                        mask ? mask->const_data_ptr<uint8_t>() : nullptr,
                        mask ? mask->size(1) : 0,
                        ints(mask_row, "mask_row", rows)};
  check_entries(changes, rows, entries, logits.size(1), mask ? mask->size(0) : 0);
  Tensor chosen = at::empty({rows}, at::kLong);
  tokenworks::sample::choose({logits.const_data_ptr<float>(), logits.stride(0), rows, logits.size(1), each, &changes,
                              chosen.mutable_data_ptr<int64_t>()});
  return chosen;
}

std::tuple<Tensor, Tensor, Tensor> token_logprobs(const Tensor& logits, const Tensor& token, int64_t best) {
  check_logits(logits);
  const int64_t rows = logits.size(0);
  TORCH_CHECK(token.scalar_type() == at::kLong && token.is_contiguous() && token.numel() == rows,
              "token: expected one int64 per row");
  TORCH_CHECK(best >= 0 && best <= logits.size(1), "the best ", best, " of ", logits.size(1));
  const int64_t* tokens = token.const_data_ptr<int64_t>();
  for (int64_t row = 0; row < rows; ++row)
    TORCH_CHECK(tokens[row] >= 0 && tokens[row] < logits.size(1), "token ", tokens[row], " of ", logits.size(1));
  Tensor logprob = at::empty({rows}, at::kFloat), best_logprob = at::empty({rows, best}, at::kFloat);
  Tensor best_token = at::empty({rows, best}, at::kLong);
  tokenworks::sample::score({logits.const_data_ptr<float>(), logits.stride(0), rows, logits.size(1), tokens, best,
                             logprob.mutable_data_ptr<float>(), best_token.mutable_data_ptr<int64_t>(),
                             best_logprob.mutable_data_ptr<float>()});
  return {logprob, best_token, best_logprob};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(tokenworks, m) {
  m.def("choose_tokens(Tensor logits, Tensor limits) -> Tensor", &choose);
  m.def(
      "choose_changed_tokens(Tensor logits, Tensor limits, Tensor first, Tensor token, Tensor count, Tensor bias, "
      "Tensor strength, Tensor? mask, Tensor mask_row) -> Tensor",
      &choose_changed);
  m.def("token_logprobs(Tensor logits, Tensor token, int best) -> (Tensor, Tensor, Tensor)", &token_logprobs);
}
