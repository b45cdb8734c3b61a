"""The same request twice: done once, answered twice, remembered encrypted and for a day."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connections

from core.clock import clock
from core.errors import ApiError
from tenants.idempotency import KEPT_FOR, answer_once
from tenants.models import IdempotentAnswer, Tenant
from tenants.scope import system_scope, tenant_scope
from tenants.services import tenant_create

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def tenant() -> Tenant:
    """An organisation."""
    with system_scope():
        return tenant_create(name="Ours", slug="ours", actor="test")


def _ask(
    tenant: Tenant,
    produce: Callable[[], bytes],
    *,
    key: str | None = "k",
    request: bytes = b"r",
    actor: str = "usr_1",
) -> bytes:
    with tenant_scope(tenant.id):
        return answer_once(tenant_id=tenant.id, actor=actor, key=key, request=request, produce=produce)


def test_the_second_answer_is_the_first_one(tenant: Tenant) -> None:
    answers = iter([b"one", b"two", b"three"])
    assert _ask(tenant, lambda: next(answers)) == b"one"
    assert _ask(tenant, lambda: next(answers)) == b"one"
    assert _ask(tenant, lambda: next(answers), actor="usr_2") == b"two"
    assert _ask(tenant, lambda: next(answers), key=None) == b"three"


def test_a_key_is_for_one_request(tenant: Tenant) -> None:
    _ask(tenant, lambda: b"one")
    with pytest.raises(ApiError) as caught:
        _ask(tenant, lambda: b"two", request=b"other")
    assert (caught.value.status, caught.value.code) == (422, "idempotency_key_reused")
    with pytest.raises(ApiError):
        _ask(tenant, lambda: b"two", key="x" * 256)


def test_a_failed_deed_leaves_no_memory(tenant: Tenant) -> None:
    def fail() -> bytes:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _ask(tenant, fail)
    assert _ask(tenant, lambda: b"one") == b"one"


def test_the_memory_is_encrypted_and_fades(tenant: Tenant) -> None:
    with clock.frozen(datetime(2026, 1, 2, tzinfo=UTC)) as frozen:
        _ask(tenant, lambda: b"a secret shown once")
        with tenant_scope(tenant.id):
            assert b"secret" not in bytes(IdempotentAnswer.objects.get().answer)
        frozen.advance(KEPT_FOR - timedelta(seconds=1))
        assert _ask(tenant, lambda: b"other") == b"a secret shown once"
        frozen.advance(timedelta(seconds=1))
        assert _ask(tenant, lambda: b"other") == b"other"


def test_two_at_once_do_it_once(tenant: Tenant) -> None:
    made: list[int] = []
    together = threading.Barrier(4)

    def ask() -> bytes:
        try:
            together.wait(10)

            def produce() -> bytes:
                made.append(1)
                return str(len(made)).encode()

            return _ask(tenant, produce)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        answers = {future.result() for future in [pool.submit(ask) for _ in range(4)]}
    assert (answers, len(made)) == ({b"1"}, 1)
