"""Absorbed multi-head latent attention over a paged cache of latents."""

from moe_ops.latent_attention.cpu import latent_attention

__all__ = ["latent_attention"]
