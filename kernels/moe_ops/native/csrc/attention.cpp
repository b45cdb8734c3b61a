// Attention of few new tokens: which thread computes what. Numbers do not depend on it.
#include "attention.h"

#include <algorithm>
#include <vector>

#include "attention_heads.h"
#include "attention_memory.h"
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

// Some queries and heads of one row, and where its chunks' results begin when threads share them.
struct Unit {
  int64_t row, token, tokens, head, heads, end, chunks, partial;

  int64_t vectors() const { return tokens * heads; }
};

int64_t partial_floats(int64_t vectors, int64_t latent) { return 2 * padded(vectors) + vectors * padded(latent); }

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
      unit.partial = floats_;
      floats_ += unit.chunks * partial_floats(unit.vectors(), call.cache.latent);
      for (int64_t chunk = 0; chunk < unit.chunks; ++chunk) tasks_.push_back({u, chunk});
    }
  }

  const std::vector<Unit>& units() const { return units_; }
  const std::vector<Task>& tasks() const { return tasks_; }
  int64_t shared_floats() const { return floats_; }

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
  int64_t floats_ = 0;
};

// The steps of one call; each is a queue of pieces that any thread may take.
class Run {
 public:
  Run(const Decode& call, int threads)
      : call_(call),
        k_(kernels()),
        plan_(call, threads),
        latent_(call.cache.latent),
        row_(padded(latent_) + kLanes),
        parts_((latent_ + kColumns - 1) / kColumns),
        absorb_(static_cast<int>(call.heads * parts_)),
        attend_(static_cast<int>(plan_.tasks().size())),
        merge_(static_cast<int>(plan_.units().size())),
        value_(static_cast<int>(call.heads)) {
    static thread_local Memory memory;
    const int64_t vectors = call.tokens * call.heads;
    absorbed_ = memory.of(2 * vectors * row_ + plan_.shared_floats());
    attended_ = absorbed_ + vectors * row_;
    partials_ = attended_ + vectors * row_;
  }

  void operator()(int team) {
    for (int part; (part = absorb_.take()) >= 0;) absorb(part / parts_, part % parts_ * kColumns);
    barrier(team);
    for (int task; (task = attend_.take()) >= 0;) attend(plan_.tasks()[task]);
    barrier(team);
    if (plan_.shared_floats()) {
      for (int unit; (unit = merge_.take()) >= 0;) merge(plan_.units()[unit]);
      barrier(team);
    }
    for (int head; (head = value_.take()) >= 0;) up(head);
  }

 private:
  // Columns of the latent space from `first` on, for one head of all tokens.
  void absorb(int64_t head, int64_t first) {
    const float* const q = call_.q + head * (call_.nope + call_.rotary);
    const int64_t count = std::min<int64_t>(kColumns, latent_ - first);
    multiply_head({call_.key, head * latent_ + first, count, q, call_.q_stride, absorbed_ + head * row_ + first,
                   call_.heads * row_, call_.tokens});
  }

  void attend(const Task& task) {
    static thread_local Memory thread_memory;
    const Unit& unit = plan_.units()[task.unit];
    const int64_t lanes = padded(unit.vectors()), width = call_.cache.width;
    const int64_t partial = partial_floats(unit.vectors(), latent_);
    float* const memory =
        thread_memory.of(lanes * width + panels(width) * kPanel + kBlock * kLanes + lanes + 2 * partial);
    const Room room{memory, memory + lanes * width, memory + lanes * width + panels(width) * kPanel,
                    reinterpret_cast<int32_t*>(memory + lanes * width + panels(width) * kPanel + kBlock * kLanes)};
    turn(unit, room.turned);
    if (task.chunk >= 0) {
      attend_chunk(unit, task.chunk, room, shared(unit, task.chunk));
      return;
    }
    float* const own = reinterpret_cast<float*>(room.seen) + lanes;
    const Partial all = at(own, unit), next = at(own + partial, unit);
    for (int64_t chunk = 0; chunk < unit.chunks; ++chunk) {
      attend_chunk(unit, chunk, room, chunk ? next : all);
      if (chunk) k_.merge(all, next, unit.vectors(), latent_);
    }
    finish(unit, all);
  }

