// What attention asks of AVX-512 beyond what emulated_avx512.h has.
#pragma once

#include "emulated_avx512.h"

inline __m512i emulated_cvtepi8_epi32(__m128i v) {
  return emulated::as<__m512i>(emulated::lanes<int32_t, 16, int8_t>(v, [](int8_t a) { return int32_t(a); }));
}

#define _mm512_cvtepi8_epi32 emulated_cvtepi8_epi32
