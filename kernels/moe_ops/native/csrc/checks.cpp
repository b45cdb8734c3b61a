#include "checks.h"

#include <algorithm>

namespace tokenworks::checks {

using at::Tensor;

void check_rows(const at::Tensor& t, const char* name, int64_t columns) {
  TORCH_CHECK(t.device().is_cpu() && t.scalar_type() == at::kFloat, name, " must be float32 on the CPU, not ",
              t.scalar_type(), " on ", t.device());
  TORCH_CHECK(t.dim() == 2 && t.size(1) == columns, name, " must have shape (rows, ", columns, "), not ",
              t.sizes());
  TORCH_CHECK(t.stride(1) == 1 || columns == 1, name, " must have its columns side by side");
}

Matrix matrix(int64_t code, int64_t outputs, int64_t inputs, const at::Tensor& data, const at::Tensor& scales) {
  TORCH_CHECK(code >= 0 && code < 8 && outputs > 0 && inputs > 0, "no packed matrix: format ", code, ", ",
              outputs, " × ", inputs);
  const Matrix m(static_cast<int>(code), outputs, inputs, data.const_data_ptr(), scales.const_data_ptr());
  const bool scaled = m.format >= tokenworks::Format::int8;
  const int64_t bytes = static_cast<int64_t>(m.tiles) * m.steps() * 64;
  const int64_t scale_count = scaled ? static_cast<int64_t>(m.tiles) * m.groups() * tokenworks::kTile : 0;
  TORCH_CHECK(data.is_contiguous() && static_cast<int64_t>(data.nbytes()) == bytes, "data of a matrix of ",
              outputs, " × ", inputs, " must be contiguous and of ", bytes, " bytes, not ", data.nbytes());
  TORCH_CHECK(scales.is_contiguous() && scales.scalar_type() == at::kBFloat16 && scales.numel() == scale_count,
              "scales of a matrix of ", outputs, " × ", inputs, " must be ", scale_count, " bfloat16");
  return m;
}

Experts experts(int64_t code, int64_t count, int64_t hidden, int64_t width, int64_t shared, const Tensor& gate_up,
                const Tensor& gate_up_scales, const Tensor& down, const Tensor& down_scales) {
  TORCH_CHECK(count > 0 && width > 0 && shared >= 0 && shared <= count, "no such experts: ", count, " of width ",
              width, ", ", shared, " of them shared");
  const auto whole = [](int64_t n) { return (n + kTile - 1) / kTile * kTile; };
  return {matrix(code, count * 2 * whole(width), hidden, gate_up, gate_up_scales),
          matrix(code, count * whole(hidden), width, down, down_scales), static_cast<int>(count),
          static_cast<int>(hidden), static_cast<int>(shared)};
}

const float* floats(const Tensor& t, const char* name) {
  TORCH_CHECK(t.scalar_type() == at::kFloat && t.is_contiguous(), name, ": expected contiguous float32");
  return t.const_data_ptr<float>();
}

const int32_t* ints(const Tensor& t, const char* name) {
  TORCH_CHECK(t.scalar_type() == at::kInt && t.is_contiguous(), name, ": expected contiguous int32");
  return t.const_data_ptr<int32_t>();
}

Choice choice(const at::Tensor& weights, const at::Tensor& experts, int64_t tokens, int64_t count) {
  TORCH_CHECK(experts.scalar_type() == at::kLong && experts.dim() == 2 && experts.size(0) == tokens &&
                  experts.is_contiguous(),
              "experts must be contiguous int64 of shape (", tokens, ", K), not ", experts.scalar_type(), " ",
              experts.sizes());
  TORCH_CHECK(weights.scalar_type() == at::kFloat && weights.sizes() == experts.sizes() && weights.is_contiguous(),
              "weights must be contiguous float32 of shape ", experts.sizes(), ", not ", weights.scalar_type(), " ",
              weights.sizes());
  const int64_t* const chosen = experts.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < experts.numel(); ++i)
    TORCH_CHECK(chosen[i] >= 0 && chosen[i] < count, "expert ", chosen[i], " of ", count);
  return {chosen, weights.const_data_ptr<float>(), static_cast<int>(experts.size(1))};
}

bool is_bfloat16(const Tensor& cache) {
  TORCH_CHECK((cache.scalar_type() == at::kFloat || cache.scalar_type() == at::kBFloat16) && cache.dim() == 3 &&
                  cache.is_contiguous(),
              "cache: expected contiguous float32 or bfloat16 of three dimensions");
  return cache.scalar_type() == at::kBFloat16;
}

void check_places(const attention::Rows& rows, int64_t tokens, int64_t pages, int64_t page_size) {
  for (int64_t row = 0; row < rows.batch; ++row) {
    const int64_t first = rows.first[row], count = rows.count[row], end = rows.end[row];
    TORCH_CHECK(first >= 0 && count >= 0 && first + count <= tokens, "attention: row ", row,
                " has tokens outside the batch");
    TORCH_CHECK(end >= count && end <= rows.columns * page_size, "attention: row ", row,
                " has no pages for its context");
    const int32_t* const begin = rows.pages + row * rows.columns;
    const bool inside = std::all_of(begin, begin + (end + page_size - 1) / page_size,
                                    [pages](int32_t page) { return page >= 0 && page < pages; });
    TORCH_CHECK(inside, "attention: row ", row, " has pages outside the cache");
  }
}

}  // namespace tokenworks::checks
