// Attention kernels for vectors of 8 floats, 16 registers.
#include <immintrin.h>

#include <cstdint>

#include "attention.h"

#define LANES 8
#define DOT_M 6
#define DOT_N 2
#define ACCUMULATORS 12
#define MULTIPLY_ADD(a, b, c) _mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c))
// In place and from registers: left to itself the compiler loads `a` again for every product.
#define ADD_PRODUCT(a, b, sum) asm("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b))
#define WIDEN_HALVES(p) _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)(p)))
#define SUM_OF(v) sum_halves((__m256)(v))

namespace {
inline float sum_halves(__m256 v) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
}  // namespace

#include "attention_kernels.inc"

const tokenworks::attention::Kernels& tokenworks::attention::kernels_avx2() { return kTable; }
