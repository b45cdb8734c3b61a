"""How a worker joins: the token works once, and only for the holder of the key."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from core.clock import clock
from core.errors import ApiError
from core.signing import SigningKey, signing_key_load
from inference.messages import EnrolRequest
from partners.enrolment import enrol_request_check, enrolled_with, token_challenge, token_open, worker_enrol
from partners.models import EnrolmentToken, Pool, Worker, WorkerState
from partners.services import TOKEN_LIFETIME, enrolment_token_create, partner_ensure, pool_ensure
from tenants.scope import system_scope

database = pytest.mark.django_db(transaction=True)


@pytest.fixture
def pool() -> Pool:
    """A pool to join."""
    return _pool("one")


def _pool(slug: str) -> Pool:
    with system_scope():
        partner = partner_ensure(slug=slug, name=slug, jurisdiction="CN")
        return pool_ensure(partner=partner, slug=slug, region="r", accelerator="cpu")


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    """The worker's key."""
    return signing_key_load(tmp_path / "worker.pem")


def _token(pool: Pool) -> str:
    with system_scope():
        return enrolment_token_create(pool=pool)


def _request(key: SigningKey, token: str = "t", nonce: str = "n") -> EnrolRequest:
    return EnrolRequest(
        token=token,
        nonce=nonce,
        name="worker-1",
        endpoint="http://127.0.0.1:9000",
        public_key=key.public_text,
        release="tokenworks-nano",
        release_digest="d" * 64,
        proof="p" * 64,
        capacity={"max_running": 8, "cache_tokens": 4096, "max_model_len": 2048},
    )


def _enrol(plain: str, key: SigningKey, **changes: Any) -> Worker:
    with system_scope():
        opened = token_open(plain)
        token_challenge(opened)
        opened = token_open(plain)
        return worker_enrol(token=opened, request=replace(_request(key, plain), **changes))


@database
def test_a_token_is_stored_as_a_digest_and_works_once(pool: Pool, key: SigningKey, tmp_path: Path) -> None:
    plain = _token(pool)
    with system_scope():
        assert plain.removeprefix("tw-enrol-") not in str(EnrolmentToken.objects.values().get())
    worker = _enrol(plain, key)
    assert (worker.pool_id, worker.state) == (pool.id, WorkerState.ACTIVE)
    with system_scope():
        used = EnrolmentToken.objects.get()
        assert used.used_by_id == worker.id
        assert used.used_at is not None
    with pytest.raises(ApiError, match="unknown, expired or used"):
        _enrol(plain, signing_key_load(tmp_path / "another.pem"))


@database
def test_unknown_malformed_and_expired_tokens_look_the_same(pool: Pool) -> None:
    with clock.frozen(datetime(2026, 1, 2, tzinfo=UTC)) as frozen:
        plain = _token(pool)
        with system_scope():
            token_open(plain)
        frozen.advance(TOKEN_LIFETIME)
        messages = set()
        for token in (plain, "", "nonsense", plain.replace("enrol", "sk")):
            with pytest.raises(ApiError) as caught, system_scope():
                token_open(token)
            messages.add((caught.value.status, caught.value.message))
    assert len(messages) == 1
    assert next(iter(messages))[0] == 401


@database
def test_a_fresh_token_replaces_the_unused_one(pool: Pool) -> None:
    old, other_pools = _token(pool), _token(_pool("two"))
    new = _token(pool)
    with system_scope():
        assert token_open(new).pool_id == pool.id
        token_open(other_pools)
        with pytest.raises(ApiError):
            token_open(old)


@database
def test_a_newer_challenge_ends_the_older_one(pool: Pool, key: SigningKey) -> None:
    plain = _token(pool)
    with system_scope():
        token_challenge(token_open(plain))
        stale = token_open(plain)
        token_challenge(stale)
    with pytest.raises(ApiError, match="unknown, expired or used"), system_scope():
        worker_enrol(token=stale, request=_request(key, plain))
    with system_scope():
        assert not Worker.objects.exists()


@database
def test_a_key_is_one_worker(pool: Pool, key: SigningKey) -> None:
    _enrol(_token(pool), key)
    second = _token(pool)
    with pytest.raises(ApiError) as caught:
        _enrol(second, key)
    assert (caught.value.status, caught.value.code) == (409, "public_key_known")
    with system_scope():
        assert token_open(second).pool_id == pool.id  # not used up by the refusal
        assert Worker.objects.count() == 1


