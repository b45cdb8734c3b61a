// The operations on the AVX-512 kernels alone, with one thread and without torch, for ctypes.
#include "grouped_mlp.h"
#include "linear.h"
#include "threads.h"

namespace tokenworks {

static const Kernels* chosen = nullptr;

const Kernels& kernels() { return *chosen; }
int thread_count() { return 1; }

}  // namespace tokenworks

extern "C" void use_avx512() { tokenworks::chosen = &tokenworks::kernels_avx512(); }
extern "C" void use_vnni() { tokenworks::chosen = &tokenworks::kernels_vnni(); }
extern "C" void use_bf16() { tokenworks::chosen = &tokenworks::kernels_bf16(); }

extern "C" void linear(int code, int outputs, int inputs, const void* data, const void* scales, const float* x,
                       int rows, float* out) {
  const tokenworks::Matrix matrix(code, outputs, inputs, data, scales);
  tokenworks::linear(matrix, outputs, x, inputs, rows, out, outputs, false);
}

extern "C" void grouped_mlp(int code, int count, int hidden, int width, const void* gate_up,
                            const void* gate_up_scales, const void* down, const void* down_scales,
                            const int64_t* chosen, const float* weights, int top_k, int shared, const float* x,
                            int tokens, float* out) {
  const auto whole = [](int n) { return (n + 15) / 16 * 16; };
  const tokenworks::Experts experts{
      tokenworks::Matrix(code, count * 2 * whole(width), hidden, gate_up, gate_up_scales),
      tokenworks::Matrix(code, count * whole(hidden), width, down, down_scales), count, hidden, shared};
  tokenworks::grouped_mlp(experts, {chosen, weights, top_k}, x, hidden, tokens, out, hidden);
}
