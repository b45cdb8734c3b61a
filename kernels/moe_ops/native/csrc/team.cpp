#include "team.h"

#include <omp.h>

namespace tokenworks {
namespace {

constexpr int kLooks = 1000;  // 10 to 40 µs, more than most gaps between two bodies

thread_local Team* mine_ = nullptr;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

// With more threads than cores the awaited one may need this thread's: it is given up at once.
Team::Team(int wanted) : looks_(wanted <= omp_get_num_procs() ? kLooks : 1) {}

Team* Team::mine() { return mine_; }

void Team::Count::wait_while(int old, int looks) const {
  for (int look = 0; look < looks; ++look) {
    if (value.load(std::memory_order_acquire) != old) return;
    pause();
  }
  value.wait(old, std::memory_order_acquire);
}

void Team::Count::set(int next) {
  value.store(next);  // sequentially consistent: a thread that goes to sleep sees it, or is seen asleep
  value.notify_all();
}

void Team::begin(int size) {
  size_ = size;
  mine_ = this;
}

void Team::end() {
  over_ = true;
  call_.set(call_.value.load(std::memory_order_relaxed) + 1);
  mine_ = nullptr;
}

void Team::run(int threads, Body body, const void* what) {
  threads_ = threads;
  body_ = body;
  what_ = what;
  left_.value.store(size_ - 1, std::memory_order_relaxed);
  call_.set(call_.value.load(std::memory_order_relaxed) + 1);
  body(what, 0, threads);
  for (int left; (left = left_.value.load(std::memory_order_acquire)) != 0;) left_.wait_while(left, looks_);
  body_ = nullptr;
}

void Team::follow(int thread) {
  mine_ = this;
  for (int seen = 0;; ++seen) {
    call_.wait_while(seen, looks_);
    if (over_) break;
    if (thread < threads_) body_(what_, thread, threads_);
    if (left_.value.fetch_sub(1) == 1) left_.value.notify_all();
  }
  mine_ = nullptr;
}

void Team::meet() {
  if (body_ == nullptr || threads_ == 1) return;
  const int meeting = meeting_.value.load(std::memory_order_relaxed);
  if (arrived_.value.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
    arrived_.value.store(0, std::memory_order_relaxed);
    meeting_.set(meeting + 1);
  } else {
    meeting_.wait_while(meeting, looks_);
  }
}

}  // namespace tokenworks
