// From tensors to what the kernels work on; what does not fit is an error.
#pragma once

#include <ATen/core/Tensor.h>

#include "attention.h"
#include "grouped_mlp.h"
#include "matrix.h"

namespace tokenworks::checks {

const float* floats(const at::Tensor& t, const char* name);
const int32_t* ints(const at::Tensor& t, const char* name);
bool is_bfloat16(const at::Tensor& cache);

// fp32 rows of `columns` numbers side by side; rows may lie apart.
void check_rows(const at::Tensor& t, const char* name, int64_t columns);

// The matrix in `data` and `scales`, whose sizes must be those of `outputs` × `inputs`.
Matrix matrix(int64_t code, int64_t outputs, int64_t inputs, const at::Tensor& data, const at::Tensor& scales);

// `count` gated MLPs, laid out as moe_ops/grouped_mlp/packing.py says.
Experts experts(int64_t code, int64_t count, int64_t hidden, int64_t width, int64_t shared, const at::Tensor& gate_up,
                const at::Tensor& gate_up_scales, const at::Tensor& down, const at::Tensor& down_scales);

// Each token's experts, of `count`, and their weights.
Choice choice(const at::Tensor& weights, const at::Tensor& experts, int64_t tokens, int64_t count);

// What points outside the batch's tokens or the cache would be read and written anyway.
void check_places(const attention::Rows& rows, int64_t tokens, int64_t pages, int64_t page_size);

}  // namespace tokenworks::checks
