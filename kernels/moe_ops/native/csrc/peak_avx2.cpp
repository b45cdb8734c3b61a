#include "simd_avx2.h"
//
#include "peak_loop.h"

namespace {

int64_t code_peak(int64_t rounds) {
  const __m256i a = _mm256_set1_epi16(3);
  // The sum is a factor, so that no product can be made before the loop.
  spin(rounds, a, [&](__m256i sum) { return _mm256_add_epi32(a, _mm256_madd_epi16(sum, a)); });
  return operations(rounds, 16);
}

}  // namespace

namespace tokenworks {

const Peaks& peaks_avx2() {
  static const Peaks table{float_peak, float_peak, code_peak};
  return table;
}

}  // namespace tokenworks
