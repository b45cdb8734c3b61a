// Attention on the AVX-512 kernels alone, with one thread and without torch, for ctypes.
#include "attention.h"
#include "cpu.h"
#include "small_ops.h"
#include "threads.h"

namespace tokenworks {

Isa isa() { return Isa::avx512; }
int thread_count() { return 1; }

}  // namespace tokenworks

using namespace tokenworks::attention;

extern "C" void decode(const void* cache, int bfloat16, int page_size, int latent, const int32_t* pages,
                       const int32_t* first, const int32_t* count, const int32_t* end, int batch, int columns,
                       const void* key, const float* key_scales, const void* value, const float* value_scales,
                       int format, const float* q, float* out, int tokens, int heads, int nope, int rotary,
                       int values, float scale) {
  const auto matrix = [&](const void* data, const float* scales, int64_t inputs, int64_t outputs) {
    const bool scaled = format == static_cast<int>(Format::kInt8);
    return HeadMatrix{data,   scaled ? scales : nullptr, static_cast<Format>(format),
                      inputs, (outputs + 63) / 64,       scaled ? (outputs + 127) / 128 : 0};
  };
  tokenworks::attention::decode({{cache, bfloat16 != 0, page_size, latent + rotary, latent},
                                 {pages, first, count, end, batch, columns},
                                 matrix(key, key_scales, nope, latent),
                                 matrix(value, value_scales, latent, values),
                                 q,
                                 out,
                                 static_cast<int64_t>(heads) * (nope + rotary),
                                 tokens,
                                 heads,
                                 nope,
                                 rotary,
                                 values,
                                 scale});
}

extern "C" void expand(const float* q, const float* both, const float* rotary_keys, float* out, float* total,
                       int tokens, int context, int heads, int nope, int rotary, int value, int causal,
                       float scale) {
  const int64_t width = nope + rotary;
  tokenworks::attention::expand({q, heads * width, width, both, static_cast<int64_t>(heads) * (nope + value),
                                 rotary_keys, rotary, out, total, tokens, context, heads, nope, rotary, value,
                                 causal != 0, scale});
}
