"""Settings say loudly what is missing; the process that serves has no more rights than it needs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from config.env import env_bool, env_database, env_int, env_list, env_text

NEEDED = (
    "TOKENWORKS_SECRET_KEY",
    "TOKENWORKS_DISPATCH_SECRET",
    "REDIS_URL",
    "DATABASE_APP_URL",
    "DATABASE_SYSTEM_URL",
)


def _settings_in_a_process(code: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
    merged = {**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings", **environment}
    clean = {name: value for name, value in merged.items() if value is not None}
    command = [sys.executable, "-c", f"from django.conf import settings\n{code}"]
    return subprocess.run(command, env=clean, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_variable_is_named(name: str) -> None:
    done = _settings_in_a_process("settings.SECRET_KEY", **{name: None})
    assert done.returncode != 0
    assert f"environment variable {name} is not set" in done.stderr


def test_without_the_owners_url_the_owner_is_unknown() -> None:
    done = _settings_in_a_process("print(sorted(settings.DATABASES))", DATABASE_URL=None)
    assert done.stdout.strip() == "['default', 'system']"


def test_https_makes_cookies_secure_and_is_enforced() -> None:
    code = (
        "print(settings.SESSION_COOKIE_SECURE, settings.CSRF_COOKIE_SECURE, settings.SECURE_HSTS_SECONDS > 0)"
    )
    for url, expected in (("https://control.example", "True True True"), ("http://c", "False False False")):
        done = _settings_in_a_process(code, TOKENWORKS_CONTROL_URL=url)
        assert done.stdout.strip() == expected, done.stderr


def test_the_serving_process_knows_no_torch() -> None:
    code = "import config.asgi, sys; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = _settings_in_a_process(code)
    assert done.stdout.strip() == "False False", done.stderr


def test_passwords_and_sessions_are_kept_as_they_should_be() -> None:
    assert settings.PASSWORD_HASHERS == ["tenants.hashers.Argon2id"]
    assert settings.SESSION_COOKIE_HTTPONLY
    assert settings.SESSION_COOKIE_SAMESITE == "Lax"
    assert settings.DEBUG is False
    assert "unsafe" not in settings.CONTENT_SECURITY_POLICY


def test_values_are_read_strictly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T_X", "yes")
    assert env_bool("T_X", False) is True
    monkeypatch.setenv("T_X", "maybe")
    with pytest.raises(ImproperlyConfigured, match="T_X must be true or false"):
        env_bool("T_X", False)
    with pytest.raises(ImproperlyConfigured, match="T_X must be a whole number"):
        env_int("T_X", 1)
    monkeypatch.setenv("T_X", "")
    assert env_bool("T_X", True) is True
    assert env_int("T_X", 7) == 7
    assert env_list("T_X", ["a"]) == ["a"]
    with pytest.raises(ImproperlyConfigured, match="T_X is not set"):
        env_text("T_X")
    monkeypatch.setenv("T_X", " a , b,")
    assert env_list("T_X", []) == ["a", "b"]


def test_database_urls_are_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T_DB", "postgresql://us%40er:p%2Fw@host:6543/na%20me?sslmode=require")
    entry = env_database("T_DB", pool_size=3)
    assert [entry[name] for name in ("USER", "PASSWORD", "HOST", "PORT", "NAME")] == [
        "us@er",
        "p/w",
        "host",
        "6543",
        "na me",
    ]
    options = entry["OPTIONS"]
    assert isinstance(options, dict)
    assert options["sslmode"] == "require"
    assert options["pool"]["max_size"] == 3
    for bad in ("mysql://h/n", "postgresql://h", "nonsense"):
        monkeypatch.setenv("T_DB", bad)
        with pytest.raises(ImproperlyConfigured, match="T_DB"):
            env_database("T_DB")
