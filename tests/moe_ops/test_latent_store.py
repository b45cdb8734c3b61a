from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moe_ops.latent_store import latent_store_, reference


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    tokens=st.sampled_from([1, 3, 70]),
    heads=st.integers(1, 5),
    latent=st.sampled_from([15, 64, 512]),
    half_rotary=st.sampled_from([1, 4, 32]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_native_equals_the_definition(
    *, isa: str, tokens: int, heads: int, latent: int, half_rotary: int, dtype: torch.dtype
) -> None:
    random = torch.Generator().manual_seed(tokens * latent + heads)
    rotary, nope = 2 * half_rotary, 6
    wide = torch.randn(tokens, 3 + heads * (nope + rotary) + latent + rotary, generator=random)
    norm = torch.randn(latent, generator=random)
    turn = torch.polar(torch.ones(tokens, half_rotary), torch.rand(tokens, half_rotary, generator=random) * 6)
    slot = torch.randperm(80, generator=random)[:tokens]
    found = []
    for form in (latent_store_, reference.latent_store_):
        inner = wide.clone()[:, 3:]  # slices of one projection, as in the model
        q = inner[:, : -latent - rotary].unflatten(1, (heads, nope + rotary))
        cache = torch.full((20, 4, latent + rotary), 7.0, dtype=dtype)
        form(inner[:, -latent - rotary :], norm, 1e-6, turn_TR=turn, slot_T=slot, cache_PZC=cache, q_THQ=q)
        found.append((cache.float(), inner))
    # Numbers that lie between two of bf16 may be rounded either way.
    step = 1e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(found[0][0], found[1][0], rtol=step, atol=1e-5, msg=isa)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-5, atol=1e-5, msg=isa)
    untouched = torch.ones(80, dtype=torch.bool).index_fill(0, slot, False)
    assert found[0][0].flatten(0, 1)[untouched].eq(7).all()


def test_a_token_is_the_same_bits_alone(isa: str) -> None:
    fresh, norm = torch.randn(9, 40), torch.randn(32)
    turn, slot = torch.polar(torch.ones(9, 4), torch.rand(9, 4)), torch.arange(9)
    q = torch.randn(9, 2, 12)
    together, alone = torch.zeros(3, 3, 40), torch.zeros(3, 3, 40)
    q_together, q_alone = q.clone(), q.clone()
    latent_store_(fresh, norm, 1e-6, turn_TR=turn, slot_T=slot, cache_PZC=together, q_THQ=q_together)
    for t in range(9):
        one = slice(t, t + 1)
        latent_store_(
            fresh[one],
            norm,
            1e-6,
            turn_TR=turn[one].contiguous(),
            slot_T=slot[one],
            cache_PZC=alone,
            q_THQ=q_alone[one],
        )
    assert together.equal(alone), isa
    assert q_together.equal(q_alone), isa


def test_a_slot_outside_the_cache_is_refused(isa: str) -> None:
    with pytest.raises((RuntimeError, IndexError), match="outside"):
        (
            latent_store_(
                torch.zeros(1, 6),
                torch.ones(4),
                1e-6,
                turn_TR=torch.ones(1, 1, dtype=torch.complex64),
                slot_T=torch.tensor([8]),
                cache_PZC=torch.zeros(2, 4, 6),
                q_THQ=torch.zeros(1, 1, 4),
            ),
            isa,
        )