@database
def test_one_of_many_at_once_gets_the_token(pool: Pool, tmp_path: Path) -> None:
    plain = _token(pool)
    with system_scope():
        token_challenge(token_open(plain))
    together = threading.Barrier(4)

    def enrol(number: int) -> str:
        try:
            key = signing_key_load(tmp_path / f"{number}.pem")
            with system_scope():
                opened = token_open(plain)
                together.wait(10)
                return worker_enrol(token=opened, request=_request(key, plain)).id
        except ApiError as error:
            return str(error.status)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as threads:
        outcomes = sorted(future.result() for future in [threads.submit(enrol, n) for n in range(4)])
    assert outcomes[:3] == ["401"] * 3
    with system_scope():
        assert [worker.id for worker in Worker.objects.all()] == outcomes[3:]


@database
def test_whoever_moves_in_retires_who_was_there_in_the_same_pool(pool: Pool, tmp_path: Path) -> None:
    keys = [signing_key_load(tmp_path / f"{number}.pem") for number in range(4)]
    first = _enrol(_token(pool), keys[0])
    elsewhere = _enrol(_token(pool), keys[1], endpoint="http://127.0.0.1:9001")
    foreign = _enrol(_token(_pool("two")), keys[2])
    successor = _enrol(_token(pool), keys[3], endpoint="http://127.0.0.1:9000/")
    with system_scope():
        states = dict(Worker.objects.values_list("id", "state"))
    assert states == {
        first.id: "retired",
        elsewhere.id: "active",
        foreign.id: "active",
        successor.id: "active",
    }


@database
def test_the_answer_lost_on_the_way_can_be_asked_for_again(pool: Pool, key: SigningKey) -> None:
    plain = _token(pool)
    worker = _enrol(plain, key)
    with system_scope():
        again = enrolled_with(token=plain, public_key=key.public_text)
        assert again is not None
        assert again.id == worker.id
        assert enrolled_with(token=plain, public_key="other") is None
        assert enrolled_with(token="other", public_key=key.public_text) is None


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"public_key": "short"}, 422, "public_key"),
        ({"public_key": "A" * 44}, 422, "public_key"),
        ({"name": ""}, 422, "name"),
        ({"name": "a\nb"}, 422, "name"),
        ({"endpoint": "ftp://host"}, 422, "endpoint"),
        ({"endpoint": "http://user:pw@host"}, 422, "endpoint"),
        ({"endpoint": "http://host/path"}, 422, "endpoint"),
        ({"endpoint": "http://host?q"}, 422, "endpoint"),
        ({"endpoint": "http://host:99999"}, 422, "endpoint"),
        ({"endpoint": "http://"}, 422, "endpoint"),
        ({"endpoint": "http://" + "h" * 200}, 422, "endpoint"),
        ({"capacity": {"max_running": 8}}, 422, "capacity"),
        (
            {"capacity": {"max_running": 0, "cache_tokens": 1, "max_model_len": 1}},
            422,
            "capacity.max_running",
        ),
        (
            {"capacity": {"max_running": 1, "cache_tokens": True, "max_model_len": 1}},
            422,
            "capacity.cache_tokens",
        ),
    ],
)
def test_requests_that_make_no_sense_are_refused(
    key: SigningKey, changes: dict[str, object], status: int, param: str
) -> None:
    request = replace(_request(key), **changes)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ApiError) as caught:
        enrol_request_check(request, key.sign(request.signing_bytes()))
    assert (caught.value.status, caught.value.param) == (status, param)


def test_the_signature_must_be_of_this_key_over_this_request(key: SigningKey, tmp_path: Path) -> None:
    request, other = _request(key), signing_key_load(tmp_path / "other.pem")
    enrol_request_check(request, key.sign(request.signing_bytes()))
    forged = (
        other.sign(request.signing_bytes()),
        key.sign(replace(request, endpoint="http://evil:1").signing_bytes()),
        "",
        "not base64 !",
    )
    for signature in forged:
        with pytest.raises(ApiError) as caught:
            enrol_request_check(request, signature)
        assert (caught.value.status, caught.value.code) == (403, "bad_signature")


@database
def test_lifetimes_are_what_was_asked(pool: Pool) -> None:
    with clock.frozen(datetime(2026, 1, 2, tzinfo=UTC)), system_scope():
        enrolment_token_create(pool=pool, lifetime=timedelta(minutes=5))
        assert EnrolmentToken.objects.get().expires_at == datetime(2026, 1, 2, 0, 5, tzinfo=UTC)
