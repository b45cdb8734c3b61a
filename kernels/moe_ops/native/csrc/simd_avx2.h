#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

struct Simd {
  static constexpr int lanes = 8;
  static constexpr int block_few = 4;  // vectors of outputs that a block of few rows takes
  static constexpr int block_many = 2;  // and one of many rows
  static constexpr int sums = 8;  // that leave registers free for more than one step of weights
  using F = __m256;
  using I = __m256i;

  static F set(float value) { return _mm256_set1_ps(value); }
  static I set_int(int32_t value) { return _mm256_set1_epi32(value); }
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static I load_int(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  static void store(float* p, F v) { _mm256_storeu_ps(p, v); }
  static F widen_bf16(const uint16_t* p) {
    return as_float(left<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))));
  }
  // As int8_avx2.h reads codes of 16 bits: of four the first and third, then 256 times the second and fourth.
  static void store_codes(int16_t* p, I v) {
    const __m128i order = _mm_setr_epi8(0, 1, 4, 5, -1, 2, -1, 6, 8, 9, 12, 13, -1, 10, -1, 14);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_shuffle_epi8(narrow(v), order));
  }
  static void store_codes(int8_t* p, I v) {
    const __m128i half = narrow(v);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(half, half));
  }

  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F div(F a, F b) { return _mm256_div_ps(a, b); }
  // In place: left to itself the compiler moves sums from register to register until some end in memory.
  static void add_product(F a, F b, F& sum) { asm("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b)); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  static F abs(F a) { return _mm256_and_ps(a, as_float(set_int(0x7fffffff))); }
  static I add_int(I a, I b) { return _mm256_add_epi32(a, b); }
  static I and_int(I a, I b) { return _mm256_and_si256(a, b); }
  template <int n>
  static I left(I a) {
    return _mm256_slli_epi32(a, n);
  }
  template <int n>
  static I right(I a) {  // with the sign
    return _mm256_srai_epi32(a, n);
  }
  static F to_float(I a) { return _mm256_cvtepi32_ps(a); }
  static I to_int(F a) { return _mm256_cvtps_epi32(a); }  // nearest, ties to even
  static F as_float(I a) { return _mm256_castsi256_ps(a); }
  static I as_int(F a) { return _mm256_castps_si256(a); }
  static float largest(F a) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
  }
  static float total(F a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
  }
  static int32_t total_int(I a) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
  }

 private:
  static __m128i narrow(I v) {
    return _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  }
};

}  // namespace
