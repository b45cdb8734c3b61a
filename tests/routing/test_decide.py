"""Routing is pure, neutral and replayable."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.rating import Price
from routing.decide import decide, decision_replay, digest_of
from routing.records import Constraints, Decision, WorkerStatus
from routing.snapshot import Model, Policy, Snapshot, WorkerEntry

POLICY = Policy(name="p", price_weight=1, load_weight=1, half_cost_ppm=150_000)
PROFILE = settings(max_examples=60, deadline=None, derandomize=True)


def worker(name: str, price: int, **changes: Any) -> WorkerEntry:
    fields: dict[str, Any] = {
        "worker_id": f"wrk_{name}",
        "pool_id": f"pol_{name}",
        "partner_id": f"par_{name}",
        "partner_slug": name,
        "region": "r",
        "model": "m",
        "release_digest": "d",
        "endpoint": "http://x",
        "public_key": "k",
        "max_running": 10,
        "state": "active",
        "price": Price(
            offer_id=f"off_{name}",
            input_nano_per_mtok=price,
            cached_input_nano_per_mtok=price,
            output_nano_per_mtok=price,
            levy_ppm=50_000,
        ),
    }
    return WorkerEntry(**{**fields, **changes})


def snapshot(workers: list[WorkerEntry], policy: Policy = POLICY) -> Snapshot:
    model = Model(name="m", release_id="r", release_digest="d", max_model_len=100, created=1, vocab_size=10)
    return Snapshot(
        version=1,
        published_at_ms=1,
        charter_digest="c",
        policy=policy,
        models=(model,),
        workers=tuple(workers),
    )


def choose(
    workers: list[WorkerEntry],
    *,
    loads: dict[str, int] | None = None,
    states: dict[str, str] | None = None,
    seed: bytes = b"s" * 32,
    policy: Policy = POLICY,
    **wishes: Any,
) -> Decision:
    """A decision; ``loads`` by partner (0 where missing, None for no heartbeat)."""
    loads, states = loads or {}, states or {}
    statuses = {
        one.worker_id: WorkerStatus(
            state=states.get(one.partner_slug, "ready"), in_flight=loads.get(one.partner_slug, 0)
        )
        for one in workers
        if states.get(one.partner_slug) != "silent"
    }
    published = snapshot(workers, policy)
    request = Constraints(**{"model": "m", "prompt_tokens": 100, "completion_tokens": 50, **wishes})
    return decide(
        snapshot=published,
        snapshot_digest=digest_of(published),
        policy_digest=digest_of(policy),
        statuses=statuses,
        request=request,
        seed=seed,
    )


def seed_of(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


names = st.lists(st.text("abcdefgh", min_size=1, max_size=4), min_size=1, max_size=6, unique=True)


@st.composite
def fields(draw: st.DrawFn) -> tuple[list[WorkerEntry], dict[str, int], bytes]:
    chosen = draw(names)
    prices = draw(st.lists(st.integers(1, 10**9), min_size=len(chosen), max_size=len(chosen)))
    loads = draw(st.lists(st.integers(0, 30), min_size=len(chosen), max_size=len(chosen)))
    workers = [worker(name, price) for name, price in zip(chosen, prices, strict=True)]
    return workers, dict(zip(chosen, loads, strict=True)), draw(st.binary(min_size=32, max_size=32))


@PROFILE
@given(fields(), st.randoms(use_true_random=False))
def test_order_of_workers_does_not_matter(
    field: tuple[list[WorkerEntry], dict[str, int], bytes], random: Any
) -> None:
    workers, loads, seed = field
    shuffled = workers.copy()
    random.shuffle(shuffled)
    first, second = choose(workers, loads=loads, seed=seed), choose(shuffled, loads=loads, seed=seed)
    assert first.ranked == second.ranked
    assert first.eligible == second.eligible


@PROFILE
@given(fields(), st.randoms(use_true_random=False))
def test_permuting_labels_permutes_the_outcome(
    field: tuple[list[WorkerEntry], dict[str, int], bytes], random: Any
) -> None:
    workers, loads, seed = field
    decision = choose(workers, loads=loads, seed=seed)
    if len({one.cost_ppm for one in decision.eligible}) < len(workers):
        return  # ties are broken by names, evenly: see below
    labels = [one.partner_slug for one in workers]
    other = labels.copy()
    random.shuffle(other)
    renamed = dict(zip(labels, other, strict=True))
    relabelled = [worker(renamed[one.partner_slug], one.price.input_nano_per_mtok) for one in workers]
    moved = choose(relabelled, loads={renamed[name]: load for name, load in loads.items()}, seed=seed)
    assert moved.ranked == tuple(f"wrk_{renamed[one.removeprefix('wrk_')]}" for one in decision.ranked)


def test_exact_ties_are_broken_evenly() -> None:
    workers = [worker(name, 100) for name in ("a", "b", "c")]
    policy = Policy(name="p", price_weight=1, load_weight=1, half_cost_ppm=0)
    shares = Counter(choose(workers, seed=seed_of(index), policy=policy).chosen for index in range(900))
    assert all(240 < count < 360 for count in shares.values())
    assert len(shares) == 3


@PROFILE
@given(fields())
def test_cheaper_is_never_less_likely_at_equal_load(
    field: tuple[list[WorkerEntry], dict[str, int], bytes],
) -> None:
    workers, _, seed = field
    decision = choose(workers, loads=dict.fromkeys((one.partner_slug for one in workers), 3), seed=seed)
    by_price = sorted(decision.eligible, key=lambda one: one.price.input_nano_per_mtok)
    weights = [one.weight for one in by_price]
    assert weights == sorted(weights, reverse=True)
    assert weights[0] > 0


@PROFILE
@given(fields())
def test_less_loaded_is_never_less_likely_at_equal_price(
    field: tuple[list[WorkerEntry], dict[str, int], bytes],
) -> None:
    workers, loads, seed = field
    same = [worker(one.partner_slug, 100) for one in workers]
    by_load = sorted(choose(same, loads=loads, seed=seed).eligible, key=lambda one: one.in_flight)
    weights = [one.weight for one in by_load]
    assert weights == sorted(weights, reverse=True)


@PROFILE
@given(fields())
def test_replay_from_json_gives_the_same(field: tuple[list[WorkerEntry], dict[str, int], bytes]) -> None:
    workers, loads, seed = field
    decision = choose(workers, loads=loads, seed=seed)
    read = msgspec.json.decode(msgspec.json.encode(decision), type=Decision)
    assert read == decision
    assert decision_replay(read) == decision


def test_altered_record_does_not_replay() -> None:
    decision = choose([worker("a", 100), worker("b", 500)])
    forged = msgspec.structs.replace(decision, chosen="wrk_b", ranked=("wrk_b", "wrk_a"))
    assert decision_replay(forged) != forged


def test_shares_follow_the_policy() -> None:
    """15% dearer is one halving: about two to one."""
    workers = [worker("a", 1000), worker("b", 1150)]
    shares = Counter(choose(workers, seed=seed_of(index)).chosen for index in range(1500))
    assert 0.62 < shares["wrk_a"] / 1500 < 0.71


@pytest.mark.parametrize(
    ("states", "wishes", "codes"),
    [
        ({"b": "silent"}, {}, {"b": "no_heartbeat"}),
        ({"b": "draining"}, {}, {"b": "not_ready"}),
        ({"b": "starting"}, {}, {"b": "not_ready"}),
        ({"b": "unreachable"}, {}, {"b": "unreachable"}),
        ({}, {"only": ("a",)}, {"b": "not_in_only", "c": "not_in_only"}),
        ({}, {"ignore": ("b",)}, {"b": "ignored"}),
        ({}, {"max_input_nano_per_mtok": 115}, {"b": "over_max_price", "c": "over_max_price"}),
        ({}, {"max_output_nano_per_mtok": 115}, {"b": "over_max_price", "c": "over_max_price"}),
        ({}, {"order": ("a",), "allow_fallbacks": False}, {"b": "not_in_order", "c": "not_in_order"}),
        (dict.fromkeys("abc", "silent"), {}, dict.fromkeys("abc", "no_heartbeat")),
    ],
)
def test_exclusions_have_reasons_and_are_respected(
    states: dict[str, str], wishes: dict[str, Any], codes: dict[str, str]
) -> None:
    workers = [worker("a", 100), worker("b", 110), worker("c", 140)]
    for number in range(20):
        decision = choose(workers, states=states, seed=seed_of(number), **wishes)
        assert {one.partner: one.code for one in decision.excluded} == codes
        assert {one.partner for one in decision.eligible} == {"a", "b", "c"} - codes.keys()
        assert set(decision.ranked) == {one.worker_id for one in decision.eligible}
        assert decision.chosen == (decision.ranked[0] if decision.ranked else None)


def test_workers_that_can_never_compete() -> None:
    workers = [worker("a", 100), worker("b", 90, state="draining"), worker("c", 80, release_digest="e")]
    decision = choose(workers)
    assert {one.partner: one.code for one in decision.excluded} == {
        "b": "not_active",
        "c": "release_mismatch",
    }
    assert decision.ranked == ("wrk_a",)
    assert choose(workers, model="other").ranked == ()


def test_preferred_order_comes_first_then_the_rest() -> None:
    workers = [worker("a", 100), worker("b", 110), worker("c", 140)]
    for number in range(20):
        decision = choose(workers, seed=seed_of(number), order=("c", "b"))
        assert decision.ranked == ("wrk_c", "wrk_b", "wrk_a")
    assert decision.reason.startswith("preferred by request")
    assert len(choose(workers, allow_fallbacks=False).ranked) == 1


def test_load_moves_the_choice() -> None:
    workers = [worker("a", 100), worker("b", 110)]
    policy = Policy(name="p", price_weight=1, load_weight=1, half_cost_ppm=0)
    assert choose(workers, policy=policy).chosen == "wrk_a"
    assert choose(workers, policy=policy, loads={"a": 5}).chosen == "wrk_b"


def test_free_offers_do_not_divide_by_zero() -> None:
    decision = choose([worker("a", 0), worker("b", 100)])
    assert decision.chosen == "wrk_a"
