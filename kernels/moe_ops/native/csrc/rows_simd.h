// Work on rows of activations, written once for all instruction sets. Include after one of simd_*.h.
#pragma once

#include <cstring>

#include "matrix.h"

namespace {

using tokenworks::kGroup;
using tokenworks::kSum;
using tokenworks::kTile;

// e^x within 2 units in the last place where the result is a normal number; x is clipped to that range.
inline Simd::F exponential(Simd::F x) {
  using S = Simd;
  x = S::max(S::min(x, S::set(88.0f)), S::set(-87.0f));
  const S::I n = S::to_int(S::mul(x, S::set(1.44269504f)));
  S::F r = S::fma(S::to_float(n), S::set(-0.693359375f), x);  // ln 2 in two parts
  r = S::fma(S::to_float(n), S::set(2.12194440e-4f), r);
  S::F p = S::set(1.9875691500e-4f);  // the minimax polynomial of Cephes' expf
  p = S::fma(p, r, S::set(1.3981999507e-3f));
  p = S::fma(p, r, S::set(8.3334519073e-3f));
  p = S::fma(p, r, S::set(4.1665795894e-2f));
  p = S::fma(p, r, S::set(1.6666665459e-1f));
  p = S::fma(p, r, S::set(5.0000001201e-1f));
  p = S::add(S::fma(S::mul(p, r), r, r), S::set(1.0f));
  return S::mul(p, S::as_float(S::left<23>(S::add_int(n, S::set_int(127)))));
}

inline void gate(const float* both, int count, float* act) {
  using S = Simd;
  const S::F one = S::set(1.0f), zero = S::set(0.0f), minus = S::set(-1.0f);
  for (int i = 0; i < count; i += S::lanes) {
    const float* side = both + i / kTile * 2 * kTile + i % kTile;
    const S::F gate = S::load(side), up = S::load(side + kTile);
    const S::F rest = S::add(one, exponential(S::fma(gate, minus, zero)));
    S::store(act + i, S::mul(S::div(gate, rest), up));
  }
}

inline void add_scaled(float* out, const float* y, float weight, int count) {
  using S = Simd;
  int i = 0;
  for (; i + S::lanes <= count; i += S::lanes)
    S::store(out + i, S::fma(S::set(weight), S::load(y + i), S::load(out + i)));
  if (i == count) return;
  // the same arithmetic for the rest, so that a column's result does not depend on its place
  float last_out[S::lanes] = {}, last_y[S::lanes] = {};
  std::memcpy(last_out, out + i, (count - i) * sizeof(float));
  std::memcpy(last_y, y + i, (count - i) * sizeof(float));
  S::store(last_out, S::fma(S::set(weight), S::load(last_y), S::load(last_out)));
  std::memcpy(out + i, last_out, (count - i) * sizeof(float));
}

template <class Code>
inline void round_whole_group(const float* x, int padded, Code* codes, float* scale, int32_t* sum) {
  using S = Simd;
  S::F most = S::set(0.0f), odd = S::set(0.0f);
  for (int i = 0; i < padded; i += S::lanes) {
    const S::F v = S::load(x + i);
    most = S::max(most, S::abs(v));
    odd = S::fma(v, S::set(0.0f), odd);  // NaN when any of them is not finite
  }
  const float largest = S::largest(most);
  const S::F inverse = S::set(largest == 0.0f ? 0.0f : 127.0f / largest);
  for (int part = 0; part < kGroup; part += kSum) {
    S::I total = S::set_int(0);
    for (int i = part; i < part + kSum && i < padded; i += S::lanes) {
      const S::I code = S::to_int(S::mul(S::load(x + i), inverse));
      S::store_codes(codes + i, code);
      total = S::add_int(total, code);
    }
    sum[part / kSum] = S::total_int(total);
  }
  *scale = largest / 127.0f + S::total(odd);
}

inline void round_group(const float* x, int count, int padded, int code_bytes, uint8_t* codes, float* scale,
                        int32_t* sum) {
  alignas(64) float copy[kGroup];
  alignas(64) uint8_t spare[2 * kGroup];
  uint8_t* target = codes;
  const int whole = (count + kTile - 1) / kTile * kTile;
  if (count != whole || padded != whole) {  // not to read or write beyond the ends
    std::memset(copy, 0, sizeof copy);
    std::memset(spare, 0, sizeof spare);
    std::memcpy(copy, x, count * sizeof(float));
    x = copy;
    target = spare;
  }
  if (code_bytes == 2)
    round_whole_group(x, whole, reinterpret_cast<int16_t*>(target), scale, sum);
  else
    round_whole_group(x, whole, reinterpret_cast<int8_t*>(target), scale, sum);
  if (target != codes) std::memcpy(codes, spare, static_cast<size_t>(padded) * code_bytes);
}

}  // namespace
