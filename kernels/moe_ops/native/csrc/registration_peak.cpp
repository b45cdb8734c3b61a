// The ceiling of arithmetic, for benches: torch.ops.tokenworks.peak(codes, rounds) -> operations.
#include <torch/library.h>

#include <atomic>

#include "cpu.h"
#include "peak.h"
#include "threads.h"

namespace {

const tokenworks::Peaks& peaks() {
#if defined(__x86_64__)
  switch (tokenworks::isa()) {
    case tokenworks::Isa::vnni:
      return tokenworks::peaks_vnni();
    case tokenworks::Isa::avx512:
      return tokenworks::peaks_avx512();
    case tokenworks::Isa::avx2:
      return tokenworks::peaks_avx2();
    default:
      break;
  }
#endif
  return tokenworks::peaks_portable();
}

// All of torch's threads at once.
int64_t peak(bool codes, int64_t rounds) {
  std::atomic<int64_t> operations{0};
  tokenworks::parallel(tokenworks::thread_count(), [&](int, int) {
    operations += codes ? peaks().codes(rounds) : peaks().floats(rounds);
  });
  return operations;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(tokenworks, m) { m.def("peak(bool codes, int rounds) -> int", peak); }
