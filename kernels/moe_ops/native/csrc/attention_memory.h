// Working memory of attention.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace tokenworks::attention {

// Memory that stays with its thread from call to call and only grows.
class Memory {
 public:
  float* of(int64_t floats) {
    if (floats > size_) {
      memory_.reset(static_cast<float*>(::operator new[](floats * sizeof(float), std::align_val_t{64})));
      size_ = floats;
    }
    return memory_.get();
  }

 private:
  struct Free {
    void operator()(float* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  std::unique_ptr<float, Free> memory_;
  int64_t size_ = 0;
};

}  // namespace tokenworks::attention
