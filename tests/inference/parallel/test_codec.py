from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass

import pytest
import torch

from inference.layers.batch import FlatBatch, LongRow
from inference.parallel.codec import Codec
from inference.parallel.layers import OwnExperts
from inference.parallel.ranks import Ranks
from inference.parallel.runner import MakeCache, RunForward, Scrub
from inference.routing.plan import RoutingPlan
from moe_ops.grouped_mlp import PackedExperts, pack_experts, packed_mlp_
from moe_ops.latent_attention import PagedRows

CODEC = Codec((MakeCache, RunForward, Scrub))


def test_a_batch_arrives_as_it_was() -> None:
    rows = PagedRows.build(pages=[[3, 1], [2]], counts=[1, 2], ends=[7, 4], page_size=4)
    batch = FlatBatch(
        token_T=torch.tensor([5, 6, 7]),
        turn_TR=torch.polar(torch.ones(3, 2), torch.rand(3, 2)),
        slot_T=torch.tensor([1, 2, 3]),
        short=rows,
        long=(LongRow(0, 3, 2, torch.tensor([4, 5])),),
        last_S=torch.empty(0, dtype=torch.int64),
        routing=RoutingPlan(layers=2, allowed_LTE=torch.rand(2, 3, 4) > 0.5),
    )
    compare(CODEC.decode(CODEC.encode(RunForward(batch))).batch, batch)


def compare(found: object, expected: object) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert isinstance(found, torch.Tensor)
        assert found.dtype == expected.dtype
        assert found.equal(expected)
    elif isinstance(expected, tuple):
        assert isinstance(found, tuple)
        for one, other in zip(found, expected, strict=True):
            compare(one, other)
    elif is_dataclass(expected):
        for field in fields(expected):
            compare(getattr(found, field.name), getattr(expected, field.name))
    else:
        assert found == expected


def test_numbers_arrive() -> None:
    assert CODEC.decode(CODEC.encode(Scrub((3, 4)))) == Scrub((3, 4))
    assert CODEC.decode(CODEC.encode(MakeCache(7, 16))) == MakeCache(7, 16)


@dataclass(frozen=True)
class Stranger:
    x: int


def test_only_what_was_named_is_sent() -> None:
    with pytest.raises(TypeError, match="a Stranger can not be sent"):
        CODEC.encode(Stranger(1))
    message = Codec((Stranger,)).encode(Stranger(1))
    with pytest.raises(KeyError):
        CODEC.decode(message)


def test_the_parts_of_all_ranks_add_up_to_all_experts() -> None:
    torch.manual_seed(0)
    gate_up_EJD, down_EDI = torch.randn(6, 16, 12) / 4, torch.randn(6, 12, 8) / 4
    x_TD, weights_TK = torch.randn(9, 12), torch.rand(9, 2)
    experts_TK = torch.rand(9, 4).topk(2).indices

    def packed(first: int, last: int) -> PackedExperts:
        return pack_experts(gate_up_EJD[first:last], down_EDI[first:last], "float32")

    expected_TD = packed_mlp_(
        torch.zeros(9, 12), x_TD, experts=packed(0, 4), weights_TK=weights_TK, experts_TK=experts_TK
    )
    found_TD = torch.zeros(9, 12)
    for first in (0, 2):
        OwnExperts(first, packed_mlp_).add_(
            found_TD, x_TD, experts=packed(first, first + 2), weights_TK=weights_TK, experts_TK=experts_TK
        )
    torch.testing.assert_close(found_TD, expected_TD, rtol=1e-5, atol=1e-6)
    # A stack with shared experts: every rank adds those it has.
    shared_TD = packed_mlp_(
        torch.zeros(9, 12), x_TD, experts=packed(4, 6), weights_TK=weights_TK[:, :0],
        experts_TK=experts_TK[:, :0], shared=2,
    )  # fmt: skip
    OwnExperts(2, packed_mlp_).add_(
        found_TD, x_TD, experts=packed(4, 6), weights_TK=weights_TK[:, :0],
        experts_TK=experts_TK[:, :0], shared=2,
    )  # fmt: skip
    torch.testing.assert_close(found_TD, expected_TD + shared_TD, rtol=1e-5, atol=1e-6)


def test_alone_nothing_is_exchanged() -> None:
    x = torch.ones(3)
    assert Ranks().sum_(x) is x
    assert Ranks().share("heads", 5) == range(5)
