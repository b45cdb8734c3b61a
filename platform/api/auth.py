"""Who calls: the session of a signed-in person (with a CSRF token on writes), or an API key."""

from __future__ import annotations

from typing import cast

from django.conf import settings
from django.http import HttpRequest
from ninja.security import APIKeyCookie, HttpBearer
from ninja.utils import check_csrf

from core.errors import ApiError
from tenants.actor import Actor, actor_of_secret, actor_of_user
from tenants.models import User

TENANT_SESSION_KEY = "tenant_id"


class KeyAuth(HttpBearer):
    """An API key of kind ``api``; a wrong one is refused at once, whatever session comes along."""

    def authenticate(self, request: HttpRequest, token: str) -> Actor:
        """The key's actor. Raises ApiError 401."""
        return actor_of_secret(token.strip())


class SessionAuth(APIKeyCookie):
    """The session cookie of the console."""

    param_name = settings.SESSION_COOKIE_NAME

    def __call__(self, request: HttpRequest) -> Actor | None:
        """The person's actor, or None for a stranger. Raises ApiError 403 without a CSRF token on a write."""
        return self.authenticate(request, request.COOKIES.get(self.param_name))

    def authenticate(self, request: HttpRequest, key: str | None) -> Actor | None:
        """As above."""
        user = request.user
        if key is None or not isinstance(user, User):
            return None
        if check_csrf(request) is not None:
            raise ApiError(
                403,
                "Send the csrf_token of POST /api/session or GET /api/me as the header X-CSRFToken.",
                type="permission_error",
                code="csrf_failed",
            )
        return actor_of_user(user, tenant_id=request.session.get(TENANT_SESSION_KEY))


AUTH = [KeyAuth(), SessionAuth()]


def actor_of(request: HttpRequest) -> Actor:
    """Who calls this endpoint."""
    return cast("Actor", request.auth)  # type: ignore[attr-defined]  # set by ninja, unknown to Django
