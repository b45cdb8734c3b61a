#include "sample.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#include "cpu.h"
#include "sample_ranking.h"
#include "threads.h"

namespace tokenworks::sample {

const Kernels& kernels() {
#if defined(__x86_64__)
  if (isa() >= Isa::avx512) return kernels_avx512();
  if (isa() >= Isa::avx2) return kernels_avx2();
#endif
  return kernels_portable();
}

namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr float kTiny = std::numeric_limits<float>::min();
constexpr int64_t kAlone = 1 << 18;  // numbers that one thread is done with about as soon as others wake up

// Memory that stays with its thread from call to call.
struct Room {
  explicit Room(int64_t tokens)
      : row(tokens), weight(blocks_of(tokens) * kBlock), sums(blocks_of(tokens)), largest(sums.size()), order(sums) {}

  static Room& of(int64_t tokens) {
    static thread_local Room room(0);
    if (static_cast<int64_t>(room.row.size()) < tokens) room = Room(tokens);
    return room;
  }

  std::vector<float> row, weight, sums, largest, order;
  Ranking ranking;
};

bool finite(const Best& best) { return best.ordered && std::isfinite(best.value); }

double sum(const float* x, int64_t count) {
  double total = 0.0;
  for (int64_t i = 0; i < count; ++i) total += x[i];
  return total;
}

// The first token at which the running sum of weights exceeds the uniform share of all of them.
int64_t draw_whole(const Kernels& k, const float* x, int64_t tokens, float top, const Limits& limits, Room& room) {
  const int64_t blocks = blocks_of(tokens);
  k.weigh(x, tokens, top, limits.temperature, room.sums.data(), nullptr, nullptr);
  const double target = limits.uniform * sum(room.sums.data(), blocks);
  double before = 0.0;
  int64_t block = 0;
  while (block < blocks - 1 && before + room.sums[block] <= target) before += room.sums[block++];
  const int64_t first = block * kBlock, count = std::min(kBlock, tokens - first);
  float weight[kBlock], ignored[2];
  k.weigh(x + first, count, top, limits.temperature, ignored, weight, ignored + 1);
  int64_t token = first;
  for (int64_t i = 0; i < count; ++i) {
    if (weight[i] == 0.0f) continue;
    token = first + i;  // the last one where rounding leaves the sum short of the block's
    before += weight[i];
    if (before > target) break;
  }
  return token;
}

// A weight that no token of the kept ones is below.
float least_weight(const Limits& limits, int64_t tokens, double total, Room& room) {
  const int64_t blocks = blocks_of(tokens);
  if (limits.top_k > 0) {
    if (limits.top_k > static_cast<float>(blocks)) return kTiny;
    // as many blocks as tokens are kept have one of this weight
    float* const order = room.order.data();
    float* const place = order + static_cast<int64_t>(limits.top_k) - 1;
    std::copy_n(room.largest.data(), blocks, order);
    std::nth_element(order, place, order + blocks, std::greater<>());
    return std::max(kTiny, *place);
  }
  // all tokens below this together weigh less than what top_p leaves out
  const double by_mass = limits.top_p < 1 ? 0.999 * (1.0 - limits.top_p) * total / static_cast<double>(tokens) : 0.0;
  return std::max({kTiny, static_cast<float>(by_mass), std::min(limits.min_p, 1.0f)});
}

int64_t draw_cut(const Kernels& k, const float* x, int64_t tokens, float top, const Limits& limits, Room& room) {
  k.weigh(x, tokens, top, limits.temperature, room.sums.data(), room.weight.data(), room.largest.data());
  double total = sum(room.sums.data(), blocks_of(tokens));
  const double all = std::numeric_limits<double>::infinity();
  int64_t count = tokens;
  Ranking& ranking = room.ranking;
  ranking.begin(room.weight.data(), room.largest.data(), tokens, least_weight(limits, tokens, total, room));
  if (limits.top_k > 0) {
    count = static_cast<int64_t>(std::min(limits.top_k, static_cast<float>(tokens)));
    total = ranking.find({count, all, false}).mass;
    if (limits.min_p > 0) ranking.drop_below(std::min(limits.min_p, 1.0f));
  }
  const Place last = ranking.find({count, limits.top_p < 1 ? limits.top_p * total : all, false});
  return ranking.find({last.count, limits.uniform * last.mass, true}).token;
}

// Penalties and biases at their few places, then the mask.
void change(float* x, int64_t tokens, const Changes& changes, int64_t row) {
  const float* const strength = changes.strength + row * 3;
  for (int64_t i = changes.first[row]; i < changes.first[row + 1]; ++i) {
    float& value = x[changes.token[i]];
    const float count = changes.count[i];
    if (count >= 0) {
      value = value > 0 ? value / strength[0] : value * strength[0];
      value -= (count > 0 ? strength[1] : 0.0f) + strength[2] * count;
    }
    value += changes.bias[i];
  }
  if (changes.mask == nullptr || changes.mask_row[row] < 0) return;
  const uint8_t* const mask = changes.mask + changes.mask_row[row] * changes.mask_bytes;
  for (int64_t first = 0; first < tokens; first += 8) {
    const unsigned bits = first / 8 < changes.mask_bytes ? mask[first / 8] : 0;
    if (bits == 0xff) continue;
    const int64_t end = std::min(tokens, first + 8);
    for (int64_t token = first; token < end; ++token)
      if ((bits >> (token - first) & 1) == 0) x[token] = kNever;
  }
}

bool changes_row(const Changes* changes, int64_t row) {
  return changes != nullptr && (changes->first[row] < changes->first[row + 1] ||
                                (changes->mask != nullptr && changes->mask_row[row] >= 0));
}

int64_t choose_row(const Kernels& k, const Call& call, int64_t row) {
  const float* x = call.logits + row * call.stride;
  Best best = k.best(x, call.tokens);
  if (!finite(best)) return -1;
  Room& room = Room::of(call.tokens);
  if (changes_row(call.changes, row)) {
    std::memcpy(room.row.data(), x, call.tokens * sizeof(float));
    change(room.row.data(), call.tokens, *call.changes, row);
    x = room.row.data();
    best = k.best(x, call.tokens);
    if (!finite(best)) return -1;
  }
  const Limits& limits = call.limits[row];
  if (limits.temperature <= 0) return best.token;
  const bool cut = limits.top_k > 0 || limits.top_p < 1 || limits.min_p > 0;
  return (cut ? draw_cut : draw_whole)(k, x, call.tokens, best.value, limits, room);
}

// Whether one of a block's numbers is above `least`; written so that compilers take many at once.
bool any_above(const float* x, int64_t count, float least) {
  int above = 0;
  for (int64_t i = 0; i < count; ++i) above |= x[i] > least;
  return above != 0;
}

// The `best` largest, those before equals that come later.
void name_best(const Score& call, const float* x, float total, int64_t row) {
  int64_t* const token = call.best_token + row * call.best;
  float* const value = call.best_logprob + row * call.best;
  int64_t count = 0;
  const auto take = [&](int64_t i) {
    if (count == call.best && !(x[i] > value[count - 1])) return;
    int64_t place = count < call.best ? count++ : count - 1;
    for (; place > 0 && x[i] > value[place - 1]; --place) {
      value[place] = value[place - 1];
      token[place] = token[place - 1];
    }
    value[place] = x[i];
    token[place] = i;
  };
  for (int64_t first = 0; first < call.tokens; first += kBlock) {
    const int64_t end = std::min(call.tokens, first + kBlock);
    if (count == call.best && !any_above(x + first, end - first, value[count - 1])) continue;
    for (int64_t i = first; i < end; ++i) take(i);
  }
  for (int64_t i = 0; i < count; ++i) value[i] -= total;
}

void score_row(const Kernels& k, const Score& call, int64_t row) {
  const float* const x = call.logits + row * call.stride;
  Room& room = Room::of(call.tokens);
  const Best best = k.best(x, call.tokens);
  k.weigh(x, call.tokens, best.value, 1.0f, room.sums.data(), nullptr, nullptr);
  const double weights = sum(room.sums.data(), blocks_of(call.tokens));
  const float total = static_cast<float>(best.value + std::log(weights));
  call.logprob[row] = x[call.token[row]] - total;
  if (call.best > 0) name_best(call, x, total, row);
}

template <class Row>
void each_row(int64_t rows, int64_t tokens, const Row& body) {
  Queue queue(static_cast<int>(rows));
  parallel(rows * tokens < kAlone ? 1 : static_cast<int>(rows), [&](int, int) {
    for (int row; (row = queue.take()) >= 0;) body(row);
  });
}

}  // namespace

void choose(const Call& call) {
  const Kernels& k = kernels();
  each_row(call.rows, call.tokens, [&](int64_t row) { call.chosen[row] = choose_row(k, call, row); });
}

void score(const Score& call) {
  const Kernels& k = kernels();
  each_row(call.rows, call.tokens, [&](int64_t row) { score_row(k, call, row); });
}

}  // namespace tokenworks::sample
