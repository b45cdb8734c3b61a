// torch.ops.tokenworks.linear and grouped_mlp_: checks, then pointers.
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include "checks.h"
#include "grouped_mlp.h"
#include "linear.h"

namespace {

using tokenworks::Experts;
using tokenworks::Matrix;
using tokenworks::checks::check_rows;
using tokenworks::checks::choice;
using tokenworks::checks::matrix;

void linear(const at::Tensor& x, const at::Tensor& data, const at::Tensor& scales, int64_t code, int64_t outputs,
            const at::Tensor& out, bool add) {
  TORCH_CHECK(x.dim() == 2, "x must have two dimensions, not ", x.dim());
  const Matrix m = matrix(code, outputs, x.size(1), data, scales);
  check_rows(x, "x", x.size(1));
  check_rows(out, "out", outputs);
  TORCH_CHECK(out.size(0) == x.size(0), "out has ", out.size(0), " rows, x ", x.size(0));
  tokenworks::linear(m, static_cast<int>(outputs), x.const_data_ptr<float>(), x.stride(0),
                     static_cast<int>(x.size(0)), out.mutable_data_ptr<float>(), out.stride(0), add);
}

void grouped_mlp_(const at::Tensor& out, const at::Tensor& x, const at::Tensor& gate_up,
                  const at::Tensor& gate_up_scales, const at::Tensor& down, const at::Tensor& down_scales,
                  const at::Tensor& weights, const at::Tensor& experts, int64_t code, int64_t count, int64_t width,
                  int64_t shared) {
  TORCH_CHECK(x.dim() == 2, "x must have two dimensions, not ", x.dim());
  const int64_t hidden = x.size(1), tokens = x.size(0);
  check_rows(x, "x", hidden);
  check_rows(out, "out", hidden);
  TORCH_CHECK(out.size(0) == tokens, "out has ", out.size(0), " rows, x ", tokens);
  const Experts all = tokenworks::checks::experts(code, count, hidden, width, shared, gate_up, gate_up_scales, down,
                                                  down_scales);
  tokenworks::grouped_mlp(all, choice(weights, experts, tokens, count), x.const_data_ptr<float>(), x.stride(0),
                          static_cast<int>(tokens), out.mutable_data_ptr<float>(), out.stride(0));
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(tokenworks, m) {
  m.def(
      "linear(Tensor x, Tensor data, Tensor scales, int code, int outputs, Tensor(a!) out, bool add) -> ()",
      &linear);
  m.def(
      "grouped_mlp_(Tensor(a!) out, Tensor x, Tensor gate_up, Tensor gate_up_scales, Tensor down, "
      "Tensor down_scales, Tensor weights, Tensor experts, int code, int count, int width, int shared) -> ()",
      &grouped_mlp_);
}
