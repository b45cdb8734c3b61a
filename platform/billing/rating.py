"""Tokens to money: tenant charge = partner share + levy, exact to the nano-dollar. Pure."""

from __future__ import annotations

import msgspec

from core.money import PPM, TOKENS_PER_MTOK, ceil_div


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """A partner's price in nano-dollars per million tokens, and the levy on it in parts per million.

    $0.10 per 1M tokens is 100_000_000.
    """

    offer_id: str
    input_nano_per_mtok: int
    cached_input_nano_per_mtok: int
    output_nano_per_mtok: int
    levy_ppm: int


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """What one request costs; ``charge_nano == share_nano + levy_nano`` always."""

    share_nano: int
    levy_nano: int
    charge_nano: int


def charge_for(*, price: Price, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> Charge:
    """Rate one request. ``cached_tokens`` are part of ``prompt_tokens``. Raises ValueError on bad counts."""
    if not 0 <= cached_tokens <= prompt_tokens or completion_tokens < 0:
        raise ValueError("token counts must satisfy 0 <= cached <= prompt and completion >= 0")
    weighted = (
        (prompt_tokens - cached_tokens) * price.input_nano_per_mtok
        + cached_tokens * price.cached_input_nano_per_mtok
        + completion_tokens * price.output_nano_per_mtok
    )
    share = ceil_div(weighted, TOKENS_PER_MTOK)
    levy = ceil_div(share * price.levy_ppm, PPM)
    return Charge(share_nano=share, levy_nano=levy, charge_nano=share + levy)
