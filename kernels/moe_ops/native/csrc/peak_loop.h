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

// Chains have names: an array would stay in memory.
#define TOKENWORKS_CHAINS(X) X(a) X(b) X(c) X(d) X(e) X(f) X(g) X(h) X(i) X(j) X(k) X(l)

template <class Vector, class Multiply>
void spin(int64_t rounds, Vector start, const Multiply& multiply) {
#define TOKENWORKS_BEGIN(name) Vector name = start;
#define TOKENWORKS_TURN(name) \
  name = multiply(name);      \
  keep(name);
  TOKENWORKS_CHAINS(TOKENWORKS_BEGIN)
  for (int64_t turn = 0; turn < rounds * kTurns; ++turn) {
    TOKENWORKS_CHAINS(TOKENWORKS_TURN)
  }
#undef TOKENWORKS_TURN
#undef TOKENWORKS_BEGIN
}

int64_t float_peak(int64_t rounds) {
  const auto a = Simd::set(0.5f);
  spin(rounds, Simd::set(1.0f), [&](Simd::F sum) { return Simd::fma(a, a, sum); });
  return operations(rounds, Simd::lanes);
}
#endif

}  // namespace
