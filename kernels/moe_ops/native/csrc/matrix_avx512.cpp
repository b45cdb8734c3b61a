// AVX-512 without VNNI: wide float products; codes as on AVX2.
#include "simd_avx512.h"
//
#include "matrix_float.h"
#include "rows_simd.h"

namespace {

void multiply(const Matrix& m, int first, int count, const Rows& rows, int row_count, float* y,
              size_t y_stride) {
  if (rows.codes != nullptr) return tokenworks::kernels_avx2().multiply(m, first, count, rows, row_count, y, y_stride);
  multiply_floats_by_format(m, first, count, rows, row_count, y, y_stride);
}

}  // namespace

namespace tokenworks {

const Kernels& kernels_avx512() {
  static const Kernels table{multiply, round_group, gate, add_scaled, {0, 0, 2, 1}};
  return table;
}

}  // namespace tokenworks
