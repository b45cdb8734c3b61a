// Memory for the length of one call, kept by the calling thread for its next ones.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>

namespace tokenworks {

class Scratch {
 public:
  // Declares that the memory handed out so far is free again.
  static Scratch& begin() {
    thread_local Scratch scratch;
    scratch.clear();
    return scratch;
  }

  void clear() { used_ = 0; }

  // Room for `count` elements on cache lines of their own. Call `reserve` with the sum of all sizes first.
  template <class T>
  T* take(size_t count) {
    T* const start = reinterpret_cast<T*>(memory_.get() + used_);
    used_ += size<T>(count);
    return start;
  }

  template <class T>
  static size_t size(size_t count) {
    return (count * sizeof(T) + 64 + 63) / 64 * 64;  // 64 bytes beyond the end may be read
  }

  void reserve(size_t bytes) {
    if (bytes <= capacity_) return;
    capacity_ = bytes + bytes / 4;
    memory_.reset();
    void* const memory = std::aligned_alloc(64, (capacity_ + 63) / 64 * 64);
    if (memory == nullptr) {
      capacity_ = 0;
      throw std::bad_alloc();
    }
    memory_.reset(static_cast<char*>(memory));
  }

 private:
  struct Free {
    void operator()(char* p) const { std::free(p); }
  };
  std::unique_ptr<char, Free> memory_;
  size_t capacity_ = 0;
  size_t used_ = 0;
};

}  // namespace tokenworks
