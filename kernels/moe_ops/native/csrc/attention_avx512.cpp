// Attention kernels for vectors of 16 floats, 32 registers.
#include <immintrin.h>

#include <cstdint>

#include "attention.h"

// GCC 12 takes the deliberately undefined operand of its own conversions for a mistake.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#define LANES 16
#define DOT_M 4
#define DOT_N 4
#define ACCUMULATORS 12
#define MULTIPLY_ADD(a, b, c) _mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c))
#define ADD_PRODUCT(a, b, sum) (sum) = fma_of(a, b, sum)
#define WIDEN_HALVES(p) _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(p)))
#define SUM_OF(v) sum_halves((__m512)(v))

namespace {
inline float sum_halves(__m512 v) {
  const __m256 upper = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1));
  const __m256 y = _mm256_add_ps(_mm512_castps512_ps256(v), upper);
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
}  // namespace

#include "attention_kernels.inc"

const tokenworks::attention::Kernels& tokenworks::attention::kernels_avx512() { return kTable; }
