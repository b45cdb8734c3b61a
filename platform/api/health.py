"""Is the process alive, can it serve, and what has it counted?"""

from __future__ import annotations

from collections.abc import Callable

import redis
from django.conf import settings
from django.db import DatabaseError, connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from tenants.scope import APP, SYSTEM

_REDIS_TIMEOUT_S = 1.0


def healthz(_request: HttpRequest) -> HttpResponse:
    """Alive."""
    return JsonResponse({"status": "ok"})


def readyz(_request: HttpRequest) -> HttpResponse:
    """200 when PostgreSQL answers both roles and Redis answers; 503 and which one does not otherwise."""
    checks: dict[str, Callable[[], None]] = {
        "postgres_app": lambda: _ask_database(APP),
        "postgres_system": lambda: _ask_database(SYSTEM),
        "redis": _ask_redis,
    }
    answers = {name: _answer(check) for name, check in checks.items()}
    ready = all(answer == "ok" for answer in answers.values())
    status = "ready" if ready else "unready"
    return JsonResponse({"status": status, "checks": answers}, status=200 if ready else 503)


def metrics(_request: HttpRequest) -> HttpResponse:
    """Prometheus' text form."""
    return HttpResponse(generate_latest(), content_type=CONTENT_TYPE_LATEST)


def _answer(check: Callable[[], None]) -> str:
    try:
        check()
    except (DatabaseError, redis.RedisError) as error:
        return f"failed: {type(error).__name__}"
    return "ok"


def _ask_database(alias: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT 1")


def _ask_redis() -> None:
    with redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=_REDIS_TIMEOUT_S, socket_connect_timeout=_REDIS_TIMEOUT_S
    ) as client:
        client.ping()
