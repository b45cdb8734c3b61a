// AVX-512 with BF16: VDPBF16PS adds two products of bf16 numbers to an fp32 sum, the two inputs that a tile of bf16
// weights holds side by side. Each sum takes the steps in order, so results do not depend on the block.
#include "simd_avx512.h"
//
#include <cstring>

#include "matrix_blocks.h"

namespace {

template <int V, int T>
struct Bf16Block {
  static void run(const Matrix& m, int first, const Rows& rows, float* y, size_t y_stride) {
    const uint8_t* data[V];
    for (int v = 0; v < V; ++v) data[v] = Column(m, first + v).data;
    const uint8_t* x[T];
    for (int t = 0; t < T; ++t) x[t] = rows.codes + rows.at(t) * rows.code_stride;
    __m512 sum[T][V];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t)
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sum[t][v] = _mm512_setzero_ps();
    const size_t steps = m.steps();
    for (size_t step = 0; step < steps; ++step) {
      __m512bh w[V];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) {
        const uint8_t* line = data[v] + step * 64;
        _mm_prefetch(reinterpret_cast<const char*>(line + kAhead), _MM_HINT_T0);
        w[v] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(line));
      }
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) {
        const __m512i two = _mm512_set1_epi32(reinterpret_cast<const int32_t*>(x[t])[step]);
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v)
          sum[t][v] = _mm512_dpbf16_ps(sum[t][v], w[v], reinterpret_cast<__m512bh>(two));
      }
    }
    for (int t = 0; t < T; ++t)
      for (int v = 0; v < V; ++v) _mm512_storeu_ps(y + t * y_stride + v * 16, sum[t][v]);
  }
};

void multiply(const Matrix& m, int first, int count, const Rows& rows, int row_count, float* y,
              size_t y_stride) {
  if (m.format != Format::bfloat16 || rows.codes == nullptr)
    return tokenworks::kernels_vnni().multiply(m, first, count, rows, row_count, y, y_stride);
  multiply_blocks<Bf16Block, 4, 2>(m, first, count, rows, row_count, y, y_stride);
}

inline void round_sixteen(const float* x, uint8_t* codes) {
  const __m256bh rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(x));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes), reinterpret_cast<__m256i>(rounded));
}

void round_group(const float* x, int count, int padded, int code_bytes, uint8_t* codes, float* scale,
                 int32_t* sum) {
  if (scale != nullptr)
    return tokenworks::kernels_vnni().round_group(x, count, padded, code_bytes, codes, scale, sum);
  int i = 0;
  for (; i + 16 <= count; i += 16) round_sixteen(x + i, codes + i * 2);
  if (i == padded) return;
  float rest[16] = {};  // not to read or write beyond the ends
  uint8_t rounded[32];
  std::memcpy(rest, x + i, (count - i) * sizeof(float));
  round_sixteen(rest, rounded);
  std::memcpy(codes + i * 2, rounded, (padded - i) * 2);
}

}  // namespace

namespace tokenworks {

const Kernels& kernels_bf16() {
  static const Kernels table{multiply, round_group, kernels_vnni().gate, kernels_vnni().add_scaled, {0, 2, 1, 1}};
  return table;
}

}  // namespace tokenworks
