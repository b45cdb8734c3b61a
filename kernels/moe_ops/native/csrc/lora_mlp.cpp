// Gated MLPs of chosen experts with low-rank changes. The order of work, and so of every sum, is that of
// grouped_mlp.cpp; where that has a product, here what the changes add comes next.
#include <algorithm>
#include <vector>

#include "activations.h"
#include "lora.h"
#include "threads.h"

namespace tokenworks::lora {
namespace {

constexpr int kShrinkRows = 24;

enum Side { gate = 0, up = 1, down = 2 };

struct Pair {
  int32_t token;
  float weight;
  const Change* changes;  // of the three sides
};

// Pairs of one expert that follow each other and have the same changes.
struct Run {
  int first, end;
  const Change* changes;
};

struct Shrink {
  int first, rows;  // pairs
  Side side;
  int tile;
};

bool same(const Change& a, const Change& b) { return a.rank == b.rank && a.a == b.a && a.b == b.b; }

bool same(const Change* a, const Change* b) {
  return same(a[gate], b[gate]) && same(a[up], b[up]) && same(a[down], b[down]);
}

bool any(const Change* c) { return c[gate].rank > 0 || c[up].rank > 0 || c[down].rank > 0; }

// All pairs sorted by expert and, within it, by token; pairs of expert e are first[e] … first[e + 1].
struct Sorted {
  std::vector<Pair> pairs;
  std::vector<int32_t> token;  // as in pairs, side by side
  std::vector<int> first, used;
  std::vector<Run> runs;       // runs of expert e are run_first[e] … run_first[e + 1]
  std::vector<int> run_first;
  std::vector<Shrink> before, between;  // the gate's products, and those and down's
  int low = 0;                          // numbers of a pair's A x, the most of any

  Sorted(const Experts& experts, const Choice& choice, const Change* changes, int tokens)
      : first(experts.count + 1), run_first(experts.count + 1) {
    const int each = choice.chosen + experts.shared;
    for (int t = 0; t < tokens; ++t)
      for (int k = 0; k < each; ++k) ++first[expert_of(experts, choice, t, k) + 1];
    for (int e = 0; e < experts.count; ++e) {
      if (first[e + 1] > 0) used.push_back(e);
      first[e + 1] += first[e];
    }
    pairs.resize(static_cast<size_t>(tokens) * each);
    std::vector<int> next(first.begin(), first.end() - 1);
    for (int t = 0; t < tokens; ++t)
      for (int k = 0; k < each; ++k) {
        const float weight = k < choice.chosen ? choice.weights[t * choice.chosen + k] : 1.0f;
        pairs[next[expert_of(experts, choice, t, k)]++] = {t, weight, changes + static_cast<size_t>(t * each + k) * kSides};
      }
    for (const Pair& pair : pairs) token.push_back(pair.token);
    for (int e = 0; e < experts.count; ++e) {
      find_runs(e);
      run_first[e + 1] = static_cast<int>(runs.size());
    }
  }

 private:
  void find_runs(int expert) {
    for (int pair = first[expert]; pair < first[expert + 1];) {
      const Change* const changes = pairs[pair].changes;
      int end = pair + 1;
      while (end < first[expert + 1] && same(changes, pairs[end].changes)) ++end;
      if (any(changes)) {
        runs.push_back({pair, end, changes});
        for (const Side side : {gate, up, down}) shrink(runs.back(), side);
      }
      pair = end;
    }
  }

