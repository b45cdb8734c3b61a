// Attention on the AVX-512 kernels alone, with one thread and without torch, for ctypes.
#include "attention.h"
#include "cpu.h"
#include "small_ops.h"
#include "matrix.h"
#include "threads.h"

namespace tokenworks {

Isa isa() { return Isa::avx512; }
int thread_count() { return 1; }
const Kernels& kernels() { return kernels_portable(); }  // matrices have an emulation of their own

}  // namespace tokenworks

using namespace tokenworks::attention;

extern "C" void decode(const void* cache, int bfloat16, int page_size, int latent, const int32_t* pages,
                       const int32_t* first, const int32_t* count, const int32_t* end, int batch, int columns,
                       const void* kv_b, const void* kv_b_scales, const void* key, const void* key_scales,
                       int format, const float* q, float* out, int tokens, int heads, int nope, int rotary,
                       int values, float scale) {
  tokenworks::attention::decode({{cache, bfloat16 != 0, page_size, latent + rotary, latent},
                                 {pages, first, count, end, batch, columns},
                                 {format, heads * (nope + values), latent, kv_b, kv_b_scales},
                                 {format, heads * latent, nope, key, key_scales},
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

extern "C" void expand(const void* cache, int bfloat16, int page_size, int latent, const int32_t* pages,
                       const void* kv_b, const void* kv_b_scales, int format, const float* q, float* out, int start,
                       int tokens, int heads, int nope, int rotary, int values, float scale) {
  tokenworks::attention::expand({{cache, bfloat16 != 0, page_size, latent + rotary, latent},
                                 pages,
                                 {format, heads * (nope + values), latent, kv_b, kv_b_scales},
                                 q,
                                 out,
                                 static_cast<int64_t>(heads) * (nope + rotary),
                                 start,
                                 tokens,
                                 heads,
                                 nope,
                                 rotary,
                                 values,
                                 scale});
}
