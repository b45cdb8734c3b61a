#include "simd_avx512.h"
//
#include "peak_loop.h"

namespace {

int64_t code_peak(int64_t rounds) {
  const __m512i a = _mm512_set1_epi16(3);
  // The sum is a factor, so that no product can be made before the loop.
  spin(rounds, a, [&](__m512i sum) { return _mm512_add_epi32(a, _mm512_madd_epi16(sum, a)); });
  return operations(rounds, 32);
}

}  // namespace

namespace tokenworks {

const Peaks& peaks_avx512() {
  static const Peaks table{float_peak, float_peak, code_peak};
  return table;
}

}  // namespace tokenworks
