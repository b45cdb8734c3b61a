"""Multi-head latent attention: absorbed over the paged cache of latents, and expanded for many queries."""

from moe_ops.latent_attention.heads import LatentHeads, pack_latent_heads
from moe_ops.latent_attention.native import latent_decode_, latent_expand_
from moe_ops.latent_attention.rows import PagedRows, SingleRows

__all__ = ["LatentHeads", "PagedRows", "SingleRows", "latent_decode_", "latent_expand_", "pack_latent_heads"]