  void shrink(const Run& run, Side side) {
    const int tiles = run.changes[side].tiles();
    low = std::max(low, tiles * kTile);
    for (int row = run.first; row < run.end; row += kShrinkRows)
      for (int tile = 0; tile < tiles; ++tile)
        (side == down ? between : before).push_back({row, std::min(kShrinkRows, run.end - row), side, tile});
  }
};

class Call {
 public:
  Call(const Experts& experts, const Choice& choice, const Change* changes, const float* x, int64_t x_stride,
       int tokens, float* out, int64_t out_stride)
      : experts_(experts),
        kernel_(kernels()),
        sorted_(experts, choice, changes, tokens),
        x_(x),
        x_stride_(x_stride),
        tokens_(tokens),
        out_(out),
        out_stride_(out_stride),
        pair_count_(sorted_.pairs.size()),
        in_(experts.gate_up, tokens),
        act_(experts.down, static_cast<int>(pair_count_)),
        down_rows_(rows_together(act_.row_bytes())),
        down_tiles_(tokens <= 4 ? kDownTilesFew : kDownTiles),
        act_stride_(sorted_.between.empty() ? 0 : act_.groups() * kGroup) {
    const size_t product = std::max(kGateRows * (kGateWidth + 2 * kGroup), 2 * down_rows_ * kDownWidth);
    product_bytes_ = Scratch::size<float>(product);
    const size_t low = Scratch::size<float>(pair_count_ * sorted_.low);
    Scratch& scratch = Scratch::begin();
    scratch.reserve(in_.bytes() + act_.bytes() + kSides * low + Scratch::size<float>(pair_count_ * act_stride_) +
                    Scratch::size<uint8_t>(thread_count() * product_bytes_));
    in_.take(scratch);
    act_.take(scratch);
    for (float*& side : low_) side = scratch.take<float>(pair_count_ * sorted_.low);
    acts_ = scratch.take<float>(pair_count_ * act_stride_);
    products_ = scratch.take<uint8_t>(thread_count() * product_bytes_);
  }

  void run() {
    const auto count = [](const auto& items) { return static_cast<int>(items.size()); };
    Queue before(count(sorted_.before)), gates(count(sorted_.used) * act_.groups());
    Queue between(count(sorted_.between)), downs(Matrix::up(hidden_tiles(), down_tiles_));
    parallel(thread_count(), [&](int thread, int team) {
      float* const y = reinterpret_cast<float*>(products_ + thread * product_bytes_);
      for (int t = thread; t < tokens_; t += team) in_.put_row(t, x_ + t * x_stride_);
      for (int item; (item = before.take()) >= 0;) shrink(sorted_.before[item]);
      barrier(team);
      for (int item; (item = gates.take()) >= 0;)
        activate(sorted_.used[item / act_.groups()], item % act_.groups(), y);
      barrier(team);
      if (!sorted_.between.empty()) {
        for (int item; (item = between.take()) >= 0;) shrink(sorted_.between[item]);
        barrier(team);
      }
      for (int item; (item = downs.take()) >= 0;) finish(item * down_tiles_, y);
    });
  }

 private:
  int hidden_tiles() const { return experts_.down.tiles / experts_.count; }

  // One tile of A, times tokens for gate and up, times activations for down.
  void shrink(const Shrink& s) const {
    const Change& change = sorted_.pairs[s.first].changes[s.side];
    Rows rows;
    if (s.side == down) {
      rows.x = acts_ + s.first * act_stride_;
      rows.x_stride = act_stride_;
    } else {
      rows.x = x_;
      rows.x_stride = static_cast<size_t>(x_stride_);
      rows.index = sorted_.token.data() + s.first;
    }
    float* const low = low_[s.side] + static_cast<size_t>(s.first) * sorted_.low + s.tile * kTile;
    kernel_.multiply(change.a_tile(s.tile), 0, 1, rows, s.rows, low, static_cast<size_t>(sorted_.low));
  }

  // Calls add(row, product, width) for each of `rows` pairs from `pair` on that has a change, with what `count` tiles
  // of B give.
  template <class Add>
  void expand(Side side, int expert, int pair, int rows, int first_tile, int count, float* product,
              const Add& add) const {
    for (int r = sorted_.run_first[expert]; r < sorted_.run_first[expert + 1]; ++r) {
      const Run& run = sorted_.runs[r];
      const int first = std::max(run.first, pair), end = std::min(run.end, pair + rows);
      if (first >= end || run.changes[side].rank == 0) continue;
      Rows low;
      low.x = low_[side] + static_cast<size_t>(first) * sorted_.low;
      low.x_stride = static_cast<size_t>(sorted_.low);
      const size_t width = static_cast<size_t>(count) * kTile;
      kernel_.multiply(run.changes[side].whole_b(), first_tile, count, low, end - first, product, width);
      for (int i = first; i < end; ++i) add(i - pair, product + (i - first) * width);
    }
  }

