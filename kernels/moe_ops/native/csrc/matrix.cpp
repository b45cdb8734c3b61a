#include "matrix.h"

#include "cpu.h"

namespace tokenworks {

const Kernels& kernels() {
#if defined(__x86_64__)
  switch (isa()) {
    case Isa::bf16:
      return kernels_bf16();
    case Isa::vnni:
      return kernels_vnni();
    case Isa::avx512:
      return kernels_avx512();
    case Isa::avx2:
      return kernels_avx2();
    case Isa::portable:
      break;
  }
#endif
  return kernels_portable();
}

}  // namespace tokenworks
