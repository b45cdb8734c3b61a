#pragma once

#include "matrix.h"

namespace tokenworks {

// out = x · Wᵀ, or out += with `add`; strides in elements. `outputs` columns of `out` are written.
void linear(const Matrix& matrix, int outputs, const float* x, int64_t x_stride, int rows, float* out,
            int64_t out_stride, bool add);

}  // namespace tokenworks