  // One group of 128 activations of all pairs of an expert.
  void activate(int expert, int group, float* y) const {
    const int tiles = experts_.gate_up.tiles / experts_.count, first_tile = group * kGateTiles;
    const int count = std::min(kGateTiles, tiles - first_tile), half = count / 2;
    float* const product = y + kGateRows * kGateWidth;
    float* const act = product + kGateRows * kGroup;
    for (int pair = sorted_.first[expert]; pair < sorted_.first[expert + 1]; pair += kGateRows) {
      const int rows = std::min(kGateRows, sorted_.first[expert + 1] - pair);
      Rows in = in_.rows();
      in.index = sorted_.token.data() + pair;
      kernel_.multiply(experts_.gate_up, expert * tiles + first_tile, count, in, rows, y, kGateWidth);
      for (const Side side : {gate, up})  // which take turns in y, a tile each
        expand(side, expert, pair, rows, first_tile / 2, half, product, [&](int row, const float* more) {
          float* const target = y + row * kGateWidth + side * kTile;
          for (int tile = 0; tile < half; ++tile)
            for (int c = 0; c < kTile; ++c) target[tile * 2 * kTile + c] += more[tile * kTile + c];
        });
      for (int i = 0; i < rows; ++i) {
        kernel_.gate(y + i * kGateWidth, half * kTile, act);
        act_.put(pair + i, group, act);
        if (act_stride_ > 0) std::copy_n(act, half * kTile, acts_ + (pair + i) * act_stride_ + group * kGroup);
      }
    }
  }

  // Some columns of the result: all experts in order, so that every token's sum has one order.
  void finish(int first_tile, float* y) const {
    const int count = std::min(down_tiles_, hidden_tiles() - first_tile);
    const int column = first_tile * kTile, width = std::min(count * kTile, experts_.hidden - column);
    float* const product = y + down_rows_ * kDownWidth;
    for (const int expert : sorted_.used)
      for (int pair = sorted_.first[expert]; pair < sorted_.first[expert + 1]; pair += down_rows_) {
        const int rows = std::min(down_rows_, sorted_.first[expert + 1] - pair);
        const int tile = expert * hidden_tiles() + first_tile;
        kernel_.multiply(experts_.down, tile, count, act_.rows().from(pair), rows, y, kDownWidth);
        expand(down, expert, pair, rows, first_tile, count, product, [&](int row, const float* more) {
          for (int c = 0; c < width; ++c) y[row * kDownWidth + c] += more[c];
        });
        for (int i = 0; i < rows; ++i)
          kernel_.add_scaled(out_ + sorted_.token[pair + i] * out_stride_ + column, y + i * kDownWidth,
                             sorted_.pairs[pair + i].weight, width);
      }
  }

  const Experts& experts_;
  const Kernels& kernel_;
  const Sorted sorted_;
  const float* x_;
  const int64_t x_stride_;
  const int tokens_;
  float* out_;
  const int64_t out_stride_;
  const size_t pair_count_;
  Activations in_;
  Activations act_;
  const int down_rows_;
  const int down_tiles_;
  const size_t act_stride_;  // 0: activations are not wanted as they are
  float* low_[kSides] = {};
  float* acts_ = nullptr;
  size_t product_bytes_ = 0;
  uint8_t* products_ = nullptr;
};

}  // namespace

void mlp(const Experts& experts, const Choice& choice, const Change* changes, const float* x, int64_t x_stride,
         int tokens, float* out, int64_t out_stride) {
  if (tokens == 0 || choice.chosen + experts.shared == 0) return;
  Call(experts, choice, changes, x, x_stride, tokens, out, out_stride).run();
}

}  // namespace tokenworks::lora
