#include "grouped_mlp.h"

#include <algorithm>

#include "activations.h"
#include "threads.h"

namespace tokenworks {
namespace {

constexpr int kBeginning = 2048;  // bytes of an expert's tiles that are asked for while another is at work

// Pairs of token and expert, sorted by expert and, within it, by token. Pairs of expert e are first[e] … first[e + 1].
struct Pairs {
  int32_t* first;
  int32_t* token;
  float* weight;
  int32_t* used;  // experts that have pairs
  int32_t* busy;  // the same, those with most pairs first
  int used_count = 0;

  void sort(const Experts& experts, const Choice& choice, int tokens) {
    const int routed = tokens * choice.chosen;
    std::fill(first, first + experts.count + 2, 0);
    int32_t* const next = first + 1;  // shifted by one: counts become starts, then ends
    for (int i = 0; i < routed; ++i) ++next[choice.experts[i] + 1];
    for (int e = experts.count - experts.shared; e < experts.count; ++e) next[e + 1] += tokens;
    for (int e = 0; e < experts.count; ++e) {
      if (next[e + 1] > 0) used[used_count++] = e;
      next[e + 1] += next[e];
    }
    for (int i = 0; i < routed; ++i) put(next[choice.experts[i]]++, i / choice.chosen, choice.weights[i]);
    for (int e = experts.count - experts.shared; e < experts.count; ++e)
      for (int t = 0; t < tokens; ++t) put(next[e]++, t, 1.0f);
    std::copy_n(used, used_count, busy);
    std::stable_sort(busy, busy + used_count, [this](int a, int b) { return count(a) > count(b); });
  }

 private:
  int count(int expert) const { return first[expert + 1] - first[expert]; }
  void put(int place, int of, float with) {
    token[place] = of;
    weight[place] = with;
  }
};

// One call: what all threads share.
class Call {
 public:
  Call(const Experts& experts, const Choice& choice, const float* x, int64_t x_stride, int tokens, float* out,
       int64_t out_stride)
      : experts_(experts),
        kernel_(kernels()),
        x_(x),
        x_stride_(x_stride),
        tokens_(tokens),
        out_(out),
        out_stride_(out_stride),
        pair_count_(tokens * (choice.chosen + experts.shared)),
        in_(experts.gate_up, tokens),
        act_(experts.down, pair_count_),
        act_groups_(act_.groups()),
        down_rows_(rows_together(act_.row_bytes())),
        down_tiles_(tokens <= 4 ? kDownTilesFew : kDownTiles),
        down_blocks_(Matrix::up(hidden_tiles(), down_tiles_)) {
    const size_t product = std::max(kGateRows * (kGateWidth + kGroup), down_rows_ * kDownWidth);
    product_bytes_ = Scratch::size<float>(product);
    Scratch& scratch = Scratch::begin();
    const size_t table = Scratch::size<int32_t>(experts.count + 2) + Scratch::size<int32_t>(pair_count_) +
                         Scratch::size<float>(pair_count_) + 2 * Scratch::size<int32_t>(experts.count);
    scratch.reserve(table + in_.bytes() + act_.bytes() +
                    Scratch::size<uint8_t>(thread_count() * product_bytes_));
    pairs_.first = scratch.take<int32_t>(experts.count + 2);
    pairs_.token = scratch.take<int32_t>(pair_count_);
    pairs_.weight = scratch.take<float>(pair_count_);
    pairs_.used = scratch.take<int32_t>(experts.count);
    pairs_.busy = scratch.take<int32_t>(experts.count);
    in_.take(scratch);
    act_.take(scratch);
    products_ = scratch.take<uint8_t>(thread_count() * product_bytes_);
    pairs_.sort(experts, choice, tokens);
  }

