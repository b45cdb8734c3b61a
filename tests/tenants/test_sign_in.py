"""Sign-in: one answer for every failure, the same work for all, counted attempts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.hashers import make_password

from core.clock import clock
from core.errors import ApiError
from tenants import sign_in
from tenants.models import SignInWindow, User
from tenants.sign_in import ATTEMPTS_PER_ACCOUNT_AND_ADDRESS, ATTEMPTS_PER_ADDRESS, WINDOW, user_authenticate

database = pytest.mark.django_db(transaction=True)

EMAIL, PASSWORD, ADDRESS = "someone@test.example", "a long enough password", "192.0.2.7"
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.fixture
def user() -> User:
    """Someone who can sign in."""
    return User.objects.create(email=EMAIL, password=make_password(PASSWORD))


def _refusal(email: str = EMAIL, password: str = "wrong", address: str = ADDRESS) -> ApiError:
    with pytest.raises(ApiError) as caught:
        user_authenticate(email=email, password=password, address=address)
    return caught.value


@database
def test_right_credentials_find_the_user_whatever_the_letter_case(user: User) -> None:
    assert user_authenticate(email=f" {EMAIL.upper()} ", password=PASSWORD, address=ADDRESS).id == user.id


@database
def test_every_failure_looks_the_same(user: User) -> None:
    switched_off = User.objects.create(
        email="off@test.example", password=make_password(PASSWORD), is_active=False
    )
    refusals = [
        _refusal(),
        _refusal(email="nobody@test.example"),
        _refusal(email=switched_off.email, password=PASSWORD),
    ]
    assert {(refusal.status, refusal.message, refusal.code) for refusal in refusals} == {
        (401, "Email or password is wrong. Check both and try again.", "invalid_credentials")
    }


@database
def test_an_unknown_email_costs_a_password_hash_too(user: User) -> None:
    with mock.patch.object(sign_in, "make_password", wraps=make_password) as hashed:
        _refusal(email="nobody@test.example")
        assert hashed.call_count == 1
        _refusal()
        assert hashed.call_count == 1


@database
def test_guessing_ends_in_429_even_for_the_right_password_and_the_window_passes(user: User) -> None:
    with mock.patch.object(User, "check_password", return_value=False), clock.frozen(NOON):
        for _attempt in range(ATTEMPTS_PER_ACCOUNT_AND_ADDRESS):
            assert _refusal().status == 401
    with clock.frozen(NOON + timedelta(minutes=5)) as frozen:
        blocked = _refusal(password=PASSWORD)
        assert (blocked.status, blocked.code) == (429, "too_many_attempts")
        assert blocked.retry_after_ms == 10 * 60 * 1000
        assert user_authenticate(email=EMAIL, password=PASSWORD, address="198.51.100.1").id == user.id
        frozen.advance(WINDOW - timedelta(minutes=5))
        assert user_authenticate(email=EMAIL, password=PASSWORD, address=ADDRESS).id == user.id


@database
def test_success_forgets_the_failures_before(user: User) -> None:
    with clock.frozen(NOON):
        for _round in range(3):
            for _attempt in range(ATTEMPTS_PER_ACCOUNT_AND_ADDRESS - 1):
                with mock.patch.object(User, "check_password", return_value=False):
                    assert _refusal().status == 401
            user_authenticate(email=EMAIL, password=PASSWORD, address=ADDRESS)


@database
def test_one_address_cannot_try_many_accounts(user: User) -> None:
    counter = sign_in._counters(EMAIL, ADDRESS)[1]
    SignInWindow.objects.using("system").create(
        subject=counter.subject, started_at=clock.now(), attempts=ATTEMPTS_PER_ADDRESS
    )
    assert _refusal(password=PASSWORD).status == 429


def test_an_ipv6_subscriber_is_one_address() -> None:
    first, second = (sign_in._counters(EMAIL, f"2001:db8:1:2::{host}") for host in ("1", "ffff"))
    other = sign_in._counters(EMAIL, "2001:db8:1:3::1")
    assert first == second != other


@database
def test_django_itself_signs_nobody_in(user: User) -> None:
    assert authenticate(None, email=EMAIL, username=EMAIL, password=PASSWORD) is None
