// Choice of experts: scores in float32, ties to the lowest number.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "attention.h"
#include "scratch.h"
#include "small_ops.h"
#include "threads.h"

namespace tokenworks::small_ops {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr float kSumEpsilon = 1e-20f;
constexpr int64_t kTokens = 48;      // of one piece of work, at most
constexpr int64_t kExperts = 32;     // whose scores are one piece of work
constexpr int64_t kAlone = 1 << 18;  // products that one thread is done with sooner than others wake up

// Scores of a token, and what they are compared by.
struct Choice {
  explicit Choice(const Route& call)
      : scores(call.experts), by(call.experts), best(call.groups), kept(call.groups), places(call.groups_kept) {}
  std::vector<float> scores, by, best;
  std::vector<bool> kept;
  std::vector<int64_t> places;
};

void softmax(std::vector<float>& x) {
  const float top = *std::max_element(x.begin(), x.end());
  float sum = 0.0f;
  for (float& value : x) sum += value = std::exp(value - top);
  for (float& value : x) value /= sum;
}

// NaN counts as largest, as in torch.
bool larger(float a, float b) { return a > b || (a != a && b == b); }

// The places of the `count` largest of [first, end), the largest and among equals the lowest first.
void largest(const std::vector<float>& x, int64_t first, int64_t end, int64_t count, int64_t* places) {
  int64_t found = 0;
  for (int64_t i = first; i < end; ++i) {
    if (found == count && !larger(x[i], x[places[count - 1]])) continue;
    int64_t at = found < count ? found++ : count - 1;
    for (; at > 0 && larger(x[i], x[places[at - 1]]); --at) places[at] = places[at - 1];
    places[at] = i;
  }
}

void keep_best_groups(const Route& call, Choice& choice) {
  const int64_t size = call.experts / call.groups, counted = std::min<int64_t>(call.bias ? 2 : 1, size);
  for (int64_t group = 0; group < call.groups; ++group) {
    int64_t experts[2];
    largest(choice.by, group * size, (group + 1) * size, counted, experts);
    choice.best[group] = 0.0f;
    for (int64_t i = 0; i < counted; ++i) choice.best[group] += choice.by[experts[i]];
  }
  largest(choice.best, 0, call.groups, call.groups_kept, choice.places.data());
  choice.kept.assign(call.groups, false);
  for (const int64_t group : choice.places) choice.kept[group] = true;
  for (int64_t expert = 0; expert < call.experts; ++expert)
    if (!choice.kept[expert / size]) choice.by[expert] = kNever;
}

void choose(const Route& call, int64_t token, Choice& choice) {
  if (call.sigmoid)
    for (float& score : choice.scores) score = 1.0f / (1.0f + std::exp(-score));
  else
    softmax(choice.scores);
  const bool* allowed = call.allowed ? call.allowed + token * call.allowed_stride : nullptr;
  for (int64_t expert = 0; expert < call.experts; ++expert) {
    choice.by[expert] = choice.scores[expert] + (call.bias ? call.bias[expert] : 0.0f);
    if (allowed && !allowed[expert]) choice.by[expert] = kNever;
  }
  if (call.groups_kept < call.groups) keep_best_groups(call, choice);
  float* const weights = call.weights + token * call.top_k;
  int64_t* const chosen = call.chosen + token * call.top_k;
  largest(choice.by, 0, call.experts, call.top_k, chosen);
  float sum = 0.0f;
  for (int64_t k = 0; k < call.top_k; ++k) {
    const int64_t expert = chosen[k];
    weights[k] = choice.by[expert] == kNever ? 0.0f : choice.scores[expert];
    sum += weights[k];
  }
  for (int64_t k = 0; k < call.top_k; ++k)
    weights[k] = (call.normalize ? weights[k] / (sum + kSumEpsilon) : weights[k]) * call.scale;
}

int64_t up(int64_t count, int64_t multiple) { return (count + multiple - 1) / multiple; }

// Tokens of a piece of work, so that all threads have as many pieces.
int64_t chunk_of(int64_t tokens, int threads) {
  return up(tokens, up(up(tokens, kTokens), threads) * threads);
}

}  // namespace

void route(const Route& call) {
  if (call.tokens == 0) return;
  const bool alone = call.tokens * call.experts * call.width < kAlone;
  const int threads = alone ? 1 : thread_count();
  const int64_t chunk = chunk_of(call.tokens, threads), chunks = up(call.tokens, chunk);
  const int64_t blocks = up(call.experts, kExperts);
  const size_t sums = Scratch::size<float>(chunk * kExperts * attention::kLanes);
  Scratch& scratch = Scratch::begin();
  scratch.reserve(Scratch::size<float>(call.tokens * call.experts) + Scratch::size<uint8_t>(threads * sums));
  float* const logits = scratch.take<float>(call.tokens * call.experts);
  uint8_t* const room = scratch.take<uint8_t>(threads * sums);
  Queue products(static_cast<int>(chunks * blocks)), choices(static_cast<int>(chunks));
  parallel(threads, [&](int thread, int team) {
    for (int piece; (piece = products.take()) >= 0;) {
      const int64_t token = piece / blocks * chunk, expert = piece % blocks * kExperts;
      attention::kernels().dots(call.x + token * call.width, std::min(chunk, call.tokens - token),
                                call.weight + expert * call.width, call.width,
                                std::min(kExperts, call.experts - expert),
                                reinterpret_cast<float*>(room + thread * sums),
                                logits + token * call.experts + expert, call.experts);
    }
    barrier(team);
    Choice choice(call);
    for (int piece; (piece = choices.take()) >= 0;)
      for (int64_t token = piece * chunk; token < std::min(call.tokens, (piece + 1) * chunk); ++token) {
        std::copy_n(logits + token * call.experts, call.experts, choice.scores.data());
        choose(call, token, choice);
      }
  });
}

}  // namespace tokenworks::small_ops
