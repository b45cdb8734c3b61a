"""The forms of choosing a token against the definition."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moe_ops import native
from moe_ops.sample import Changes, choose, cpu, reference, token_logprobs

Choose = Callable[[torch.Tensor, torch.Tensor, Changes | None], torch.Tensor]
NEVER = float("-inf")


def limits_of(
    rows: int, *, temperature: float = 1.0, top_p: float = 1.0, min_p: float = 0.0, top_k: int = 0
) -> torch.Tensor:
    """Limits with random numbers evenly spread over [0, 1)."""
    limits = torch.tensor([[temperature, top_p, min_p, float(top_k), 0.0]]).repeat(rows, 1)
    limits[:, 4] = (torch.arange(rows) + 0.5) / rows
    return limits


def logits_of(rows: int, vocabulary: int, seed: int, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * scale


@pytest.fixture(params=["torch", "portable", "best"])
def form(request: pytest.FixtureRequest) -> Iterator[Choose]:
    """Plain torch, and the native form with either instruction set."""
    if request.param == "torch":
        yield cpu.choose
        return
    request.getfixturevalue("library")
    before = native.use_isa("portable" if request.param == "portable" else str(native.features()["best"]))
    yield choose
    native.use_isa(before)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


KINDS = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 0.3, 1.0, 1.7]),
        "top_p": st.sampled_from([1.0, 0.1, 0.5, 0.9, 0.99]),
        "min_p": st.sampled_from([0.0, 0.0, 0.02, 0.5, 1.0]),
        "top_k": st.sampled_from([0, 0, 1, 5, 50, 64, 700, 5000]),
    }
)
quick = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@quick
@given(
    kind=KINDS,
    seed=st.integers(0, 10_000),
    vocabulary=st.sampled_from([1, 3, 63, 64, 257, 3000]),
    scale=st.sampled_from([0.01, 1.0, 5.0]),
)
def test_native_draws_what_the_definition_draws(
    *, isa: str, kind: dict[str, Any], seed: int, vocabulary: int, scale: float
) -> None:
    """Not where the random number falls so near to the border of two tokens that rounding decides."""
    logits = logits_of(16, vocabulary, seed, scale)
    limits = limits_of(16, **kind)
    limits[:, 4] = torch.rand(16, generator=torch.Generator().manual_seed(seed))
    found, expected = choose(logits, limits), reference.choose(logits, limits)
    for row in (found != expected).nonzero().flatten().tolist():
        assert on_a_border(logits[row], limits[row], int(found[row])), isa


def on_a_border(logits: torch.Tensor, limits: torch.Tensor, token: int) -> bool:
    """Whether the definition draws `token` too when the random number or top_p moves by a millionth."""
    moved = limits.repeat(9, 1)
    moved[:, 4] += torch.tensor([-1e-6, 0.0, 1e-6]).repeat(3)
    moved[:, 1] += torch.tensor([-1e-6, 0.0, 1e-6]).repeat_interleave(3) * (limits[1] < 1)
    moved[:, 4].clamp_(0, 1 - 2**-24)
    return token in reference.choose(logits.repeat(9, 1), moved).tolist()


@pytest.mark.parametrize(
    "cuts",
    [
        {"top_k": 7}, {"top_k": 64}, {"top_k": 90}, {"top_p": 0.3}, {"top_p": 0.95}, {"min_p": 0.05},
        {"top_k": 30, "top_p": 0.8}, {"top_p": 0.9, "min_p": 0.1}, {"top_k": 20, "min_p": 0.2},
        {"top_k": 40, "top_p": 0.9, "min_p": 0.05},
    ],
)  # fmt: skip
@pytest.mark.parametrize("vocabulary", [100, 4096])
def test_cuts_keep_the_same_tokens(form: Choose, cuts: dict[str, Any], vocabulary: int) -> None:
    """Random numbers so close to each other that every token kept is drawn, and no other one."""
    row = logits_of(1, vocabulary, 5, 2.0)
    probability = row[0].double().softmax(0)
    kept = kept_by_definition(probability, cuts)
    share = probability[kept] / probability[kept].sum()
    middles = (share.cumsum(0) - share / 2).float()
    limits = limits_of(len(kept), **cuts)
    limits[:, 4] = middles
    assert form(row.expand(len(kept), -1), limits, None).tolist() == kept.tolist()


def kept_by_definition(probability: torch.Tensor, cuts: dict[str, Any]) -> torch.Tensor:
    return reference.kept(probability, cuts.get("top_p", 1.0), cuts.get("min_p", 0.0), cuts.get("top_k", 0))


@pytest.mark.parametrize("cuts", [{}, {"top_k": 12}, {"top_p": 0.8}, {"min_p": 0.1}])
def test_frequencies_follow_the_distribution(form: Choose, cuts: dict[str, Any]) -> None:
    """Pearson's chi-square: a mean of `degrees` and a deviation of √(2 · degrees), exceeded by four
    deviations less than once in a thousand.
    """
    draws = 6000
    row = logits_of(1, 24, 11, 1.0)
    limits = limits_of(draws, temperature=0.8, **cuts)
    limits[:, 4] = torch.rand(draws, generator=torch.Generator().manual_seed(4))
    found = Counter(form(row.expand(draws, -1), limits, None).tolist())
    probability = (row[0].double() / 0.8).softmax(0)
    kept = kept_by_definition(probability, cuts)
    expected = probability[kept] / probability[kept].sum() * draws
    assert set(found) <= set(kept.tolist())
    pairs = zip(kept.tolist(), expected.tolist(), strict=True)
    chi_square = sum((found[token] - count) ** 2 / count for token, count in pairs)
    degrees = len(kept) - 1
    assert chi_square < degrees + 4 * math.sqrt(2 * degrees)


def test_equal_logits_are_ranked_by_token(isa: str) -> None:
    """A thousand alike: far more than are sorted at once."""
    logits = torch.zeros(50, 1000)
    logits[:, 300:] = -1.0
    limits = limits_of(50, top_k=50)
    assert choose(logits, limits).tolist() == list(range(50)), isa
    assert choose(torch.zeros(3, 1000), limits_of(3, temperature=0.0)).tolist() == [0, 0, 0], isa


@settings(quick, max_examples=25)
@given(kinds=st.lists(KINDS, min_size=2, max_size=9), seed=st.integers(0, 10_000))
def test_a_row_is_chosen_alike_in_any_batch_and_on_any_threads(
    *, form: Choose, threads: None, kinds: list[dict[str, Any]], seed: int
) -> None:
    logits = logits_of(len(kinds), 5000, seed)
    limits = torch.cat([limits_of(1, **kind) for kind in kinds])
    limits[:, 4] = torch.rand(len(kinds), generator=torch.Generator().manual_seed(seed))
    changes = changes_of(len(kinds), 5000, seed)
    before = logits.clone()
    found = []
    for count in (1, 2):
        torch.set_num_threads(count)
        found.append(form(logits, limits, changes))
    alone = [
        form(logits[row : row + 1], limits[row : row + 1], of_row(changes, row)) for row in range(len(kinds))
    ]
    assert found[0].equal(found[1])
    assert found[0].equal(torch.cat(alone))
    assert logits.equal(before)


def test_native_rows_are_chosen_and_scored_alike_by_many_threads(isa: str, threads: None) -> None:
    """Enough numbers for several threads to share them."""
    rows, vocabulary = 12, 32_000
    logits, limits = logits_of(rows, vocabulary, 1), limits_of(rows)
    limits[:, 1] = torch.tensor([1.0, 0.9, 0.5]).repeat(4)
    limits[:, 3] = torch.tensor([0.0, 0.0, 0.0, 50.0, 0.0, 900.0]).repeat(2)
    changes = changes_of(rows, vocabulary, 1)
    chosen: list[torch.Tensor] = []
    scored: list[tuple[torch.Tensor, ...]] = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        chosen.append(choose(logits, limits, changes))
        scored.append(token_logprobs(logits, chosen[0], 20))
    alone = [
        choose(logits[row : row + 1], limits[row : row + 1], of_row(changes, row)) for row in range(rows)
    ]
    assert chosen[0].equal(torch.cat(alone)), isa
    assert all(chosen[0].equal(other) for other in chosen), isa
    assert all(one.equal(same) for other in scored for one, same in zip(scored[0], other, strict=True)), isa


def changes_of(rows: int, vocabulary: int, seed: int) -> Changes:
    """Penalties and biases at some tokens of each row but the first, masks for every second row."""
    random = torch.Generator().manual_seed(seed)
    counts = [0, *(7 * row + 1 for row in range(1, rows))]
    tokens = [torch.randperm(vocabulary, generator=random)[:count] for count in counts]
    total = sum(counts)
    return Changes(
        first_S1=torch.tensor([0, *counts], dtype=torch.int32).cumsum(0, dtype=torch.int32),
        token_N=torch.cat(tokens).to(torch.int32),
        count_N=torch.randint(-1, 4, (total,), generator=random).float(),
        bias_N=torch.randn(total, generator=random),
        strength_S3=torch.tensor([1.3, 0.5, 0.25]) * (0.5 + torch.rand(rows, 3, generator=random)),
        mask_RB=torch.randint(0, 256, ((rows + 1) // 2, -(-vocabulary // 8)), generator=random).byte(),
        mask_row_S=torch.tensor([row // 2 if row % 2 == 0 else -1 for row in range(rows)], dtype=torch.int32),
    )


def of_row(changes: Changes, row: int) -> Changes:
    first, end = changes.first_S1[row : row + 2].tolist()
    return Changes(
        first_S1=torch.tensor([0, end - first], dtype=torch.int32),
        token_N=changes.token_N[first:end],
        count_N=changes.count_N[first:end],
        bias_N=changes.bias_N[first:end],
        strength_S3=changes.strength_S3[row : row + 1],
        mask_RB=changes.mask_RB,
        mask_row_S=changes.mask_row_S[row : row + 1],
    )


@quick
@given(seed=st.integers(0, 10_000), vocabulary=st.sampled_from([40, 64, 1001]))
def test_native_changes_logits_as_the_definition(*, isa: str, seed: int, vocabulary: int) -> None:
    """The best token of changed logits, then of those without it, and so on, is the same."""
    changes = changes_of(5, vocabulary, seed)
    logits = logits_of(5, vocabulary, seed)
    limits = limits_of(5, temperature=0.0)
    for _ in range(12):
        found = choose(logits, limits, changes)
        assert found.equal(reference.choose(logits, limits, changes)), isa
        logits[torch.arange(5), found] = NEVER


@pytest.mark.parametrize("kind", [{"temperature": 0.0}, {}, {"top_k": 5}, {"top_p": 0.9, "min_p": 0.1}])
@pytest.mark.parametrize("place", [0, 70, 99])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_rows_that_are_not_finite_choose_nothing(
    form: Choose, kind: dict[str, Any], place: int, bad: float
) -> None:
    logits = logits_of(3, 100, 3)
    limits = limits_of(3, **kind)
    expected = form(logits, limits, None)
    logits[1, place] = bad
    assert form(logits, limits, None).tolist() == [expected[0], -1, expected[2]]
    assert form(torch.full((1, 100), NEVER), limits_of(1, **kind), None).tolist() == [-1]


@pytest.mark.parametrize("kind", [{"temperature": 0.0}, {}, {"top_k": 9}, {"top_p": 0.1}, {"min_p": 1.0}])
@pytest.mark.parametrize("allowed", [0, 63, 64, 98, 99, None])
def test_masks_leave_what_they_allow(form: Choose, kind: dict[str, Any], allowed: int | None) -> None:
    """Down to one token, and none; a row without a mask is untouched."""
    mask = torch.zeros(1, 13, dtype=torch.uint8)
    if allowed is not None:
        mask[0, allowed // 8] = 1 << allowed % 8
    none = torch.empty(0)
    changes = Changes(
        first_S1=torch.zeros(3, dtype=torch.int32), token_N=none.to(torch.int32), count_N=none, bias_N=none,
        strength_S3=torch.tensor([[1.0, 0.0, 0.0]] * 2), mask_RB=mask,
        mask_row_S=torch.tensor([-1, 0], dtype=torch.int32),
    )  # fmt: skip
    logits, limits = logits_of(2, 100, 6), limits_of(2, **kind)
    expected = [int(form(logits, limits, None)[0]), -1 if allowed is None else allowed]
    assert form(logits, limits, changes).tolist() == expected


def test_logits_that_are_impossible_already_stay_so(form: Choose) -> None:
    logits = logits_of(200, 300, 8)
    logits[:, 5:290] = NEVER
    for kind in ({}, {"top_k": 40}, {"top_p": 0.999}):
        found = form(logits, limits_of(200, temperature=3.0, **kind), None)
        assert ((found < 5) | (found >= 290)).all()


def test_the_ends_of_the_random_numbers_choose_possible_tokens(form: Choose) -> None:
    logits = logits_of(2, 3001, 9, 30.0)
    logits[:, -40:] = NEVER
    for kind in ({}, {"top_k": 3}, {"top_k": 2000}, {"top_p": 0.7}, {"min_p": 1e-30}):
        limits = limits_of(2, **kind)
        limits[:, 4] = torch.tensor([0.0, 1 - 2**-24])
        found = form(logits, limits, None)
        assert torch.isfinite(logits[torch.arange(2), found]).all()


@pytest.mark.usefixtures("library")
def test_tokens_beyond_the_vocabulary_are_refused() -> None:
    logits, limits = logits_of(2, 30, 1), limits_of(2)
    with pytest.raises(RuntimeError, match="of 30"):
        choose(logits, limits, changes_of(2, 31 + 8, 24))
    with pytest.raises(RuntimeError, match="token 30 of 30"):
        token_logprobs(logits, torch.tensor([0, 30]), 1)
