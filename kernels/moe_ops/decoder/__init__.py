"""All layers of a decoder with latent attention in one call of the C++ kernels.

The same operations in the same order as one by one (`inference/layers/`), so the same bits: what is saved is
the way through Python and the start of threads for every operation. Has no form in plain torch.
"""

from moe_ops.decoder.native import DecoderEnds, DecoderShape, LayerWeights, NativeDecoder

__all__ = ["DecoderEnds", "DecoderShape", "LayerWeights", "NativeDecoder"]