  void run() {
    const bool few = tokens_ <= 4;  // prepared before the threads start
    if (few) prepare(0, 1);
    // An expert of many pairs computes while one of few waits for its weights: both at a time.
    TwoEnds gates(pairs_.used_count * act_groups_);
    Queue downs(down_blocks_);
    parallel(thread_count(), [&](int thread, int team) {
      float* const y = reinterpret_cast<float*>(products_ + thread * product_bytes_);
      if (!few) {
        prepare(thread, team);
        barrier(team);
      }
      for (int item; (item = gates.take(thread % 2 != 0)) >= 0;)
        gate(pairs_.busy[item / act_groups_], item % act_groups_, y);
      barrier(team);
      for (int item; (item = downs.take()) >= 0;) down(item * down_tiles_, y);
    });
  }

 private:
  int hidden_tiles() const { return experts_.down.tiles / experts_.count; }

  void prepare(int thread, int team) const {
    for (int t = thread; t < tokens_; t += team) in_.put_row(t, x_ + t * x_stride_);
  }

  // One group of 128 activations of all pairs of an expert.
  void gate(int expert, int group, float* y) const {
    const int tiles = experts_.gate_up.tiles / experts_.count, first_tile = group * kGateTiles;
    const int count = std::min(kGateTiles, tiles - first_tile);
    float* const act = y + kGateRows * kGateWidth;
    for (int pair = pairs_.first[expert]; pair < pairs_.first[expert + 1]; pair += kGateRows) {
      const int rows = std::min(kGateRows, pairs_.first[expert + 1] - pair);
      Rows in = in_.rows();
      in.index = pairs_.token + pair;
      kernel_.multiply(experts_.gate_up, expert * tiles + first_tile, count, in, rows, y, kGateWidth);
      for (int i = 0; i < rows; ++i) {
        kernel_.gate(y + i * kGateWidth, count * kTile / 2, act);
        act_.put(pair + i, group, act);
      }
    }
  }

  // Some columns of the result: all experts in order, so that every token's sum has one order.
  void down(int first_tile, float* y) const {
    const int count = std::min(down_tiles_, hidden_tiles() - first_tile);
    const int column = first_tile * kTile, width = std::min(count * kTile, experts_.hidden - column);
    for (int used = 0; used < pairs_.used_count; ++used) {
      const int expert = pairs_.used[used], tile = expert * hidden_tiles() + first_tile;
      if (used + 1 < pairs_.used_count)
        ask_for(experts_.down.tile(pairs_.used[used + 1] * hidden_tiles() + first_tile));
      for (int pair = pairs_.first[expert]; pair < pairs_.first[expert + 1]; pair += down_rows_) {
        const int rows = std::min(down_rows_, pairs_.first[expert + 1] - pair);
        kernel_.multiply(experts_.down, tile, count, act_.rows().from(pair), rows, y, kDownWidth);
        for (int i = 0; i < rows; ++i)
          kernel_.add_scaled(out_ + pairs_.token[pair + i] * out_stride_ + column, y + i * kDownWidth,
                             pairs_.weight[pair + i], width);
      }
    }
  }

  // The processor notices by itself where reading goes on, but not where it begins.
  static void ask_for(const uint8_t* start) {
    for (int i = 0; i < kBeginning; i += 64) __builtin_prefetch(start + i);
  }

  const Experts& experts_;
  const Kernels& kernel_;
  const float* x_;
  const int64_t x_stride_;
  const int tokens_;
  float* out_;
  const int64_t out_stride_;
  const int pair_count_;
  Pairs pairs_{};
  Activations in_;
  Activations act_;
  const int act_groups_;
  const int down_rows_;
  const int down_tiles_;
  const int down_blocks_;
  size_t product_bytes_ = 0;
  uint8_t* products_ = nullptr;
};

}  // namespace

void grouped_mlp(const Experts& experts, const Choice& choice, const float* x, int64_t x_stride, int tokens,
                 float* out, int64_t out_stride) {
  if (tokens == 0 || choice.chosen + experts.shared == 0) return;
  Call(experts, choice, x, x_stride, tokens, out, out_stride).run();
}

}  // namespace tokenworks
