#include "threads.h"

#include <ATen/Parallel.h>

namespace tokenworks {

int thread_count() {
  if (const Team* const team = Team::mine()) return team->free();
  return at::in_parallel_region() ? 1 : at::get_num_threads();
}

void release_threads() { omp_pause_resource_all(omp_pause_soft); }

}  // namespace tokenworks
