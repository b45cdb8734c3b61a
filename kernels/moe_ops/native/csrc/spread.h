// Keeps the threads of a region on processors of their own.
#pragma once

#if defined(__linux__)
#include <sched.h>
#endif

#include <atomic>
#include <cstdint>

namespace tokenworks {

// The processors that a region's threads have found themselves on. Threads that wait in a loop look busy, and the
// kernel chooses a place only for those that wake: two may stay on one processor for seconds, each region then taking
// the time of two turns of its scheduler, 8 ms.
class Spread {
 public:
  // To be called by each thread of the region: goes to a free processor if another of the region is on this one.
  void settle() {
#if defined(__linux__)
    if (claim(sched_getcpu())) return;
    cpu_set_t allowed, one;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    for (int cpu = 0; cpu < kMost; ++cpu) {
      if (!CPU_ISSET(cpu, &allowed) || !claim(cpu)) continue;
      CPU_ZERO(&one);
      CPU_SET(cpu, &one);
      if (sched_setaffinity(0, sizeof one, &one) == 0) sched_setaffinity(0, sizeof allowed, &allowed);
      return;
    }
#endif
  }

 private:
  static constexpr int kMost = 1024;  // of cpu_set_t

  // Whether nobody was there; so it is where the number says nothing.
  bool claim(int cpu) {
    if (cpu < 0 || cpu >= kMost) return true;
    const uint64_t bit = uint64_t{1} << cpu % 64;
    return (taken_[cpu / 64].fetch_or(bit, std::memory_order_relaxed) & bit) == 0;
  }

  std::atomic<uint64_t> taken_[kMost / 64] = {};
};

}  // namespace tokenworks
