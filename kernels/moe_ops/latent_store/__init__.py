"""What happens between the projections and attention: norm, rotary positions, the cache."""

from moe_ops.latent_store.native import latent_store_

__all__ = ["latent_store_"]
