// Threads that stay together for many parallel bodies, one after the other.
#pragma once

#include <atomic>

namespace tokenworks {

class Team {
 public:
  explicit Team(int wanted);

  using Body = void (*)(const void* body, int thread, int threads);

  static Team* mine();  // the calling thread's; null outside of teams

  // Threads a body may run on: 1 where one runs already.
  int free() const { return body_ == nullptr ? size_ : 1; }

  // Runs `body` on the first `threads` of the team, the leader being number 0, and waits for them. Bodies must not
  // throw.
  void run(int threads, Body body, const void* what);

  // All threads of the running body meet here.
  void meet();

  // What thread 0 of `size` does before its bodies and after them, and the others from beginning to end.
  void begin(int size);
  void end();
  void follow(int thread);

 private:
  struct alignas(64) Count {
    std::atomic<int> value{0};
    void wait_while(int old, int looks) const;
    void set(int next);
  };

  int size_ = 1;
  const int looks_;  // before a thread lets others have its core
  int threads_ = 0;
  Body body_ = nullptr;
  const void* what_ = nullptr;
  bool over_ = false;
  Count call_;     // how often the leader has called the others
  Count left_;     // threads that are not done with the call
  Count arrived_;  // at this meeting
  Count meeting_;  // how many meetings there have been
};

}  // namespace tokenworks
