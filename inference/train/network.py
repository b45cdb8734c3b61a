"""The trainable network: DeepSeek-V3's blocks in plain torch, with the multi-token-prediction module.

Shape suffixes: B rows, T new tokens, S tokens seen so far, D hidden, H heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from inference.layers.rope import RopeTable, apply_rope, softmax_scale
from inference.models.config import ModelConfig
from inference.train.experts import Mlp, Moe, Router

# The latent norms' epsilon is not configurable in the reference implementations.
_LATENT_EPS = 1e-6


@dataclass(slots=True)
class LatentCache:
    """One block's cache: normed latents and rotated shared keys of the tokens seen so far."""

    latent_BSC: torch.Tensor | None = None
    key_BSR: torch.Tensor | None = None

    def extend(self, latent: torch.Tensor, key: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.latent_BSC is not None and self.key_BSR is not None:
            latent = torch.cat([self.latent_BSC, latent], dim=1)
            key = torch.cat([self.key_BSR, key], dim=1)
        self.latent_BSC, self.key_BSR = latent, key
        return latent, key


@dataclass(frozen=True, slots=True)
class Context:
    """What all blocks of one pass share: rotary rows (B or 1, T, pairs) and the attention mask."""

    cos: torch.Tensor
    sin: torch.Tensor
    mask: torch.Tensor


class LatentAttention(nn.Module):
    """Multi-head latent attention in its expanded form."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.q_lora_rank is None:
            raise ValueError("training compresses queries: set q_lora_rank")
        self.config = config
        self.scale = softmax_scale(config)
        hidden, heads, rank = config.hidden_size, config.num_attention_heads, config.kv_lora_rank
        self.q_a_proj = nn.Linear(hidden, config.q_lora_rank, bias=False)
        self.q_a_layernorm = nn.RMSNorm(config.q_lora_rank, eps=_LATENT_EPS)
        self.q_b_proj = nn.Linear(config.q_lora_rank, heads * config.qk_head_dim, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(hidden, rank + config.qk_rope_head_dim, bias=False)
        self.kv_a_layernorm = nn.RMSNorm(rank, eps=_LATENT_EPS)
        self.kv_b_proj = nn.Linear(rank, heads * (config.qk_nope_head_dim + config.v_head_dim), bias=False)
        self.o_proj = nn.Linear(heads * config.v_head_dim, hidden, bias=False)

    def forward(self, x_BTD: torch.Tensor, context: Context, cache: LatentCache | None) -> torch.Tensor:
        config, heads = self.config, self.config.num_attention_heads
        query = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x_BTD))).unflatten(-1, (heads, -1))
        query_nope, query_rope = query.split([config.qk_nope_head_dim, config.qk_rope_head_dim], dim=-1)
        query_rope = apply_rope(query_rope, context.cos[:, :, None], context.sin[:, :, None])
        latent, key_rope = self.kv_a_proj_with_mqa(x_BTD).split(
            [config.kv_lora_rank, config.qk_rope_head_dim], dim=-1
        )
        latent, key_rope = self.kv_a_layernorm(latent), apply_rope(key_rope, context.cos, context.sin)
        if cache is not None:
            latent, key_rope = cache.extend(latent, key_rope)
        expanded = self.kv_b_proj(latent).unflatten(-1, (heads, -1))
        key_nope, value = expanded.split([config.qk_nope_head_dim, config.v_head_dim], dim=-1)
        key = torch.cat([key_nope, key_rope[:, :, None].expand(-1, -1, heads, -1)], dim=-1)
        query = torch.cat([query_nope, query_rope], dim=-1)
        mixed = functional.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2),
            attn_mask=context.mask, scale=self.scale,
        )  # fmt: skip
        result: torch.Tensor = self.o_proj(mixed.transpose(1, 2).flatten(-2))
        return result


class Block(nn.Module):
    """Attention and feed-forward, each on a normed residual stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.self_attn = LatentAttention(config)
        self.mlp = Moe(config) if config.is_moe_layer(layer) else Mlp(hidden, config.intermediate_size)
        self.input_layernorm = nn.RMSNorm(hidden, eps=config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(hidden, eps=config.rms_norm_eps)

    def forward(self, x: torch.Tensor, context: Context, cache: LatentCache | None = None) -> torch.Tensor:
        x = x + self.self_attn(self.input_layernorm(x), context, cache)
        result: torch.Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return result


class MtpModule(nn.Module):
    """Predicts the token after next from a position's final state and the next token's embedding."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.enorm = nn.RMSNorm(hidden, eps=config.rms_norm_eps)
        self.hnorm = nn.RMSNorm(hidden, eps=config.rms_norm_eps)
        self.eh_proj = nn.Linear(2 * hidden, hidden, bias=False)
        self.block = Block(config, config.num_hidden_layers)
        self.norm = nn.RMSNorm(hidden, eps=config.rms_norm_eps)

    def forward(self, next_BTD: torch.Tensor, state_BTD: torch.Tensor, context: Context) -> torch.Tensor:
        joined = self.eh_proj(torch.cat([self.enorm(next_BTD), self.hnorm(state_BTD)], dim=-1))
        result: torch.Tensor = self.norm(self.block(joined, context))
        return result


class Network(nn.Module):
    """Embedding, blocks, final norm, head, and one multi-token-prediction module sharing both ends."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.mtp = MtpModule(config)
        self.rope = RopeTable.build(config)
        self._initialise()

    def context(self, position_BT: torch.Tensor, mask: torch.Tensor) -> Context:
        """The shared inputs of a pass over tokens at `position_BT` that may look where `mask` is true."""
        return Context(*self.rope.at(position_BT), mask)

    def forward(
        self, id_BT: torch.Tensor, context: Context, caches: list[LatentCache] | None = None
    ) -> torch.Tensor:
        """The final normed state (B, T, D); `lm_head` turns it into logits."""
        x = self.embed_tokens(id_BT)
        for number, layer in enumerate(self.layers):
            x = layer(x, context, None if caches is None else caches[number])
        result: torch.Tensor = self.norm(x)
        return result

    def routers(self) -> list[Router]:
        """The routers in layer order, the multi-token-prediction module's last."""
        return [module for module in self.modules() if isinstance(module, Router)]

    def _initialise(self) -> None:
        """Variance-preserving matrices, residual outputs shrunk with depth; norms start at one."""
        shrink = 1 / math.sqrt(2 * self.config.num_hidden_layers)
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue
            std = 0.7 * parameter.shape[-1] ** -0.5
            if "embed_tokens" in name:
                std = 0.1
            elif "lm_head" in name or "gate.weight" in name:
                std = 0.02
            elif "o_proj" in name or "down" in name:
                std *= shrink
            nn.init.normal_(parameter, std=std)
