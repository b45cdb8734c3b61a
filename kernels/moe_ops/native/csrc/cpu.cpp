#include "cpu.h"

#include <atomic>

namespace tokenworks {

Isa isa_best() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")))
    return Isa::portable;
  if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")))
    return Isa::avx2;
  if (!__builtin_cpu_supports("avx512vnni")) return Isa::avx512;
  if (!__builtin_cpu_supports("avx512bf16")) return Isa::vnni;
  return Isa::bf16;
#else
  return Isa::portable;
#endif
}

namespace {
std::atomic<Isa>& in_use() {
  static std::atomic<Isa> value{isa_best()};
  return value;
}
}  // namespace

Isa isa() { return in_use().load(std::memory_order_relaxed); }

void isa_use(Isa isa) { in_use().store(isa, std::memory_order_relaxed); }

}  // namespace tokenworks
