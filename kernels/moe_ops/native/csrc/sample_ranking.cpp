#include "sample_ranking.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "sample.h"

namespace tokenworks::sample {
namespace {

constexpr uint32_t kOne = 0x3f800000;  // the bits of 1.0f: those of smaller positive numbers are fewer
constexpr size_t kFew = 48;            // sorted sooner than counted
constexpr int kTokenBits = 32;

float weight_of(uint64_t item) { return std::bit_cast<float>(kOne - static_cast<uint32_t>(item >> kTokenBits)); }

uint64_t item_of(float weight, int64_t token) {
  return static_cast<uint64_t>(kOne - std::bit_cast<uint32_t>(weight)) << kTokenBits | static_cast<uint64_t>(token);
}

}  // namespace

void Ranking::begin(const float* weight, const float* largest, int64_t tokens, float least) {
  const int64_t blocks = blocks_of(tokens);
  items_.resize(std::max<size_t>(items_.size(), blocks * kBlock));
  count_ = 0;
  counted_ = sorted_ = false;
  uint64_t* const items = items_.data();
  for (int64_t block = 0; block < blocks; ++block) {
    if (largest[block] < least) continue;
    const int64_t first = block * kBlock;
    for (int64_t token = first; token < first + kBlock; ++token) {
      items[count_] = item_of(weight[token], token);
      count_ += weight[token] >= least;
    }
  }
}

void Ranking::drop_below(float least) {
  const auto end = std::remove_if(items_.begin(), items_.begin() + count_,
                                  [least](uint64_t item) { return weight_of(item) < least; });
  count_ = end - items_.begin();
  counted_ = false;
}

void Ranking::fill(Histogram& histogram, const uint64_t* items, size_t count, int shift) {
  std::memset(&histogram, 0, sizeof histogram);
  for (size_t i = 0; i < count; ++i) {
    const int bucket = static_cast<int>(items[i] >> shift) & (kBuckets - 1);
    ++histogram.count[bucket];
    histogram.mass[bucket] += weight_of(items[i]);
  }
}

// The bucket that holds the place; `before` grows by all that come earlier.
int Ranking::bucket_of(const Histogram& histogram, const Stop& stop, Place& before) {
  int last = -1;
  Place sum = before;
  for (int bucket = 0; bucket < kBuckets; ++bucket) {
    if (histogram.count[bucket] == 0) continue;
    before = sum;
    last = bucket;
    sum.count += histogram.count[bucket];
    sum.mass += histogram.mass[bucket];
    if (stop.met(sum.count, sum.mass)) break;
  }
  return last;
}

Place Ranking::walk(const uint64_t* items, size_t count, const Stop& stop, Place before) {
  for (size_t i = 0; i < count; ++i) {
    before.token = static_cast<uint32_t>(items[i]);
    ++before.count;
    before.mass += weight_of(items[i]);
    if (stop.met(before.count, before.mass)) break;
  }
  return before;
}

Place Ranking::find(const Stop& stop) {
  Place before{-1, 0, 0.0};
  uint64_t* items = items_.data();
  size_t count = count_;
  int shift = kTokenBits + 2 * kDigit;
  for (int level = 0; count > kFew && shift >= kTokenBits; ++level, shift -= kDigit) {
    Histogram& histogram = level == 0 ? first_ : deeper_;
    if (level > 0 || !counted_) fill(histogram, items, count, shift);
    counted_ = true;
    const int bucket = bucket_of(histogram, stop, before);
    std::vector<uint64_t>& inner = inner_[level % 2];
    inner.resize(std::max<size_t>(inner.size(), count));
    size_t kept = 0;
    for (size_t i = 0; i < count; ++i) {
      inner[kept] = items[i];
      kept += (static_cast<int>(items[i] >> shift) & (kBuckets - 1)) == bucket;
    }
    items = inner.data();
    count = kept;
  }
  // those that are alike in all their bits are in the order of tokens already
  if (count <= kFew && !(items == items_.data() && sorted_)) std::sort(items, items + count);
  if (items == items_.data()) sorted_ = true;
  return walk(items, count, stop, before);
}

}  // namespace tokenworks::sample
