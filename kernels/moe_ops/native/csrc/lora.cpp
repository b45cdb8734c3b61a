// Both factors in one parallel region: first A x of all tokens (few numbers), then B of that, by blocks of columns.
// As in Punica (arXiv:2310.18547), tokens of one adapter share one reading of its factors.
#include "lora.h"

#include <algorithm>
#include <vector>

#include "scratch.h"
#include "threads.h"

namespace tokenworks::lora {
namespace {

constexpr int kRowsTogether = 24;
constexpr int kBlock = 4 * kColumns;  // outputs of one item

// Some rows of one segment's part.
struct Piece {
  const Change* change;
  const int32_t* token;
  int rows;
  size_t low;  // where their A x lies
};

struct Shrink {
  int piece, tile;
};

struct Expand {
  int piece, first_tile;
};

struct Work {
  std::vector<Piece> pieces;
  std::vector<Shrink> shrinks;
  std::vector<Expand> expands;
  size_t low = 0;  // numbers of all A x

  void add(const Change& change, const int32_t* token, int rows) {
    const int piece = static_cast<int>(pieces.size());
    pieces.push_back({&change, token, rows, low});
    low += static_cast<size_t>(rows) * change.tiles() * kTile;
    for (int tile = 0; tile < change.tiles(); ++tile) shrinks.push_back({piece, tile});
    for (int column = 0; column < change.outputs; column += kBlock) expands.push_back({piece, column / kTile});
  }
};

Work work_of(const Segment* segments, int count, const Change* changes, int parts) {
  Work work;
  for (int s = 0; s < count; ++s)
    for (int part = 0; part < parts; ++part) {
      const Change& change = changes[s * parts + part];
      if (change.rank == 0) continue;
      for (int row = 0; row < segments[s].count; row += kRowsTogether)
        work.add(change, segments[s].token + row, std::min(kRowsTogether, segments[s].count - row));
    }
  return work;
}

// y holds kColumns numbers for each of the piece's rows.
void expand(const Piece& piece, int first_tile, const float* low, float* y, float* out, int64_t out_stride) {
  const Change& change = *piece.change;
  const Matrix b = change.whole_b();
  Rows rows;
  rows.x_stride = static_cast<size_t>(change.tiles()) * kTile;
  rows.x = low + piece.low;
  const int end = std::min(b.tiles, first_tile + kBlock / kTile);
  for (int tile = first_tile; tile < end; tile += kColumns / kTile) {
    const int tiles = std::min(kColumns / kTile, end - tile), column = tile * kTile;
    const int width = std::min(tiles * kTile, change.outputs - column);
    kernels().multiply(b, tile, tiles, rows, piece.rows, y, kColumns);
    for (int i = 0; i < piece.rows; ++i) {
      float* const target = out + piece.token[i] * out_stride + change.column + column;
      for (int c = 0; c < width; ++c) target[c] += y[i * kColumns + c];
    }
  }
}

}  // namespace

void add(const Segment* segments, int segment_count, const Change* changes, int parts, const float* x,
         int64_t x_stride, float* out, int64_t out_stride) {
  const Work work = work_of(segments, segment_count, changes, parts);
  if (work.pieces.empty()) return;
  const int threads = std::min<int>(thread_count(), static_cast<int>(work.expands.size()));
  constexpr size_t kProduct = size_t{kRowsTogether} * kColumns;
  Scratch& scratch = Scratch::begin();
  scratch.reserve(Scratch::size<float>(work.low) + Scratch::size<float>(threads * kProduct));
  float* const low = scratch.take<float>(work.low);
  float* const products = scratch.take<float>(threads * kProduct);

  Queue shrinks(static_cast<int>(work.shrinks.size())), expands(static_cast<int>(work.expands.size()));
  parallel(threads, [&](int thread, int team) {
    Rows rows;
    rows.x = x;
    rows.x_stride = static_cast<size_t>(x_stride);
    for (int item; (item = shrinks.take()) >= 0;) {
      const Shrink& one = work.shrinks[item];
      const Piece& piece = work.pieces[one.piece];
      rows.index = piece.token;
      kernels().multiply(piece.change->a_tile(one.tile), 0, 1, rows, piece.rows, low + piece.low + one.tile * kTile,
                         static_cast<size_t>(piece.change->tiles()) * kTile);
    }
    barrier(team);
    for (int item; (item = expands.take()) >= 0;)
      expand(work.pieces[work.expands[item].piece], work.expands[item].first_tile, low, products + thread * kProduct,
             out, out_stride);
  });
}

}  // namespace tokenworks::lora
