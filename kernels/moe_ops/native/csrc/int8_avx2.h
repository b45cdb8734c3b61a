// int8 weights times rounded activations on AVX2. Include after simd_avx2.h.
//
// VPMADDWD adds two products of 16-bit numbers. A 16-bit lane holds two weights of an output, and the lane beside it
// two more: shifted to the left it is 256 times the first, shifted to the right the second. So a register sums 8
// outputs, and a tile and six rows fill twelve. Of four activations the first and third lie together, then, times 256,
// the second and fourth (`store_codes` puts them there). Sums are exact: 256 · 128 · 127² is less than 2^31.
#pragma once

#include "matrix_codes.h"

namespace {

template <int V, int T>
struct Int8Block {
  [[gnu::noinline]] static void run(const Matrix& m, int first, const Rows& rows, float* y, size_t y_stride) {
    const Place<V, T> at(m, first, rows);
    const size_t steps = m.steps();
    __m256 total[T][V];
    for (int t = 0; t < T; ++t)
      for (int v = 0; v < V; ++v) total[t][v] = _mm256_setzero_ps();
    for (size_t done = 0, group = 0; done < steps; ++group) {
      const size_t end = done + kGroup / 4 < steps ? done + kGroup / 4 : steps;
      __m256i sum[T][V];
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) sum[t][v] = _mm256_setzero_si256();
      for (; done < end; ++done) {
        add<0>(at, done, sum);
        add<1>(at, done, sum);
      }
      for (int v = 0; v < V; ++v) {
        const __m256 scale = Simd::widen_bf16(at.scales[v] + group * kTile);
        for (int t = 0; t < T; ++t) {
          const __m256 exact = _mm256_cvtepi32_ps(_mm256_srai_epi32(sum[t][v], 8));
          const __m256 both = _mm256_mul_ps(scale, _mm256_set1_ps(at.scale[t][group]));
          total[t][v] = _mm256_fmadd_ps(exact, both, total[t][v]);
        }
      }
    }
    for (int t = 0; t < T; ++t)
      for (int v = 0; v < V; ++v) _mm256_storeu_ps(y + t * y_stride + v * 8, total[t][v]);
  }

 private:
  // Adds the products with the first and third activation of a step, or with the second and fourth.
  template <int half>
  [[gnu::always_inline]] static void add(const Place<V, T>& at, size_t step, __m256i (&sum)[T][V]) {
    __m256i w[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; v += kVectors) {
      const uint8_t* line = at.data[v] + step * 64;
      if (half == 0) _mm_prefetch(reinterpret_cast<const char*>(line + kAhead), _MM_HINT_T0);
      if (half == 1) asm("" : "+r"(line));  // or both halves would share a load, and a register
      for (int part = 0; part < kVectors && v + part < V; ++part) {
        const __m256i both = Simd::load_int(line + part * 32);
        w[v + part] = half == 0 ? _mm256_slli_epi16(both, 8) : _mm256_srai_epi16(both, 8);
      }
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
      const __m256i two = _mm256_set1_epi32(reinterpret_cast<const int32_t*>(at.codes[t])[step * 2 + half]);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) add_products(w[v], two, sum[t][v]);
    }
  }

  // In place: left to itself the compiler moves sums from register to register until some end in memory.
  [[gnu::always_inline]] static void add_products(__m256i w, __m256i two, __m256i& sum) {
    __m256i products;
    asm("vpmaddwd %2, %3, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(products) : "x"(w), "x"(two));
  }
};

}  // namespace
