#include "simd_avx512.h"
//
#include "peak_loop.h"

namespace {

int64_t code_peak(int64_t rounds) {
  const __m512i a = _mm512_set1_epi16(3);
  spin(rounds, _mm512_setzero_si512(), [&](__m512i sum) {
    __m512i factor = a;
    keep(factor);
    return _mm512_add_epi32(sum, _mm512_madd_epi16(factor, a));
  });
  return operations(rounds, 32);
}

}  // namespace

namespace tokenworks {

const Peaks& peaks_avx512() {
  static const Peaks table{float_peak, code_peak};
  return table;
}

}  // namespace tokenworks
