// Attention kernels for vectors of 4 floats, whatever the processor.
#include <cstdint>

#include "attention.h"

#define LANES 4
#define DOT_M 4
#define DOT_N 3
#define SUM_M 4
#define SUM_V 2
#define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#include "attention_kernels.inc"

const tokenworks::attention::Kernels& tokenworks::attention::kernels_portable() {
  static constexpr Kernels table{multiply, attend, merge, finish, rms_norm, dots};
  return table;
}
