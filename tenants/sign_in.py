"""Sign-in by email and password: counted attempts, one answer for every failure, the same work for all."""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.hashers import make_password
from django.db import connections
from django.http import HttpRequest

from core.clock import clock
from core.errors import ApiError
from tenants.models import SignInWindow, User
from tenants.scope import SYSTEM, system_scope

WINDOW = timedelta(minutes=15)
ATTEMPTS_PER_ACCOUNT_AND_ADDRESS = 10
ATTEMPTS_PER_ADDRESS = 100
BACKEND = "tenants.sign_in.EmailBackend"

_COUNT = """
    INSERT INTO tenants_signinwindow AS seen (subject, started_at, attempts) VALUES (%(subject)s, %(now)s, 1)
    ON CONFLICT (subject) DO UPDATE SET
        attempts = CASE WHEN seen.started_at <= %(stale)s THEN 1 ELSE seen.attempts + 1 END,
        started_at = CASE WHEN seen.started_at <= %(stale)s THEN %(now)s ELSE seen.started_at END
    RETURNING attempts, started_at
"""


@dataclass(frozen=True)
class _Counter:
    subject: str
    limit: int


def user_authenticate(*, email: str, password: str, address: str) -> User:
    """The active user with these credentials, signing in from the network ``address``.

    Raises ApiError 429 after too many attempts from there, else one and the same 401 for an unknown email,
    a wrong password and an account that is switched off, after the same work.
    """
    email = email.strip().lower().replace("\0", "")  # which the database cannot look up
    counters = _counters(email, address)
    _attempts_count(counters)
    user = User.objects.filter(email=email).first()
    if user is None:
        make_password(password)
    if user is None or not user.check_password(password) or not user.is_active:
        raise ApiError(
            401,
            "Email or password is wrong. Check both and try again.",
            type="authentication_error",
            code="invalid_credentials",
        )
    _attempts_forget(counters[0])
    return user


def _counters(email: str, address: str) -> tuple[_Counter, _Counter]:
    network = _network(address)
    return (
        _Counter(_digest(network, email), ATTEMPTS_PER_ACCOUNT_AND_ADDRESS),
        _Counter(_digest(network), ATTEMPTS_PER_ADDRESS),
    )


def _network(address: str) -> str:
    """The address; of an IPv6 one the /64, since a single subscriber owns all of that."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 6:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


def _attempts_count(counters: tuple[_Counter, ...]) -> None:
    """Count before the password is looked at, so that attempts at the same moment count too."""
    now = clock.now()
    blocked_until: datetime | None = None
    with system_scope(), connections[SYSTEM].cursor() as cursor:
        for counter in sorted(counters, key=lambda counter: counter.subject):
            values: dict[str, str | datetime] = {
                "subject": counter.subject,
                "now": now,
                "stale": now - WINDOW,
            }
            cursor.execute(_COUNT, values)
            attempts, started_at = cursor.fetchone()
            if attempts > counter.limit:
                blocked_until = max(blocked_until or now, started_at + WINDOW)
    if blocked_until is not None:
        wait_ms = max(1000, int((blocked_until - now).total_seconds() * 1000))
        raise ApiError(
            429,
            "Too many sign-in attempts. Wait and try again.",
            type="rate_limit_error",
            code="too_many_attempts",
            retry_after_ms=wait_ms,
        )


def _attempts_forget(counter: _Counter) -> None:
    with system_scope():
        SignInWindow.objects.filter(subject=counter.subject).delete()
        SignInWindow.objects.filter(started_at__lte=clock.now() - WINDOW).delete()


class EmailBackend(BaseBackend):
    """Lets Django's session find its user. Credentials go through ``user_authenticate`` only."""

    def authenticate(self, request: HttpRequest | None, **_credentials: object) -> None:
        """Never: sign-in without counting attempts is not offered."""
        return

    def get_user(self, user_id: str) -> User | None:
        """The active user with this id."""
        return User.objects.filter(id=user_id, is_active=True).first()
