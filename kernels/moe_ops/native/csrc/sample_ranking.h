// Places in the order of falling weight, equals by rising token, found without sorting: a histogram of weights says
// in which bucket a place lies, and only that bucket is looked into, until few are left or all are equal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tokenworks::sample {

// The first place where so many tokens are counted or their weights reach `mass` (`beyond`: exceed it).
struct Stop {
  int64_t count;
  double mass;
  bool beyond;

  bool met(int64_t tokens, double weights) const {
    return tokens >= count || (beyond ? weights > mass : weights >= mass);
  }
};

// A place, and the number and weight of tokens up to and with it.
struct Place {
  int64_t token, count;
  double mass;
};

class Ranking {
 public:
  // Ranks the tokens of weight `least` or more, 0 < weight ≤ 1; `largest` are the largest weights of blocks.
  void begin(const float* weight, const float* largest, int64_t tokens, float least);

  // Leaves out weights below `least`.
  void drop_below(float least);

  // The last place where none meets `stop`. Some token must be ranked.
  Place find(const Stop& stop);

 private:
  static constexpr int kDigit = 10, kBuckets = 1 << kDigit;

  struct Histogram {
    int32_t count[kBuckets];
    double mass[kBuckets];
  };

  static void fill(Histogram& histogram, const uint64_t* items, size_t count, int shift);
  static int bucket_of(const Histogram& histogram, const Stop& stop, Place& before);
  static Place walk(const uint64_t* items, size_t count, const Stop& stop, Place before);

  std::vector<uint64_t> items_, inner_[2];  // how far the weight's bits are below 1's, then the token
  size_t count_ = 0;
  bool counted_ = false, sorted_ = false;
  Histogram first_, deeper_;
};

}  // namespace tokenworks::sample
