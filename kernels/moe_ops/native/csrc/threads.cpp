#include "threads.h"

#include <ATen/Parallel.h>

namespace tokenworks {

int thread_count() { return at::in_parallel_region() ? 1 : at::get_num_threads(); }

}  // namespace tokenworks
