#include "simd_portable.h"
//
#include "peak_loop.h"

namespace {

int64_t portable_float_peak(int64_t rounds) {
  const Simd::F a = Simd::set(0.5f);
  Simd::F chain[kChains];
  for (Simd::F& one : chain) one = a;
  for (int64_t round = 0; round < rounds; ++round)
    for (int turn = 0; turn < kTurns; ++turn)
      for (Simd::F& one : chain) {
        one = Simd::fma(a, a, one);
        asm volatile("" : "+m"(one));
      }
  return operations(rounds, Simd::lanes);
}

}  // namespace

namespace tokenworks {

// Without instructions of its own for them, codes are multiplied at the speed of floats at best.
const Peaks& peaks_portable() {
  static const Peaks table{portable_float_peak, portable_float_peak, portable_float_peak};
  return table;
}

}  // namespace tokenworks
