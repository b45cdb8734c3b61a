"""Absorbed multi-head latent attention over a paged cache of latents."""

from moe_ops.latent_attention.heads import LatentHeads, PackedHeads, pack_latent_heads
from moe_ops.latent_attention.native import latent_decode_
from moe_ops.latent_attention.rows import PagedRows

__all__ = ["LatentHeads", "PackedHeads", "PagedRows", "latent_decode_", "pack_latent_heads"]
