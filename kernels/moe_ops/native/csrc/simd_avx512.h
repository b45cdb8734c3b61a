#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

struct Simd {
  static constexpr int lanes = 16;
  static constexpr int block_few = 4;  // vectors of outputs that a block of few rows takes
  static constexpr int block_many = 2;  // and one of many rows
  static constexpr int sums = 24;  // that leave registers free for more than one step of weights
  using F = __m512;
  using I = __m512i;

  static F set(float value) { return _mm512_set1_ps(value); }
  static I set_int(int32_t value) { return _mm512_set1_epi32(value); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static I load_int(const void* p) { return _mm512_loadu_si512(p); }
  static void store(float* p, F v) { _mm512_storeu_ps(p, v); }
  static F widen_bf16(const uint16_t* p) {
    return as_float(left<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))));
  }
  // As int8_avx2.h reads codes of 16 bits: of four the first and third, then 256 times the second and fourth.
  static void store_codes(int16_t* p, I v) {
    const __m128i order = _mm_setr_epi8(0, 1, 4, 5, -1, 2, -1, 6, 8, 9, 12, 13, -1, 10, -1, 14);
    const __m256i codes = _mm512_cvtepi32_epi16(v);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_shuffle_epi8(codes, _mm256_broadcastsi128_si256(order)));
  }
  static void store_codes(int8_t* p, I v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v));
  }

  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static void add_product(F a, F b, F& sum) { sum = fma(a, b, sum); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F abs(F a) { return _mm512_abs_ps(a); }
  static I add_int(I a, I b) { return _mm512_add_epi32(a, b); }
  static I and_int(I a, I b) { return _mm512_and_si512(a, b); }
  template <int n>
  static I left(I a) {
    return _mm512_slli_epi32(a, n);
  }
  template <int n>
  static I right(I a) {  // with the sign
    return _mm512_srai_epi32(a, n);
  }
  static F to_float(I a) { return _mm512_cvtepi32_ps(a); }
  static I to_int(F a) { return _mm512_cvtps_epi32(a); }  // nearest, ties to even
  static F as_float(I a) { return _mm512_castsi512_ps(a); }
  static I as_int(F a) { return _mm512_castps_si512(a); }
  static float largest(F a) { return _mm512_reduce_max_ps(a); }
  static float total(F a) { return _mm512_reduce_add_ps(a); }
  static int32_t total_int(I a) { return _mm512_reduce_add_epi32(a); }
};

}  // namespace
