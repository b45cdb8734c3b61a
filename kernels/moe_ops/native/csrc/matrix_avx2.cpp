// AVX2 with FMA. int4 codes are unsigned, so that VPMADDUBSW takes eight of its sums in 16 bits:
// 8 · 2 · 15 · 127 < 2^15.
#include "simd_avx2.h"
//
#include "int8_avx2.h"
#include "matrix_float.h"
#include "rows_simd.h"

namespace {

template <int V, int T>
struct Int4Block {
  static void run(const Matrix& m, int first, const Rows& rows, float* y, size_t y_stride) {
    const Place<V, T> at(m, first, rows);
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    __m256 total[T][V];
    for (int t = 0; t < T; ++t)
      for (int v = 0; v < V; ++v) total[t][v] = _mm256_setzero_ps();
    const int groups = m.groups();
    for (int group = 0; group < groups; ++group) {
      __m256i sum[T][V];
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) sum[t][v] = _mm256_setzero_si256();
#pragma GCC unroll 4
      for (int step = 0; step < kSum / 8; ++step) {
        __m256i even[V], odd[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
          const uint8_t* line = at.data[v] + (group * (kSum / 8) + step) * size_t{64};
          _mm_prefetch(reinterpret_cast<const char*>(line + kAhead), _MM_HINT_T0);
          const __m256i both = Simd::load_int(line);
          even[v] = _mm256_and_si256(both, low);
          odd[v] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
        }
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
          const int32_t* x = reinterpret_cast<const int32_t*>(at.codes[t] + group * kSum + step * 8);
          const __m256i x_even = _mm256_set1_epi32(x[0]), x_odd = _mm256_set1_epi32(x[1]);
#pragma GCC unroll 8
          for (int v = 0; v < V; ++v) {
            sum[t][v] = _mm256_add_epi16(sum[t][v], _mm256_maddubs_epi16(even[v], x_even));
            sum[t][v] = _mm256_add_epi16(sum[t][v], _mm256_maddubs_epi16(odd[v], x_odd));
          }
        }
      }
      for (int v = 0; v < V; ++v) {
        const __m256 scale = Simd::widen_bf16(at.scales[v] + group * kTile);
        for (int t = 0; t < T; ++t) {
          const __m256i zero = _mm256_set1_epi32(product(at.sum[t][group], 8));
          const __m256i exact = _mm256_sub_epi32(_mm256_madd_epi16(sum[t][v], ones), zero);
          const __m256 both = _mm256_mul_ps(scale, _mm256_set1_ps(at.scale[t][group / (kGroup / kSum)]));
          total[t][v] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(exact), both, total[t][v]);
        }
      }
    }
    for (int t = 0; t < T; ++t)
      for (int v = 0; v < V; ++v) _mm256_storeu_ps(y + t * y_stride + v * 8, total[t][v]);
  }
};

void multiply(const Matrix& m, int first, int count, const Rows& rows, int row_count, float* y,
              size_t y_stride) {
  if (rows.codes == nullptr) return multiply_floats_by_format(m, first, count, rows, row_count, y, y_stride);
  if (m.format == Format::int8)
    return multiply_blocks<Int8Block, 2, 2>(m, first, count, rows, row_count, y, y_stride);
  multiply_blocks<Int4Block, 2, 1>(m, first, count, rows, row_count, y, y_stride);
}

}  // namespace

namespace tokenworks {

const Kernels& kernels_avx2() {
  static const Kernels table{multiply, round_group, gate, add_scaled, {0, 0, 2, 1}};
  return table;
}

}  // namespace tokenworks
