// One parallel region per call of an operation, on torch's own threads; or one for many calls, within `together`.
#pragma once

#include <omp.h>

#include <atomic>
#include <exception>

#include "spread.h"
#include "team.h"

namespace tokenworks {

int thread_count();  // torch.get_num_threads(); 1 inside a region or a team's body

// Ends the threads that help the calling one; its next region starts new ones.
void release_threads();

// Runs body(thread, threads) on each of up to `wanted` threads and waits for all.
template <class Body>
void parallel(int wanted, const Body& body) {
  const int threads = wanted < thread_count() ? wanted : thread_count();
  if (threads <= 1) {
    body(0, 1);
    return;
  }
  if (Team* const team = Team::mine()) {
    team->run(
        threads,
        [](const void* what, int thread, int count) { (*static_cast<const Body*>(what))(thread, count); }, &body);
    return;
  }
  Spread spread;
#pragma omp parallel num_threads(threads)
  {
    spread.settle();
    body(omp_get_thread_num(), omp_get_num_threads());
  }
}

// Runs body() on this thread while the others wait for what it calls in `parallel`: one region for all of it. What
// the body throws is thrown again when the others have left.
template <class Body>
void together(const Body& body) {
  const int threads = thread_count();
  if (threads <= 1 || Team::mine() != nullptr) {
    body();
    return;
  }
  Team team(threads);
  Spread spread;
  std::exception_ptr failure;
#pragma omp parallel num_threads(threads)
  {
    spread.settle();
    if (omp_get_thread_num() == 0) {
      team.begin(omp_get_num_threads());
      try {
        body();
      } catch (...) {
        failure = std::current_exception();
      }
      team.end();
    } else {
      team.follow(omp_get_thread_num());
    }
  }
  if (failure) std::rethrow_exception(failure);
}

// All threads of the region meet here; `team` as given to the body (1: alone, perhaps in a region of others).
inline void barrier(int team = 2) {
  if (team == 1) return;
  if (Team* const mine = Team::mine()) {
    mine->meet();
    return;
  }
#pragma omp barrier
}

// Numbers 0, 1, … count - 1, each given to one thread only.
class Queue {
 public:
  explicit Queue(int count) : count_(count) {}

  // The next number, or -1 when all are taken.
  int take() {
    const int next = next_.fetch_add(1, std::memory_order_relaxed);
    return next < count_ ? next : -1;
  }

 private:
  std::atomic<int> next_{0};
  const int count_;
};

// As a queue, but for numbers whose work shrinks from the first to the last: some threads begin at either end.
class TwoEnds {
 public:
  explicit TwoEnds(int count) : count_(count) {}

  // The next number from the first on or from the last back; -1 when all are taken.
  int take(bool back) {
    if (taken_.fetch_add(1, std::memory_order_relaxed) >= count_) return -1;
    return back ? count_ - 1 - back_.fetch_add(1, std::memory_order_relaxed)
                : front_.fetch_add(1, std::memory_order_relaxed);
  }

 private:
  std::atomic<int> taken_{0}, front_{0}, back_{0};
  const int count_;
};

}  // namespace tokenworks
