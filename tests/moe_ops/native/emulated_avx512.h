// AVX-512 by SIMDe, and the few instructions that it lacks, one lane after the other. Included before everything.
#pragma once

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>

#include <cmath>
#include <cstring>

namespace emulated {

template <class To, int count, class From, class V, class Function>
inline auto lanes(const V& v, Function function) {
  struct { To lane[count]; } out;
  From in[count];
  std::memcpy(in, &v, sizeof in);
  for (int i = 0; i < count; ++i) out.lane[i] = function(in[i]);
  return out;
}

template <class V, class Lanes>
inline V as(const Lanes& lanes) {
  static_assert(sizeof(V) == sizeof(Lanes));
  V v;
  std::memcpy(&v, &lanes, sizeof v);
  return v;
}

template <class T, class V, class Function>
inline T fold(const V& v, Function function) {
  T lane[16];
  std::memcpy(lane, &v, sizeof lane);
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lane[i] = function(lane[i], lane[i + width]);
  return lane[0];
}

}  // namespace emulated

inline __m256i emulated_cvtepi32_epi16(__m512i v) {
  return emulated::as<__m256i>(emulated::lanes<int16_t, 16, int32_t>(v, [](int32_t a) { return int16_t(a); }));
}
inline __m128i emulated_cvtepi32_epi8(__m512i v) {
  return emulated::as<__m128i>(emulated::lanes<int8_t, 16, int32_t>(v, [](int32_t a) { return int8_t(a); }));
}
inline __m512 emulated_cvtepi32_ps(__m512i v) {
  return emulated::as<__m512>(emulated::lanes<float, 16, int32_t>(v, [](int32_t a) { return float(a); }));
}
inline __m512i emulated_cvtepu16_epi32(__m256i v) {
  return emulated::as<__m512i>(emulated::lanes<int32_t, 16, uint16_t>(v, [](uint16_t a) { return int32_t(a); }));
}
inline __m512i emulated_cvtps_epi32(__m512 v) {
  return emulated::as<__m512i>(
      emulated::lanes<int32_t, 16, float>(v, [](float a) { return int32_t(std::nearbyint(a)); }));
}
template <int n>
inline __m512i emulated_srai_epi32(__m512i v) {
  return emulated::as<__m512i>(emulated::lanes<int32_t, 16, int32_t>(v, [](int32_t a) { return a >> n; }));
}
inline int emulated_reduce_add_epi32(__m512i v) {
  return emulated::fold<int32_t>(v, [](int32_t a, int32_t b) { return a + b; });
}
inline float emulated_reduce_add_ps(__m512 v) {
  return emulated::fold<float>(v, [](float a, float b) { return a + b; });
}
inline float emulated_reduce_max_ps(__m512 v) {
  return emulated::fold<float>(v, [](float a, float b) { return a > b ? a : b; });
}

// As Intel's manual has it: numbers too small for full precision count as zero, before and after.
inline float emulated_flush(float a) { return std::fpclassify(a) == FP_SUBNORMAL ? std::copysign(0.0f, a) : a; }
inline __m256bh emulated_cvtneps_pbh(__m512 v) {
  return emulated::as<__m256bh>(emulated::lanes<uint16_t, 16, float>(v, [](float a) {
    uint32_t bits;
    a = emulated_flush(a);
    std::memcpy(&bits, &a, sizeof bits);
    if (std::isnan(a)) return uint16_t(bits >> 16 | 0x40);
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }));
}
inline __m512 emulated_dpbf16_ps(__m512 sums, __m512bh a, __m512bh b) {
  const auto widen = [](uint32_t pair, int half) {
    const uint32_t bits = half == 1 ? pair & 0xffff0000 : pair << 16;
    float number;
    std::memcpy(&number, &bits, sizeof number);
    return emulated_flush(number);
  };
  uint32_t left[16], right[16];
  std::memcpy(left, &a, sizeof left);
  std::memcpy(right, &b, sizeof right);
  int lane = 0;
  return emulated::as<__m512>(emulated::lanes<float, 16, float>(sums, [&](float sum) {
    for (const int half : {1, 0})
      sum = emulated_flush(std::fma(widen(left[lane], half), widen(right[lane], half), emulated_flush(sum)));
    ++lane;
    return sum;
  }));
}

#define _mm512_cvtneps_pbh emulated_cvtneps_pbh
#define _mm512_dpbf16_ps emulated_dpbf16_ps
#define _mm512_cvtepi32_epi16 emulated_cvtepi32_epi16
#define _mm512_cvtepi32_epi8 emulated_cvtepi32_epi8
#define _mm512_cvtepi32_ps emulated_cvtepi32_ps
#define _mm512_cvtepu16_epi32 emulated_cvtepu16_epi32
#define _mm512_cvtps_epi32 emulated_cvtps_epi32
#define _mm512_srai_epi32(v, n) emulated_srai_epi32<n>(v)
#define _mm512_reduce_add_epi32 emulated_reduce_add_epi32
#define _mm512_reduce_add_ps emulated_reduce_add_ps
#define _mm512_reduce_max_ps emulated_reduce_max_ps
