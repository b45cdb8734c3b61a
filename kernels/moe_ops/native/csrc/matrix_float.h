// Rows of fp32 activations times tiles of any format, written once for all instruction sets.
// Every product is summed in the order of the inputs, whatever the block: results do not depend on the call.
// Include after one of simd_*.h.
#pragma once

#include "matrix_blocks.h"

namespace {

// Input k of a step as fp32, for the outputs of one vector; `line` is where the vector's step starts.
template <Format format, int k>
inline Simd::F weight(Simd::I line) {
  using S = Simd;
  if constexpr (format == Format::float32) {
    return S::as_float(line);
  } else if constexpr (format == Format::bfloat16) {
    if constexpr (k == 0) return S::as_float(S::template left<16>(line));
    return S::as_float(S::and_int(line, S::set_int(static_cast<int32_t>(0xffff0000))));
  } else if constexpr (format == Format::int8) {
    return S::to_float(S::template right<24>(S::template left<24 - 8 * k>(line)));
  } else {
    // the top bit of a code turned over is the code minus 8 with its sign
    constexpr int kShift = k < 4 ? 28 - 8 * k : 24 - 8 * (k - 4);
    const S::I top = S::add_int(S::template left<kShift>(line), S::set_int(INT32_MIN));
    return S::to_float(S::template right<28>(top));
  }
}

// Adds the products with input k of a step; `data` is where the vectors' tiles start, `step` counts 64 bytes.
template <Format format, int V, int T, int k>
[[gnu::always_inline]] inline void multiply_input(const uint8_t* const (&data)[V], size_t step,
                                                  const float* const (&x)[T], size_t at, Simd::F (&sum)[T][V]) {
  Simd::F w[V];
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) {
    const uint8_t* line = data[v] + step * 64;
    if (k > 0 && T * V > Simd::sums) asm("" : "+r"(line));  // or all inputs would share a load, and a register
    w[v] = weight<format, k>(Simd::load_int(line));
  }
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
    const Simd::F xt = Simd::set(x[t][at + k]);
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) Simd::add_product(w[v], xt, sum[t][v]);
  }
}

// V vectors of outputs from vector `first` on, T rows.
template <Format format, int V, int T>
inline void multiply_floats(const Matrix& m, int first, const Rows& rows, float* y, size_t y_stride) {
  constexpr int kTogether = format == Format::float32 ? 1 : format == Format::bfloat16 ? 2
                            : format == Format::int8  ? 4 : 8;
  constexpr bool kScaled = format == Format::int8 || format == Format::int4;
  const uint8_t* data[V];
  const uint16_t* scales[V];
  for (int v = 0; v < V; ++v) {
    const Column column(m, first + v);
    data[v] = column.data;
    scales[v] = column.scales;
  }
  const float* x[T];
  for (int t = 0; t < T; ++t) x[t] = rows.x + rows.at(t) * rows.x_stride;
  Simd::F total[T][V];
  for (int t = 0; t < T; ++t)
    for (int v = 0; v < V; ++v) total[t][v] = Simd::set(0.0f);
  const size_t steps = m.steps(), group_steps = m.group() / kTogether;
  for (size_t done = 0, group = 0; done < steps; ++group) {
    const size_t end = done + group_steps < steps ? done + group_steps : steps;
    Simd::F sum[T][V];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t)
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sum[t][v] = Simd::set(0.0f);
    for (; done < end; ++done) {
      // One row alone reads as fast as the processor's own pre-fetchers can follow.
      if constexpr (T > 1)
#pragma GCC unroll 8
        for (int v = 0; v < V; v += kVectors) __builtin_prefetch(data[v] + done * 64 + kAhead);
      multiply_input<format, V, T, 0>(data, done, x, done * kTogether, sum);
      if constexpr (kTogether > 1) multiply_input<format, V, T, 1>(data, done, x, done * kTogether, sum);
      if constexpr (kTogether > 2) {
        multiply_input<format, V, T, 2>(data, done, x, done * kTogether, sum);
        multiply_input<format, V, T, 3>(data, done, x, done * kTogether, sum);
      }
      if constexpr (kTogether > 4) {
        multiply_input<format, V, T, 4>(data, done, x, done * kTogether, sum);
        multiply_input<format, V, T, 5>(data, done, x, done * kTogether, sum);
        multiply_input<format, V, T, 6>(data, done, x, done * kTogether, sum);
        multiply_input<format, V, T, 7>(data, done, x, done * kTogether, sum);
      }
    }
    for (int v = 0; v < V; ++v) {
      const Simd::F scale = kScaled ? Simd::widen_bf16(scales[v] + group * kTile) : total[0][v];
      for (int t = 0; t < T; ++t) {
        if constexpr (kScaled)
          total[t][v] = Simd::fma(sum[t][v], scale, total[t][v]);
        else
          total[t][v] = sum[t][v];  // there is one group
      }
    }
  }
  for (int t = 0; t < T; ++t)
    for (int v = 0; v < V; ++v) Simd::store(y + t * y_stride + v * Simd::lanes, total[t][v]);
}

template <Format format>
struct Floats {
  template <int V, int T>
  struct Block {
    static void run(const Matrix& m, int first, const Rows& rows, float* y, size_t y_stride) {
      multiply_floats<format, V, T>(m, first, rows, y, y_stride);
    }
  };
};

template <Format format>
void multiply_all_floats(const Matrix& m, int first, int count, const Rows& rows, int row_count, float* y,
                         size_t y_stride) {
  constexpr int kWide = Simd::block_few, kNarrow = Simd::block_many;
  multiply_blocks<Floats<format>::template Block, kWide, kNarrow>(m, first, count, rows, row_count, y, y_stride);
}

void multiply_floats_by_format(const Matrix& m, int first, int count, const Rows& rows, int row_count, float* y,
                               size_t y_stride) {
  switch (m.format) {
    case Format::float32:
      return multiply_all_floats<Format::float32>(m, first, count, rows, row_count, y, y_stride);
    case Format::bfloat16:
      return multiply_all_floats<Format::bfloat16>(m, first, count, rows, row_count, y, y_stride);
    case Format::int8:
      return multiply_all_floats<Format::int8>(m, first, count, rows, row_count, y, y_stride);
    case Format::int4:
      return multiply_all_floats<Format::int4>(m, first, count, rows, row_count, y, y_stride);
  }
}

}  // namespace
