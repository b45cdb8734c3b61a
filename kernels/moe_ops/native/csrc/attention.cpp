// Decode attention: which thread computes what. Numbers do not depend on it.
#include "attention.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "attention_heads.h"
#include "cpu.h"
#include "threads.h"

namespace tokenworks::attention {

const Kernels& kernels() {
#if defined(__x86_64__)
  if (isa() >= Isa::avx512) return kernels_avx512();
  if (isa() >= Isa::avx2) return kernels_avx2();
#endif
  return kernels_portable();
}

namespace {

constexpr int64_t kHeads = 16;    // heads that share one reading of the context
constexpr int64_t kVectors = 32;  // queries × heads that fit the second-level cache beside a block of context

// Memory that stays with its thread from call to call and only grows.
class Memory {
 public:
  float* of(int64_t floats) {
    if (floats > size_) {
      memory_.reset(static_cast<float*>(::operator new[](floats * sizeof(float), std::align_val_t{64})));
      size_ = floats;
    }
    return memory_.get();
  }

 private:
  struct Free {
    void operator()(float* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  std::unique_ptr<float, Free> memory_;
  int64_t size_ = 0;
};

// Some queries and heads of one row, and where its chunks' results begin when threads share them.
struct Unit {
  int64_t row, token, tokens, head, heads, end, chunks, partial;
};

struct Task {
  int64_t unit, chunk;  // chunk −1: all of them, one after the other
};

class Plan {
 public:
  Plan(const Decode& call, int threads) {
    const int64_t goal = threads;
    int64_t heads = std::min(call.heads, kHeads);
    cut(call, heads);
    while (heads > 4 && works() < goal) cut(call, heads /= 2);
    shared_ = static_cast<int64_t>(units_.size()) < goal;
    for (int64_t u = 0; u < static_cast<int64_t>(units_.size()); ++u) {
      Unit& unit = units_[u];
      if (!shared_ || unit.chunks == 1) {
        tasks_.push_back({u, -1});
        continue;
      }
      unit.partial = vectors_;
      vectors_ += unit.chunks * unit.tokens * unit.heads;
      for (int64_t chunk = 0; chunk < unit.chunks; ++chunk) tasks_.push_back({u, chunk});
    }
  }

  const std::vector<Unit>& units() const { return units_; }
  const std::vector<Task>& tasks() const { return tasks_; }
  int64_t shared_vectors() const { return vectors_; }

 private:
  void cut(const Decode& call, int64_t heads) {
    units_.clear();
    const Rows& rows = call.rows;
    const int64_t most = std::max<int64_t>(1, kVectors / heads);
    for (int64_t row = 0; row < rows.batch; ++row)
      for (int64_t token = 0; token < rows.count[row]; token += most)
        for (int64_t head = 0; head < call.heads; head += heads) {
          const int64_t tokens = std::min<int64_t>(most, rows.count[row] - token);
          const int64_t end = rows.end[row] - rows.count[row] + token + tokens;
          units_.push_back({row, rows.first[row] + token, tokens, head, std::min(heads, call.heads - head), end,
                            (end + kChunk - 1) / kChunk, -1});
        }
  }

  int64_t works() const {
    int64_t chunks = 0;
    for (const Unit& unit : units_) chunks += unit.chunks;
    return chunks;
  }

  std::vector<Unit> units_;
  std::vector<Task> tasks_;
  bool shared_ = false;
  int64_t vectors_ = 0;
};

// The steps of one call; each is a queue of pieces that any thread may take.
class Run {
 public:
  Run(const Decode& call, int threads)
      : call_(call),
        k_(kernels()),
        plan_(call, threads),
        padded_(padded_latent(call.cache.latent)),
        row_(padded_row(call.cache.width, call.cache.latent)),
        parts_((call.cache.latent + kColumns - 1) / kColumns),
        absorb_(static_cast<int>(call.heads * parts_)),
        attend_(static_cast<int>(plan_.tasks().size())),
        merge_(static_cast<int>(plan_.units().size())),
        value_(static_cast<int>(call.heads)) {
    static thread_local Memory scratch;
    const int64_t vectors = call.tokens * call.heads, shared = plan_.shared_vectors();
    q_ = scratch.of(vectors * (row_ + padded_) + shared * (padded_ + 2));
    latent_ = q_ + vectors * row_;
    partial_ = latent_ + vectors * padded_;
  }

  void operator()() {
    for (int part; (part = absorb_.take()) >= 0;) absorb(part / parts_, part % parts_ * kColumns);
    barrier();
    for (int task; (task = attend_.take()) >= 0;) attend(plan_.tasks()[task]);
    barrier();
    if (plan_.shared_vectors()) {
      for (int unit; (unit = merge_.take()) >= 0;) merge(plan_.units()[unit]);
      barrier();
    }
    for (int head; (head = value_.take()) >= 0;) up(head);
  }

