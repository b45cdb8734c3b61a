// Choice of experts: scores in float32, ties to the lowest number.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "attention.h"
#include "small_ops.h"
#include "threads.h"

namespace tokenworks::small_ops {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr float kSumEpsilon = 1e-20f;
constexpr int64_t kTokens = 8;       // tokens of one piece of work
constexpr int64_t kAlone = 1 << 18;  // products that one thread is done with sooner than others wake up

// Scores of a token, and what they are compared by.
struct Choice {
  explicit Choice(const Route& call) : scores(call.experts), by(call.experts), best(call.groups) {}
  std::vector<float> scores, by, best;
};

void softmax(std::vector<float>& x) {
  const float top = *std::max_element(x.begin(), x.end());
  float sum = 0.0f;
  for (float& value : x) sum += value = std::exp(value - top);
  for (float& value : x) value /= sum;
}

// The largest of [first, end) that is not taken yet; NaN counts as largest, as in torch. −1: none is left.
int64_t largest(const std::vector<float>& x, int64_t first, int64_t end, const std::vector<bool>& taken) {
  int64_t best = -1;
  for (int64_t i = first; i < end; ++i)
    if (!taken[i] && (best < 0 || x[i] > x[best] || (x[i] != x[i] && x[best] == x[best]))) best = i;
  return best;
}

void keep_best_groups(const Route& call, Choice& choice) {
  const int64_t size = call.experts / call.groups, counted = std::min<int64_t>(call.bias ? 2 : 1, size);
  std::vector<bool> taken(call.experts), kept(call.groups);
  for (int64_t group = 0; group < call.groups; ++group) {
    choice.best[group] = 0.0f;
    for (int64_t i = 0; i < counted; ++i) {
      const int64_t expert = largest(choice.by, group * size, (group + 1) * size, taken);
      taken[expert] = true;
      choice.best[group] += choice.by[expert];
    }
  }
  for (int64_t i = 0; i < call.groups_kept; ++i) kept[largest(choice.best, 0, call.groups, kept)] = true;
  for (int64_t expert = 0; expert < call.experts; ++expert)
    if (!kept[expert / size]) choice.by[expert] = kNever;
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
  std::vector<bool> taken(call.experts);
  float* weights = call.weights + token * call.top_k;
  float sum = 0.0f;
  for (int64_t k = 0; k < call.top_k; ++k) {
    const int64_t expert = largest(choice.by, 0, call.experts, taken);
    taken[expert] = true;
    call.chosen[token * call.top_k + k] = expert;
    weights[k] = choice.by[expert] == kNever ? 0.0f : choice.scores[expert];
    sum += weights[k];
  }
  for (int64_t k = 0; k < call.top_k; ++k)
    weights[k] = (call.normalize ? weights[k] / (sum + kSumEpsilon) : weights[k]) * call.scale;
}

}  // namespace

void route(const Route& call) {
  const int64_t pieces = (call.tokens + kTokens - 1) / kTokens;
  const bool alone = call.tokens * call.experts * call.width < kAlone;
  Queue queue(static_cast<int>(pieces));
  parallel(alone ? 1 : static_cast<int>(pieces), [&](int, int) {
    Choice choice(call);
    std::vector<float> logits(kTokens * call.experts);
    for (int piece; (piece = queue.take()) >= 0;) {
      const int64_t first = piece * kTokens, count = std::min(kTokens, call.tokens - first);
      attention::kernels().dots(call.x + first * call.width, count, call.weight, call.width, call.experts,
                                logits.data(), call.experts);
      for (int64_t t = 0; t < count; ++t) {
        std::copy_n(logits.data() + t * call.experts, call.experts, choice.scores.data());
        choose(call, first + t, choice);
      }
    }
  });
}

}  // namespace tokenworks::small_ops
