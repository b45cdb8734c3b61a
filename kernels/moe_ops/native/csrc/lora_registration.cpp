// torch.ops.tokenworks.lora_add_ and lora_mlp_: checks, then pointers.
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <vector>

#include "checks.h"
#include "lora_checks.h"

namespace {

using at::Tensor;
using tokenworks::Choice;
using tokenworks::Experts;
using tokenworks::checks::check_rows;
using tokenworks::lora::Change;
using tokenworks::lora::kSides;
using tokenworks::lora::Segment;
using tokenworks::lora::Table;

// The tokens of each of `count` adapters; no token has two.
std::vector<Segment> segments(const Tensor& token, const Tensor& first, int64_t count, int64_t tokens) {
  const int32_t* const starts = tokenworks::checks::ints(first, "first");
  const int32_t* const places = tokenworks::checks::ints(token, "token");
  TORCH_CHECK(first.numel() == count + 1 && starts[0] == 0 && starts[count] == token.numel(), "first must be ",
              count + 1, " numbers from 0 to ", token.numel());
  std::vector<bool> seen(tokens);
  for (int64_t i = 0; i < token.numel(); ++i) {
    TORCH_CHECK(places[i] >= 0 && places[i] < tokens && !seen[places[i]], "token ", places[i], " of ", tokens,
                " is not there or has two adapters");
    seen[places[i]] = true;
  }
  std::vector<Segment> found;
  for (int64_t s = 0; s < count; ++s) {
    TORCH_CHECK(starts[s] <= starts[s + 1], "first must not fall");
    found.push_back({places + starts[s], starts[s + 1] - starts[s]});
  }
  return found;
}

void lora_add_(const Tensor& out, const Tensor& x, at::TensorList banks, at::TensorList tables, const Tensor& token,
               const Tensor& first) {
  TORCH_CHECK(x.dim() == 2 && out.dim() == 2, "x and out must have two dimensions");
  check_rows(x, "x", x.size(1));
  check_rows(out, "out", out.size(1));
  TORCH_CHECK(out.size(0) == x.size(0), "out has ", out.size(0), " rows, x ", x.size(0));
  TORCH_CHECK(banks.size() == tables.size(), banks.size(), " banks, ", tables.size(), " tables");
  if (banks.empty()) return;
  const auto where = segments(token, first, static_cast<int64_t>(banks.size()), x.size(0));
  std::vector<Change> changes;
  int64_t parts = 0;
  for (size_t s = 0; s < banks.size(); ++s) {
    const Table table(banks[s], tables[s]);
    if (s == 0) parts = table.size();
    TORCH_CHECK(table.size() == parts, "tables of ", table.size(), " and ", parts, " parts");
    int64_t end = 0;
    for (int64_t part = 0; part < parts; ++part) {
      const Change change = table.at(part, x.size(1));
      if (change.rank > 0) {
        TORCH_CHECK(change.column >= end && change.column + change.outputs <= out.size(1), "columns ", change.column,
                    " … of ", out.size(1), " overlap or are not there");
        end = change.column + change.outputs;
      }
      changes.push_back(change);
    }
  }
  tokenworks::lora::add(where.data(), static_cast<int>(where.size()), changes.data(), static_cast<int>(parts),
                        x.const_data_ptr<float>(), x.stride(0), out.mutable_data_ptr<float>(), out.stride(0));
}

// Three changes of each token's experts, chosen and shared.
std::vector<Change> changes_of(const Tensor& bank, const std::vector<Table>& tables, const Experts& experts,
                               const Choice& choice, int64_t tokens) {
  const int32_t* const bank_of = tokenworks::checks::ints(bank, "bank");
  TORCH_CHECK(bank.dim() == 1 && bank.numel() == tokens, "bank must name one for each of ", tokens, " tokens");
  const int64_t each = choice.chosen + experts.shared, width = experts.down.inputs;
  std::vector<Change> changes(tokens * each * kSides);
  for (int64_t t = 0; t < tokens; ++t) {
    TORCH_CHECK(bank_of[t] < static_cast<int64_t>(tables.size()), "bank ", bank_of[t], " of ", tables.size());
    if (bank_of[t] < 0) continue;
    for (int64_t k = 0; k < each; ++k) {
      const int64_t expert = expert_of(experts, choice, t, k);
      for (int64_t side = 0; side < kSides; ++side) {
        const bool down = side == kSides - 1;
        const Change change = tables[bank_of[t]].at(expert * kSides + side, down ? width : experts.hidden);
        const int64_t outputs = down ? experts.hidden : width;
        TORCH_CHECK(change.rank == 0 || change.outputs == outputs, "a change of ", change.outputs,
                    " outputs, the expert has ", outputs);
        changes[(t * each + k) * kSides + side] = change;
      }
    }
  }
  return changes;
}

void lora_mlp_(const Tensor& out, const Tensor& x, const Tensor& gate_up, const Tensor& gate_up_scales,
               const Tensor& down, const Tensor& down_scales, const Tensor& weights, const Tensor& chosen, int64_t code,
               int64_t count, int64_t width, int64_t shared, at::TensorList banks, at::TensorList tables,
               const Tensor& bank) {
  TORCH_CHECK(x.dim() == 2, "x must have two dimensions, not ", x.dim());
  const int64_t hidden = x.size(1), tokens = x.size(0);
  check_rows(x, "x", hidden);
  check_rows(out, "out", hidden);
  TORCH_CHECK(out.size(0) == tokens, "out has ", out.size(0), " rows, x ", tokens);
  const Experts experts = tokenworks::checks::experts(code, count, hidden, width, shared, gate_up, gate_up_scales, down,
                                                      down_scales);
  const Choice choice = tokenworks::checks::choice(weights, chosen, tokens, count);
  TORCH_CHECK(banks.size() == tables.size(), banks.size(), " banks, ", tables.size(), " tables");
  std::vector<Table> found;
  for (size_t s = 0; s < banks.size(); ++s) {
    found.emplace_back(banks[s], tables[s]);
    TORCH_CHECK(found.back().size() == count * kSides, "a table of ", found.back().size(), " changes for ", count,
                " experts");
  }
  const auto changes = changes_of(bank, found, experts, choice, tokens);
  tokenworks::lora::mlp(experts, choice, changes.data(), x.const_data_ptr<float>(), x.stride(0),
                        static_cast<int>(tokens), out.mutable_data_ptr<float>(), out.stride(0));
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(tokenworks, m) {
  m.def(
      "lora_mlp_(Tensor(a!) out, Tensor x, Tensor gate_up, Tensor gate_up_scales, Tensor down, Tensor down_scales, "
      "Tensor weights, Tensor experts, int code, int count, int width, int shared, Tensor[] banks, "
      "Tensor[] tables, Tensor bank) -> ()",
      &lora_mlp_);
  m.def(
      "lora_add_(Tensor(a!) out, Tensor x, Tensor[] banks, Tensor[] tables, Tensor token, Tensor first) -> ()",
      &lora_add_);
}
