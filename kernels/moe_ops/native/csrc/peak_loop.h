// The loop of peak.h. Include after one of simd_*.h.
#pragma once

#include "peak.h"

namespace {

constexpr int kChains = 12;  // enough that none waits for its own last result
constexpr int kTurns = 256;

inline int64_t operations(int64_t rounds, int products) {
  return rounds * kTurns * kChains * products * 2;
}

#if defined(__AVX2__)
// The compiler may neither drop nor merge what passes here.
template <class Vector>
inline void keep(Vector& v) {
  asm volatile("" : "+v"(v));
}

template <class Vector, class Multiply>
void spin(int64_t rounds, Vector start, const Multiply& multiply) {
  Vector chain[kChains];
  for (Vector& one : chain) one = start;
  for (int64_t round = 0; round < rounds; ++round)
    for (int turn = 0; turn < kTurns; ++turn)
#pragma GCC unroll 12
      for (int i = 0; i < kChains; ++i) {
        chain[i] = multiply(chain[i]);
        keep(chain[i]);
      }
}

int64_t float_peak(int64_t rounds) {
  const auto a = Simd::set(0.5f);
  spin(rounds, Simd::set(1.0f), [&](Simd::F sum) { return Simd::fma(a, a, sum); });
  return operations(rounds, Simd::lanes);
}
#endif

}  // namespace
