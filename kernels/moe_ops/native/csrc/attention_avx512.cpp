// Attention kernels for vectors of 16 floats, 32 registers.
#include <immintrin.h>

#include <cstdint>

#include "attention.h"

#define LANES 16
#define DOT_M 4
#define DOT_N 6
#define SUM_M 8
#define SUM_V 2
#define MULTIPLY_ADD(a, b, c) _mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c))
#include "attention_kernels.inc"

const tokenworks::attention::Kernels& tokenworks::attention::kernels_avx512() {
  static constexpr Kernels table{multiply, attend, merge, finish, rms_norm, dots};
  return table;
}
