// Attention kernels for vectors of 4 floats, whatever the processor.
#include <cstdint>

#include "attention.h"

#define LANES 4
#define DOT_M 4
#define DOT_N 2
#define ACCUMULATORS 12
#define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#define ADD_PRODUCT(a, b, sum) (sum) = fma_of(a, b, sum)
#define WIDEN_HALVES(p) widen<int32_t>(p)
#define SUM_OF(v) (((v)[0] + (v)[2]) + ((v)[1] + (v)[3]))

namespace {
typedef int32_t lanes_of_int __attribute__((vector_size(LANES * 4)));
template <class Wide, class Narrow>
inline lanes_of_int widen(const Narrow* p) {
  return lanes_of_int{Wide(p[0]), Wide(p[1]), Wide(p[2]), Wide(p[3])};
}
}  // namespace

#include "attention_kernels.inc"

const tokenworks::attention::Kernels& tokenworks::attention::kernels_portable() { return kTable; }
