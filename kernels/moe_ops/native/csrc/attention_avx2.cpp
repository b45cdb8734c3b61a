// Attention kernels for vectors of 8 floats, 16 registers.
#include <immintrin.h>

#include <cstdint>

#include "attention.h"

#define LANES 8
#define DOT_M 4
#define DOT_N 3
#define SUM_M 6
#define SUM_V 2
#define MULTIPLY_ADD(a, b, c) _mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c))
#include "attention_kernels.inc"

const tokenworks::attention::Kernels& tokenworks::attention::kernels_avx2() {
  static constexpr Kernels table{multiply, attend, merge, finish, rms_norm, dots};
  return table;
}
