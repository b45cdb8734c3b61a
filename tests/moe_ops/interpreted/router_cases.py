"""Run by `test_triton.py` in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from moe_ops.router import RouterSpec
from moe_ops.router.reference import route as expected_route
from moe_ops.router.triton import route


@settings(max_examples=15, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    seed=st.integers(0, 9999),
    tokens=st.integers(1, 19),
    hidden=st.integers(1, 70),
    size=st.integers(2, 5),
    shape=st.sampled_from([(1, 1, 2), (2, 1, 2), (4, 2, 3), (3, 2, 4), (4, 4, 5)]),
    biased=st.booleans(),
    sigmoid=st.booleans(),
    normalize=st.booleans(),
)
def test_matches_the_reference(
    *, seed: int, tokens: int, hidden: int, size: int, shape: tuple[int, int, int],
    biased: bool, sigmoid: bool, normalize: bool,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    groups, kept, top_k = shape
    top_k = min(top_k, kept * size)
    spec = RouterSpec(top_k, groups, kept, "sigmoid" if sigmoid else "softmax", normalize, 2.5)
    weight_ED = torch.randn(groups * size, hidden)
    x_TD = torch.randn(tokens, hidden)
    bias_E = torch.randn(groups * size) * 2 if biased else None
    compare(route(x_TD, weight_ED, bias_E, spec), expected_route(x_TD, weight_ED, bias_E, spec))


def compare(found: tuple[torch.Tensor, torch.Tensor], expected: tuple[torch.Tensor, torch.Tensor]) -> None:
    """In any order of a token's experts."""
    for (weights, experts), (other_weights, other_experts) in [(found, expected)]:
        order, other_order = experts.argsort(1), other_experts.argsort(1)
        assert experts.gather(1, order).equal(other_experts.gather(1, other_order))
        torch.testing.assert_close(
            weights.gather(1, order), other_weights.gather(1, other_order), rtol=1e-4, atol=1e-7
        )


def test_what_is_not_allowed_is_not_chosen_whatever_its_bias() -> None:
    torch.manual_seed(3)
    spec = RouterSpec(3, 4, 2, "sigmoid", True, 1.0)
    x_TD, weight_ED, bias_E = torch.randn(6, 8), torch.randn(16, 8), torch.randn(16)
    bias_E[5] = 9.0
    allowed_TE = torch.ones(6, 16, dtype=torch.bool)
    allowed_TE[:, 5] = False
    allowed_TE[2, 8:12] = False
    weights_TK, experts_TK = route(x_TD, weight_ED, bias_E, spec, allowed_TE)
    for token in range(6):
        # The same choice as with that much less bias for what is not allowed.
        less_E = torch.where(allowed_TE[token], bias_E, -1e9)
        one = slice(token, token + 1)
        compare((weights_TK[one], experts_TK[one]), expected_route(x_TD[one], weight_ED, less_E, spec))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_scores_that_are_not_numbers_give_experts_that_exist() -> None:
    spec = RouterSpec(3, 4, 2, "softmax", True, 1.0)
    _, experts_TK = route(torch.full((2, 8), float("nan")), torch.randn(12, 8), None, spec)
    assert ((experts_TK >= 0) & (experts_TK < 12)).all()


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_scores_that_underflow_give_zero_weights() -> None:
    spec = RouterSpec(3, 4, 2, "sigmoid", True, 2.5)
    weights_TK, _ = route(torch.ones(1, 1), torch.full((8, 1), -200.0), torch.zeros(8), spec)
    assert weights_TK.eq(0).all()


def test_what_fills_up_where_too_few_are_allowed_weighs_nothing() -> None:
    torch.manual_seed(5)
    spec = RouterSpec(3, 1, 1, "softmax", True, 2.0)
    x_TD, weight_ED = torch.randn(4, 8), torch.randn(6, 8)
    allowed_TE = torch.zeros(4, 6, dtype=torch.bool)
    allowed_TE[:, 1] = allowed_TE[:2, 4] = True
    found_TE, expected_TE = (
        torch.zeros(4, 6).scatter_add_(1, experts_TK, weights_TK)
        for weights_TK, experts_TK in (
            form(x_TD, weight_ED, None, spec, allowed_TE) for form in (route, expected_route)
        )
    )
    torch.testing.assert_close(found_TE, expected_TE)
    assert (found_TE[~allowed_TE] == 0).all()
