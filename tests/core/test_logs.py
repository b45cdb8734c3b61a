"""Logs are JSON lines, and no secret gets into one."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from core.logs import redact
from core.secrets import new_secret


def redacted(**event: Any) -> dict[str, Any]:
    """The event as it is written."""
    return dict(redact(None, "info", dict(event)))


@pytest.mark.parametrize("name", ["authorization", "Authorization", "password", "token", "secret", "api_key"])
def test_secret_fields_lose_their_value(name: str) -> None:
    assert redacted(event="x", **{name: "anything"}) == {"event": "x", name: "[redacted]"}


def test_secrets_are_found_anywhere_in_text() -> None:
    plain = new_secret("sk").plain
    written = redacted(event=f"key {plain} used", error=f"ValueError('{plain}')", status=200)
    assert plain not in str(written)
    assert written["event"] == "key [redacted] used"
    assert written["status"] == 200


def test_secrets_are_found_inside_other_values() -> None:
    plain = new_secret("sk").plain
    written = redacted(
        event="x",
        headers={"Authorization": "Bearer y", "n": 1},
        list=[plain, {"password": "p"}],
        pair=(plain,),
    )
    assert plain not in str(written)
    assert written["headers"] == {"Authorization": "[redacted]", "n": 1}
    assert written["list"][1] == {"password": "[redacted]"}


SCRIPT = """
import logging, structlog
from core.logs import configure_logs
configure_logs(process="test")
structlog.contextvars.bind_contextvars(request_id="req_1")
structlog.get_logger().info("hello", token="t")
logging.getLogger("library").warning("from %s", "elsewhere")
try:
    raise ValueError("bad SECRET")
except ValueError:
    structlog.get_logger().exception("failed")
logging.getLogger("library").debug("not shown")
"""


def test_every_logger_writes_json_lines_with_the_context() -> None:
    plain = new_secret("sk").plain
    script = SCRIPT.replace("SECRET", plain)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["hello", "from elsewhere", "failed"]
    assert {line["process"] for line in lines} == {"test"}
    assert {line["request_id"] for line in lines} == {"req_1"}
    assert [line["level"] for line in lines] == ["info", "warning", "error"]
    assert lines[0]["token"] == "[redacted]"
    assert "ValueError" in lines[2]["exception"]
    assert plain not in done.stderr
    assert done.stdout == ""
