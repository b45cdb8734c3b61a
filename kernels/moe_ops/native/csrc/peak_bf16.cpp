#include "simd_avx512.h"
//
#include "peak_loop.h"

namespace {

int64_t half_peak(int64_t rounds) {
  const __m512bh a = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3f00));
  spin(rounds, _mm512_setzero_ps(), [&](__m512 sum) { return _mm512_dpbf16_ps(sum, a, a); });
  return operations(rounds, 32);
}

}  // namespace

namespace tokenworks {

const Peaks& peaks_bf16() {
  static const Peaks table{peaks_vnni().floats, half_peak, peaks_vnni().codes};
  return table;
}

}  // namespace tokenworks