  struct Room {
    float *turned, *panels, *scores;
    int32_t* seen;
  };

  // The unit's queries, absorbed and rotary parts together.
  void turn(const Unit& unit, float* turned) {
    for (int64_t first = 0; first < unit.vectors(); first += kLanes) {
      const int64_t count = std::min<int64_t>(kLanes, unit.vectors() - first);
      const float *absorbed[kLanes], *rotary[kLanes];
      for (int64_t i = 0; i < count; ++i) {
        const int64_t token = unit.token + (first + i) / unit.heads, head = unit.head + (first + i) % unit.heads;
        absorbed[i] = absorbed_ + (token * call_.heads + head) * row_;
        rotary[i] = call_.q + token * call_.q_stride + head * (call_.nope + call_.rotary) + call_.nope;
      }
      float* const out = turned + first * call_.cache.width;
      k_.turn(absorbed, count, latent_, call_.scale, out);
      k_.turn(rotary, count, call_.rotary, call_.scale, out + latent_ * kLanes);
    }
  }

  void attend_chunk(const Unit& unit, int64_t chunk, const Room& room, Partial partial) {
    const int32_t* const pages = call_.rows.pages + unit.row * call_.rows.columns;
    const int64_t last = std::min(unit.end, (chunk + 1) * kChunk), width = call_.cache.width;
    k_.clear(partial, unit.vectors(), latent_);
    for (int64_t from = chunk * kChunk; from < last; from += kBlock) {
      const int64_t count = std::min<int64_t>(kBlock, last - from);
      k_.gather(call_.cache, pages, from, count, 0, width, 0, room.panels);
      for (int64_t i = 0; i < padded(unit.vectors()); ++i) {
        const int64_t token = std::min(i, unit.vectors() - 1) / unit.heads;
        const int64_t end = unit.end - unit.tokens + token + 1;  // of this token's context
        room.seen[i] = static_cast<int32_t>(std::clamp<int64_t>(end - from, 0, count));
      }
      k_.attend({room.panels, room.panels, width, latent_}, {room.turned, room.seen, unit.vectors()}, partial,
                room.scores);
    }
  }

  void merge(const Unit& unit) {
    if (unit.partial < 0) return;
    const Partial all = shared(unit, 0);
    for (int64_t chunk = 1; chunk < unit.chunks; ++chunk)
      k_.merge(all, shared(unit, chunk), unit.vectors(), latent_);
    finish(unit, all);
  }

  void finish(const Unit& unit, Partial all) {
    for (int64_t token = 0; token < unit.tokens; ++token)
      k_.finish(all, token * unit.heads, unit.heads, latent_, latent_,
                attended_ + ((unit.token + token) * call_.heads + unit.head) * row_, row_);
  }

  void up(int64_t head) {
    const int64_t width = call_.value_width;
    multiply_head({call_.kv_b, head * (call_.nope + width) + call_.nope, width, attended_ + head * row_,
                   call_.heads * row_, call_.out + head * width, call_.heads * width, call_.tokens});
  }

  static Partial at(float* memory, const Unit& unit) {
    const int64_t lanes = padded(unit.vectors());
    return {memory, memory + lanes, memory + 2 * lanes};
  }
  Partial shared(const Unit& unit, int64_t chunk) const {
    return at(partials_ + unit.partial + chunk * partial_floats(unit.vectors(), latent_), unit);
  }

  const Decode& call_;
  const Kernels& k_;
  const Plan plan_;
  const int64_t latent_, row_, parts_;
  Queue absorb_, attend_, merge_, value_;
  float *absorbed_, *attended_, *partials_;
};

}  // namespace

void decode(const Decode& call) {
  const int threads = thread_count();
  Run run(call, threads);
  parallel(threads, [&](int, int team) { run(team); });
}

}  // namespace tokenworks::attention
