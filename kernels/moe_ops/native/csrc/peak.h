// How fast this processor multiplies and adds when nothing has to be fetched: the ceiling that kernels are held
// against.
#pragma once

#include <cstdint>

namespace tokenworks {

// Each runs `rounds` rounds in registers and returns the operations done: a product and its addition are two.
struct Peaks {
  int64_t (*floats)(int64_t rounds);
  int64_t (*halves)(int64_t rounds);  // as bf16 weights are multiplied: fp32 products where nothing is faster
  int64_t (*codes)(int64_t rounds);  // int8 products, exact
};

const Peaks& peaks_portable();
const Peaks& peaks_avx2();
const Peaks& peaks_avx512();
const Peaks& peaks_vnni();
const Peaks& peaks_bf16();

}  // namespace tokenworks
