// Choosing a token for each row of logits, and what the model's own distribution says of it.
#pragma once

#include <cstdint>

namespace tokenworks::sample {

constexpr int64_t kBlock = 64;  // neighbouring tokens whose weights are summed together
constexpr int64_t blocks_of(int64_t tokens) { return (tokens + kBlock - 1) / kBlock; }

struct Best {
  float value;    // −inf where every number is
  int64_t token;  // the lowest of equals
  bool ordered;   // no number is NaN
};

// The passes over a whole row.
struct Kernels {
  Best (*best)(const float* x, int64_t tokens);
  // Weights e^((x − top) / temperature), x ≤ top, summed by blocks. Unless null, `weight` (whole blocks) receives
  // them and `largest` the largest of each block.
  void (*weigh)(const float* x, int64_t tokens, float top, float temperature, float* sums, float* weight,
                float* largest);
};

const Kernels& kernels_portable();
const Kernels& kernels_avx2();
const Kernels& kernels_avx512();
const Kernels& kernels();  // for the instruction set in use

// Per row: temperature (0: the best token), top_p, min_p, top_k and the uniform random number.
struct Limits {
  float temperature, top_p, min_p, top_k, uniform;
};

// What rows change about their logits: row r the entries first[r] … first[r + 1]. An entry's `count` is how often
// its token was made; 0 where it is in the prompt alone, below 0 where it is only biased. `mask` has rows of bits,
// lowest first in a byte, one per allowed token; `mask_row` is −1 where there is none.
struct Changes {
  const int32_t *first, *token;
  const float *count, *bias;
  const float* strength;  // (rows, 3): repetition, presence, frequency
  const uint8_t* mask;
  int64_t mask_bytes;
  const int32_t* mask_row;
};

struct Call {
  const float* logits;
  int64_t stride, rows, tokens;
  const Limits* limits;
  const Changes* changes;  // or null
  int64_t* chosen;         // −1 where a row has no finite best
};
void choose(const Call& call);

struct Score {
  const float* logits;
  int64_t stride, rows, tokens;
  const int64_t* token;
  int64_t best;  // so many are named
  float* logprob;
  int64_t* best_token;  // (rows, best), lowest of equals first
  float* best_logprob;
};
void score(const Score& call);

}  // namespace tokenworks::sample
