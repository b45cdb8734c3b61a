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
  static constexpr int kBits = 10;  // at most, that tell buckets apart

  struct Histogram {
    int32_t count[1 << kBits];
    double mass[1 << kBits];
  };

  // The bits of an item from `shift` on.
  struct Digit {
    int shift, buckets;

    int of(uint64_t item) const { return static_cast<int>(item >> shift) & (buckets - 1); }
    // Copies those of `bucket`, in their order, and says how many.
    size_t pick(int bucket, const uint64_t* items, size_t count, uint64_t* out) const {
      size_t kept = 0;
      for (size_t i = 0; i < count; ++i) {
        out[kept] = items[i];
        kept += of(items[i]) == bucket;
      }
      return kept;
    }
  };

  static void fill(Histogram& histogram, const uint64_t* items, size_t count, Digit digit);
  static int bucket_of(const Histogram& histogram, int buckets, const Stop& stop, Place& before);
  static Place walk(const uint64_t* items, size_t count, const Stop& stop, Place before);

  std::vector<uint64_t> items_, inner_[2];  // how far the weight's bits are below 1's, then the token
  size_t count_ = 0;
  int top_ = 0;  // bits of items from here on are 0
  bool counted_ = false, sorted_ = false;
  Histogram first_, deeper_;
};

}  // namespace tokenworks::sample