 private:
  // Columns of the latent space from `first` on, for one head of all tokens.
  void absorb(int64_t head, int64_t first) {
    const int64_t width = call_.nope + call_.rotary, stride = call_.heads * row_, latent = call_.cache.latent;
    const float* q = call_.q + head * width;
    float* out = q_ + head * row_;
    const int64_t count = std::min<int64_t>(kColumns, latent - first);
    multiply_head({call_.key, head * latent + first, count, q, call_.q_stride, out + first, stride, call_.tokens});
    if (first) return;
    for (int64_t token = 0; token < call_.tokens; ++token) {
      float* vector = out + token * stride;
      std::memcpy(vector + latent, q + token * call_.q_stride + call_.nope, call_.rotary * sizeof(float));
      std::fill(vector + call_.cache.width, vector + row_, 0.0f);
    }
  }

  void attend(const Task& task) {
    static thread_local Memory scratch;
    const Unit& unit = plan_.units()[task.unit];
    const Query query{q_ + (unit.token * call_.heads + unit.head) * row_,
                      call_.heads * row_,
                      row_,
                      unit.tokens,
                      unit.heads,
                      call_.rows.pages + unit.row * call_.rows.columns,
                      unit.end,
                      call_.scale};
    const int64_t vectors = unit.tokens * unit.heads, room = scratch_floats(call_.cache.width, call_.cache.latent, vectors);
    float* memory = scratch.of(room + 2 * vectors * (padded_ + 2));
    if (task.chunk >= 0) {
      k_.attend(call_.cache, query, task.chunk * kChunk, std::min(unit.end, (task.chunk + 1) * kChunk),
                shared(unit, task.chunk), padded_, memory);
      return;
    }
    const Partial all = at(memory + room, vectors), next = at(memory + room + vectors * (padded_ + 2), vectors);
    for (int64_t chunk = 0; chunk < unit.chunks; ++chunk) {
      const Partial& into = chunk ? next : all;
      k_.attend(call_.cache, query, chunk * kChunk, std::min(unit.end, (chunk + 1) * kChunk), into, padded_,
                memory);
      if (chunk) k_.merge(all, next, vectors, padded_);
    }
    finish(unit, all);
  }

  void merge(const Unit& unit) {
    if (unit.partial < 0) return;
    const Partial all = shared(unit, 0);
    for (int64_t chunk = 1; chunk < unit.chunks; ++chunk)
      k_.merge(all, shared(unit, chunk), unit.tokens * unit.heads, padded_);
    finish(unit, all);
  }

  void finish(const Unit& unit, Partial all) {
    for (int64_t token = 0; token < unit.tokens; ++token) {
      const int64_t from = token * unit.heads;
      k_.finish({all.max + from, all.sum + from, all.latent + from * padded_}, unit.heads, padded_,
                latent_ + ((unit.token + token) * call_.heads + unit.head) * padded_);
    }
  }

  void up(int64_t head) {
    const int64_t width = call_.value_width;
    multiply_head({call_.kv_b, head * (call_.nope + width) + call_.nope, width, latent_ + head * padded_,
              call_.heads * padded_, call_.out + head * width, call_.heads * width, call_.tokens});
  }

  Partial at(float* memory, int64_t vectors) const {
    return {memory, memory + vectors, memory + 2 * vectors};
  }

  Partial shared(const Unit& unit, int64_t chunk) const {
    const int64_t vectors = unit.tokens * unit.heads;
    return at(partial_ + (unit.partial + chunk * vectors) * (padded_ + 2), vectors);
  }

  const Decode& call_;
  const Kernels& k_;
  Plan plan_;
  int64_t padded_, row_, parts_;
  Queue absorb_, attend_, merge_, value_;
  float *q_, *latent_, *partial_;
};

}  // namespace

void decode(const Decode& call) {
  const int threads = thread_count();
  Run run(call, threads);
  parallel(threads, [&](int, int) { run(); });
}

void expand(const Piece& piece) {
  static thread_local Memory shared;
  const Kernels& k = kernels();
  const int64_t blocks = piece.blocks(), size = piece.block_floats();
  const int64_t queries = (piece.tokens + kBlock - 1) / kBlock;
  float* turned = shared.of(piece.heads * blocks * size);
  Queue turns(static_cast<int>(piece.heads * blocks)), work(static_cast<int>(piece.heads * queries));
  parallel(thread_count(), [&](int, int) {
    for (int next; (next = turns.take()) >= 0;) k.turn(piece, next / blocks, next % blocks, turned + next * size);
    barrier();
    static thread_local Memory scratch;
    float* memory = scratch.of(kBlock * (kBlock + piece.value_padded()));
    for (int next; (next = work.take()) >= 0;) {
      const int64_t head = next % piece.heads;
      const int64_t block = queries - 1 - next / piece.heads;  // long ones first
      k.attend_piece(piece, head, block * kBlock, turned + head * blocks * size, memory);
    }
  });
}

}  // namespace tokenworks::attention
