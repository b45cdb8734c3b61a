// AVX-512 with VNNI: VPDPBUSD sums four products of unsigned weights and signed activations. int8 weights become
// unsigned by turning their sign bit over, which adds 128 to each; int4 codes are stored with 8 added.
#include "simd_avx512.h"
//
#include "matrix_codes.h"
#include "matrix_float.h"
#include "rows_simd.h"

namespace {

inline __m512i four(const uint8_t* codes) {
  return _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(codes));
}

template <int V, int T>
struct Int8Block {
  static void run(const Matrix& m, int first, const Rows& rows, float* y, size_t y_stride) {
    const Place<V, T> at(m, first, rows);
    const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
    __m512 total[T][V];
    for (int t = 0; t < T; ++t)
      for (int v = 0; v < V; ++v) total[t][v] = _mm512_setzero_ps();
    const int steps = m.steps();
    for (int done = 0, group = 0; done < steps; ++group) {
      const int end = done + kGroup / 4 < steps ? done + kGroup / 4 : steps;
      __m512i sum[T][V];
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) {
        const int32_t* x = at.sum[t] + group * (kGroup / kSum);
        const uint32_t all = uint32_t(x[0]) + uint32_t(x[1]) + uint32_t(x[2]) + uint32_t(x[3]);
        const __m512i extra = _mm512_set1_epi32(product(all, -128));
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) sum[t][v] = extra;
      }
      for (; done < end; ++done) {
        __m512i w[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
          const uint8_t* line = at.data[v] + done * size_t{64};
          _mm_prefetch(reinterpret_cast<const char*>(line + kAhead), _MM_HINT_T0);
          w[v] = _mm512_xor_si512(_mm512_loadu_si512(line), sign);
        }
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t)
#pragma GCC unroll 8
          for (int v = 0; v < V; ++v)
            sum[t][v] = _mm512_dpbusd_epi32(sum[t][v], w[v], four(at.codes[t] + done * 4));
      }
      for (int v = 0; v < V; ++v) {
        const __m512 scale = Simd::widen_bf16(at.scales[v] + group * kTile);
        for (int t = 0; t < T; ++t) {
          const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(at.scale[t][group]));
          total[t][v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[t][v]), both, total[t][v]);
        }
      }
    }
    for (int t = 0; t < T; ++t)
      for (int v = 0; v < V; ++v) _mm512_storeu_ps(y + t * y_stride + v * 16, total[t][v]);
  }
};

template <int V, int T>
struct Int4Block {
  static void run(const Matrix& m, int first, const Rows& rows, float* y, size_t y_stride) {
    const Place<V, T> at(m, first, rows);
    const __m512i low = _mm512_set1_epi8(15);
    __m512 total[T][V];
    for (int t = 0; t < T; ++t)
      for (int v = 0; v < V; ++v) total[t][v] = _mm512_setzero_ps();
    const int groups = m.groups();
    for (int group = 0; group < groups; ++group) {
      __m512i sum[T][V];
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) sum[t][v] = _mm512_set1_epi32(product(at.sum[t][group], -8));
#pragma GCC unroll 4
      for (int step = 0; step < kSum / 8; ++step) {
        __m512i even[V], odd[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
          const uint8_t* line = at.data[v] + (group * (kSum / 8) + step) * size_t{64};
          _mm_prefetch(reinterpret_cast<const char*>(line + kAhead), _MM_HINT_T0);
          const __m512i both = _mm512_loadu_si512(line);
          even[v] = _mm512_and_si512(both, low);
          odd[v] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
        }
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
          const uint8_t* x = at.codes[t] + group * kSum + step * 8;
#pragma GCC unroll 8
          for (int v = 0; v < V; ++v) {
            sum[t][v] = _mm512_dpbusd_epi32(sum[t][v], even[v], four(x));
            sum[t][v] = _mm512_dpbusd_epi32(sum[t][v], odd[v], four(x + 4));
          }
        }
      }
      for (int v = 0; v < V; ++v) {
        const __m512 scale = Simd::widen_bf16(at.scales[v] + group * kTile);
        for (int t = 0; t < T; ++t) {
          const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(at.scale[t][group / (kGroup / kSum)]));
          total[t][v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[t][v]), both, total[t][v]);
        }
      }
    }
    for (int t = 0; t < T; ++t)
      for (int v = 0; v < V; ++v) _mm512_storeu_ps(y + t * y_stride + v * 16, total[t][v]);
  }
};

void multiply(const Matrix& m, int first, int count, const Rows& rows, int row_count, float* y,
              size_t y_stride) {
  if (rows.codes == nullptr) return multiply_floats_by_format(m, first, count, rows, row_count, y, y_stride);
  if (m.format == Format::int8)
    return multiply_blocks<Int8Block, 4, 2>(m, first, count, rows, row_count, y, y_stride);
  multiply_blocks<Int4Block, 2, 2>(m, first, count, rows, row_count, y, y_stride);
}

}  // namespace

namespace tokenworks {

const Kernels& kernels_vnni() {
  static const Kernels table{multiply, round_group, gate, add_scaled, {0, 0, 1, 1}};
  return table;
}

}  // namespace tokenworks
