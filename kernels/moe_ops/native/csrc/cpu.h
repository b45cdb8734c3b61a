// Which kernels this processor can run. Each set includes those before it.
#pragma once

namespace tokenworks {

enum class Isa : int {
  portable = 0,
  avx2 = 1,    // with FMA and F16C
  avx512 = 2,  // F, BW, DQ, VL
  vnni = 3,    // with VNNI: Cascade Lake, Ice Lake
  bf16 = 4,    // with BF16: Zen 4, Sapphire Rapids
};

Isa isa_best();
Isa isa();            // the one in use: the best unless changed
void isa_use(Isa isa);

}  // namespace tokenworks
