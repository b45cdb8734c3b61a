// Vectors of 16 floats as the compiler makes them of what the processor has (SSE2, NEON).
#pragma once

#include <cstdint>
#include <cstring>

namespace {

struct Simd {
  static constexpr int lanes = 16;
  static constexpr int block_few = 1;  // vectors of outputs that a block of few rows takes
  static constexpr int block_many = 1;  // and one of many rows
  static constexpr int sums = 4;  // that leave registers free for more than one step of weights
  using F = float __attribute__((vector_size(64)));
  using I = int32_t __attribute__((vector_size(64)));

  static F set(float value) { return value - F{}; }
  static I set_int(int32_t value) { return value - I{}; }
  static F load(const float* p) { return read<F>(p); }
  static I load_int(const void* p) { return read<I>(p); }
  static void store(float* p, F v) { std::memcpy(p, &v, sizeof v); }
  static F widen_bf16(const uint16_t* p) {
    using H = uint16_t __attribute__((vector_size(32)));
    return as_float(__builtin_convertvector(read<H>(p), I) << 16);
  }
  static void store_codes(int16_t* p, I v) { narrow(p, v); }
  static void store_codes(int8_t* p, I v) { narrow(p, v); }

  static F add(F a, F b) { return a + b; }
  static F mul(F a, F b) { return a * b; }
  static F div(F a, F b) { return a / b; }
  static void add_product(F a, F b, F& sum) { sum = fma(a, b, sum); }
  static F fma(F a, F b, F c) { return a * b + c; }
  static F max(F a, F b) { return a > b ? a : b; }
  static F min(F a, F b) { return a < b ? a : b; }
  static F abs(F a) { return as_float(as_int(a) & 0x7fffffff); }
  static I add_int(I a, I b) {  // what is too large wraps
    using U = uint32_t __attribute__((vector_size(64)));
    return reinterpret_cast<I>(reinterpret_cast<U>(a) + reinterpret_cast<U>(b));
  }
  static I and_int(I a, I b) { return a & b; }
  template <int n>
  static I left(I a) {
    return a << n;
  }
  template <int n>
  static I right(I a) {  // with the sign
    return a >> n;
  }
  static F to_float(I a) { return __builtin_convertvector(a, F); }
  static I to_int(F a) {  // nearest, ties to even; |a| < 2^22
    return as_int(a + 12582912.0f) - 0x4b400000;
  }
  static F as_float(I a) { return reinterpret_cast<F>(a); }
  static I as_int(F a) { return reinterpret_cast<I>(a); }
  static float largest(F a) {
    float most = a[0];
    for (int i = 1; i < lanes; ++i) most = a[i] > most ? a[i] : most;
    return most;
  }
  static float total(F a) {
    float sum = 0;
    for (int i = 0; i < lanes; ++i) sum += a[i];
    return sum;
  }
  static int32_t total_int(I a) {
    uint32_t sum = 0;
    for (int i = 0; i < lanes; ++i) sum += static_cast<uint32_t>(a[i]);
    return static_cast<int32_t>(sum);
  }

 private:
  template <class V>
  static V read(const void* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  template <class T>
  static void narrow(T* p, I v) {
    for (int i = 0; i < lanes; ++i) p[i] = static_cast<T>(v[i]);
  }
};

}  // namespace
