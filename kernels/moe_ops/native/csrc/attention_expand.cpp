// Attention of many new tokens: keys and values of all heads are made from the latents, some context at a time.
#include <algorithm>

#include "attention.h"
#include "attention_heads.h"
#include "attention_memory.h"
#include "threads.h"

namespace tokenworks::attention {
namespace {

constexpr int64_t kQueries = 128;  // that pass a head's context together, from the second-level cache
constexpr int64_t kPiece = 512;  // positions expanded at a time, so that memory does not grow with the context

// Context positions [first, first + count), expanded by all threads and then seen by all queries.
class PieceRun {
 public:
  PieceRun(const Expand& call, int64_t first, float* partials)
      : call_(call),
        k_(kernels()),
        first_(first),
        count_(std::min(kPiece, call.start + call.tokens - first)),
        blocks_((count_ + kBlock - 1) / kBlock),
        query_blocks_((call.tokens + kQueries - 1) / kQueries),
        query_(call.nope + call.rotary),
        both_(call.nope + call.value_width),
        partials_(partials),
        activations_(call.kv_b, static_cast<int>(count_)),
        read_(static_cast<int>(blocks_)),
        make_(static_cast<int>(call.heads * blocks_)),
        attend_(static_cast<int>(call.heads * query_blocks_)) {
    static thread_local Memory memory;
    panels_ = memory.of(call.heads * blocks_ * block_floats());
    Scratch& scratch = Scratch::begin();
    scratch.reserve(activations_.bytes());
    activations_.take(scratch);
  }

  static int64_t partial_floats(const Expand& call) {
    return kQueries * (2 + padded(call.value_width));
  }

  void operator()(int team) {
    static thread_local Memory thread_memory;
    float* const memory = thread_memory.of(std::max(kBlock * (both_ + kColumns) + padded(call_.cache.latent),
                                                    kQueries * (query_ + 1) + kBlock * kLanes));
    for (int block; (block = read_.take()) >= 0;) read(block, memory);
    barrier(team);
    for (int next; (next = make_.take()) >= 0;) make(next / blocks_, next % blocks_, memory);
    barrier(team);
    // Long ones first, so that threads end together; a head's context stays near while its queries pass.
    for (int next; (next = attend_.take()) >= 0;)
      attend(next / query_blocks_, query_blocks_ - 1 - next % query_blocks_, memory);
  }

 private:
  int64_t block_floats() const { return (panels(query_) + panels(call_.value_width)) * kPanel; }
  float* block_of(int64_t head, int64_t block) const {
    return panels_ + (head * blocks_ + block) * block_floats();
  }
  int64_t positions(int64_t block) const { return std::min<int64_t>(kBlock, count_ - block * kBlock); }

  // Latents of a block, as the products meet them.
  void read(int64_t block, float* row) {
    const int64_t begin = block * kBlock;
    for (int64_t i = begin; i < begin + positions(block); ++i) {
      k_.read(call_.cache, call_.pages, first_ + i, call_.cache.latent, row);
      activations_.put_row(static_cast<size_t>(i), row);
    }
  }

  // One head's keys and values of a block.
  void make(int64_t head, int64_t block, float* both) {
    float* const keys = block_of(head, block);
    float* const values = keys + panels(query_) * kPanel;
    const int64_t count = positions(block), begin = block * kBlock;
    multiply_outputs(call_.kv_b, head * both_, both_, activations_.rows().from(static_cast<int>(begin)),
                     static_cast<int>(count), both, both_, both + kBlock * both_);
    k_.spread(both, both_, count, call_.nope, 0, keys);
    k_.gather(call_.cache, call_.pages, first_ + begin, count, call_.cache.latent, call_.rotary, call_.nope, keys);
    k_.spread(both + call_.nope, both_, count, call_.value_width, 0, values);
  }

  // Some queries of one head.
  void attend(int64_t head, int64_t query_block, float* turned) {
    const int64_t token = query_block * kQueries, count = std::min(kQueries, call_.tokens - token);
    float* const scores = turned + kQueries * query_;
    int32_t* const seen = reinterpret_cast<int32_t*>(scores + kBlock * kLanes);
    for (int64_t from = 0; from < count; from += kLanes) {
      const int64_t lanes = std::min<int64_t>(kLanes, count - from);
      const float* rows[kLanes];
      for (int64_t i = 0; i < lanes; ++i)
        rows[i] = call_.q + (token + from + i) * call_.q_stride + head * query_;
      k_.turn(rows, lanes, query_, call_.scale, turned + from * query_);
    }
    const Partial partial = partial_of(head, query_block);
    if (first_ == 0) k_.clear(partial, count, call_.value_width);
    for (int64_t block = 0; block < blocks_; ++block) {
      const int64_t own = call_.start + token - first_ - block * kBlock;  // the first query's place in the block
      if (own + count <= 0) break;
      for (int64_t i = 0; i < padded(count); ++i)
        seen[i] = static_cast<int32_t>(
            std::clamp<int64_t>(own + 1 + std::min(i, count - 1), 0, positions(block)));
      const float* const keys = block_of(head, block);
      const Block context{keys, keys + panels(query_) * kPanel, query_, call_.value_width};
      k_.attend(context, {turned, seen, count}, partial, scores);
    }
    if (first_ + count_ < call_.start + call_.tokens) return;
    k_.finish(partial, 0, count, call_.value_width, call_.value_width,
              call_.out + (token * call_.heads + head) * call_.value_width, call_.heads * call_.value_width);
  }

  Partial partial_of(int64_t head, int64_t query_block) const {
    float* const at = partials_ + (head * query_blocks_ + query_block) * partial_floats(call_);
    return {at, at + kQueries, at + 2 * kQueries};
  }

  const Expand& call_;
  const Kernels& k_;
  const int64_t first_, count_, blocks_, query_blocks_, query_, both_;
  float* const partials_;
  Activations activations_;
  Queue read_, make_, attend_;
  float* panels_;
};

}  // namespace

void expand(const Expand& call) {
  static thread_local Memory memory;
  const int64_t query_blocks = (call.tokens + kQueries - 1) / kQueries;
  float* const partials = memory.of(call.heads * query_blocks * PieceRun::partial_floats(call));
  for (int64_t first = 0; first < call.start + call.tokens; first += kPiece) {
    PieceRun run(call, first, partials);
    parallel(thread_count(), [&](int, int team) { run(team); });
  }
}

}  // namespace tokenworks::attention
