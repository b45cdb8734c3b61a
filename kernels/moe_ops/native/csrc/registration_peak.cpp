// The ceiling of arithmetic, for benches: torch.ops.tokenworks.peak(format, rounds) -> operations, for weights of a format
// as matrix.h counts them.
#include <torch/library.h>

#include <atomic>

#include "cpu.h"
#include "matrix.h"
#include "peak.h"
#include "threads.h"

namespace {

const tokenworks::Peaks& peaks() {
#if defined(__x86_64__)
  switch (tokenworks::isa()) {
    case tokenworks::Isa::bf16:
      return tokenworks::peaks_bf16();
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
int64_t peak(int64_t format, int64_t rounds) {
  TORCH_CHECK(format >= 0 && format < 4, "no format ", format);
  const auto one = static_cast<tokenworks::Format>(format);
  const auto run = one == tokenworks::Format::float32    ? peaks().floats
                   : one == tokenworks::Format::bfloat16 ? peaks().halves
                                                         : peaks().codes;
  std::atomic<int64_t> operations{0};
  tokenworks::parallel(tokenworks::thread_count(), [&](int, int) {
    operations += run(rounds);
  });
  return operations;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(tokenworks, m) { m.def("peak(int format, int rounds) -> int", peak); }
