#include "simd_avx512.h"
//
#include "peak_loop.h"

namespace {

int64_t code_peak(int64_t rounds) {
  const __m512i a = _mm512_set1_epi8(3);
  spin(rounds, _mm512_setzero_si512(), [&](__m512i sum) { return _mm512_dpbusd_epi32(sum, a, a); });
  return operations(rounds, 64);
}

}  // namespace

namespace tokenworks {

const Peaks& peaks_vnni() {
  static const Peaks table{float_peak, float_peak, code_peak};
  return table;
}

}  // namespace tokenworks
