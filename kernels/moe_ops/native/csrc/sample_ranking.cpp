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
  uint64_t* const items = items_.data();
  size_t count = 0;
  for (int64_t block = 0; block < blocks; ++block) {
    if (largest[block] < least) continue;
    const int64_t first = block * kBlock;
    for (int64_t token = first; token < first + kBlock; ++token) {
      items[count] = item_of(weight[token], token);
      count += weight[token] >= least;
    }
  }
  count_ = count;
  top_ = std::bit_width(item_of(least, 0) | ((1ull << kTokenBits) - 1));
  counted_ = sorted_ = false;
}

void Ranking::drop_below(float least) {
  const auto end = std::remove_if(items_.begin(), items_.begin() + count_,
                                  [least](uint64_t item) { return weight_of(item) < least; });
  count_ = end - items_.begin();
  counted_ = false;
}

void Ranking::fill(Histogram& histogram, const uint64_t* items, size_t count, Digit digit) {
  std::memset(histogram.count, 0, digit.buckets * sizeof *histogram.count);
  std::memset(histogram.mass, 0, digit.buckets * sizeof *histogram.mass);
  for (size_t i = 0; i < count; ++i) {
    const int bucket = digit.of(items[i]);
    ++histogram.count[bucket];
    histogram.mass[bucket] += weight_of(items[i]);
  }
}

// The bucket that holds the place; `before` grows by all that come earlier. Empty buckets meet no stop.
int Ranking::bucket_of(const Histogram& histogram, int buckets, const Stop& stop, Place& before) {
  int bucket = 0;
  for (; bucket < buckets; ++bucket) {
    const int64_t count = before.count + histogram.count[bucket];
    const double mass = before.mass + histogram.mass[bucket];
    if (stop.met(count, mass)) return bucket;
    before.count = count;
    before.mass = mass;
  }
  while (histogram.count[--bucket] == 0) continue;
  before.count -= histogram.count[bucket];
  before.mass -= histogram.mass[bucket];
  return bucket;
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
  int top = top_;  // bits of weights from here on are alike
  for (int level = 0; count > kFew && top > kTokenBits; ++level) {
    // leading bits that all have alike tell nothing; many buckets for few items cost more than they save
    const int bits = std::clamp(static_cast<int>(std::bit_width(count)) - 2, 4, kBits);
    const int shift = std::max(kTokenBits, top - bits);
    const Digit digit{shift, 1 << (top - shift)};
    Histogram& histogram = level == 0 ? first_ : deeper_;
    if (level > 0 || !counted_) fill(histogram, items, count, digit);
    counted_ = true;
    const int bucket = bucket_of(histogram, digit.buckets, stop, before);
    std::vector<uint64_t>& inner = inner_[level % 2];
    inner.resize(std::max<size_t>(inner.size(), count));
    count = digit.pick(bucket, items, count, inner.data());
    items = inner.data();
    top = shift;
  }
  // those that are alike are in the order of tokens already
  if (top > kTokenBits && !(items == items_.data() && sorted_)) std::sort(items, items + count);
  if (items == items_.data()) sorted_ = true;
  return walk(items, count, stop, before);
}

}  // namespace tokenworks::sample
