// The passes of sample.h for vectors of LANES floats, included once per instruction set.
#include <cmath>
#include <limits>

#include "attention_vectors.inc"

namespace {

using tokenworks::sample::Best;
using tokenworks::sample::kBlock;

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr int kChains = 2;  // independent searches: a comparison takes longer than reading the next vector

Best best(const float* x, int64_t tokens) {
  vec top[kChains];
  veci place[kChains], number[kChains], bad{};
  for (int c = 0; c < kChains; ++c) {
    top[c] = splat(kNever);
    for (int i = 0; i < LANES; ++i) number[c][i] = c * LANES + i;
    place[c] = number[c];
  }
  int64_t i = 0;
  for (; i + kChains * LANES <= tokens; i += kChains * LANES) {
    for (int c = 0; c < kChains; ++c) {
      const vec v = load(x + i + c * LANES);
      const veci more = v > top[c];
      bad |= v != v;
      top[c] = choose(more, v, top[c]);
      place[c] = more ? number[c] : place[c];
      number[c] += kChains * LANES;
    }
  }
  Best found{kNever, 0, true};
  for (int c = 0; c < kChains; ++c) {
    for (int lane = 0; lane < LANES; ++lane) {
      const float value = top[c][lane];
      const int64_t token = place[c][lane];
      if (value > found.value || (value == found.value && token < found.token)) found = {value, token, true};
    }
  }
  for (int lane = 0; lane < LANES; ++lane) found.ordered &= bad[lane] == 0;
  for (; i < tokens; ++i) {
    found.ordered &= x[i] == x[i];
    if (x[i] > found.value) found.value = x[i], found.token = i;
  }
  return found;
}

// One block: its sum; weights and the largest where wanted.
template <bool kept>
inline void weigh_block(const float* x, vec top, vec temperature, float* sum, float* weight, float* largest) {
  vec total{}, most{};
  for (int64_t i = 0; i < kBlock; i += LANES) {
    const vec w = exp_of((load(x + i) - top) / temperature);
    total += w;
    if constexpr (kept) {
      store(weight + i, w);
      most = choose(w > most, w, most);
    }
  }
  *sum = sum_of(total);
  if constexpr (kept) *largest = max_of(most);
}

template <bool kept>
void weigh_all(const float* x, int64_t tokens, float top, float temperature, float* sums, float* weight,
               float* largest) {
  const vec tops = splat(top), temperatures = splat(temperature);
  int64_t i = 0;
  for (; i + kBlock <= tokens; i += kBlock, ++sums) {
    weigh_block<kept>(x + i, tops, temperatures, sums, weight, largest);
    if constexpr (kept) weight += kBlock, ++largest;
  }
  if (i == tokens) return;
  float rest[kBlock];
  for (int64_t j = 0; j < kBlock; ++j) rest[j] = i + j < tokens ? x[i + j] : kNever;
  weigh_block<kept>(rest, tops, temperatures, sums, weight, largest);
}

void weigh(const float* x, int64_t tokens, float top, float temperature, float* sums, float* weight, float* largest) {
  if (weight == nullptr)
    weigh_all<false>(x, tokens, top, temperature, sums, nullptr, nullptr);
  else
    weigh_all<true>(x, tokens, top, temperature, sums, weight, largest);
}

}  // namespace
