"""How the supervised processes are started."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import httpx

from stack.ports import free_port
from stack.processes import control_arguments

_ECHO = """
async def application(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["client"][0].encode()})
"""


def test_control_does_not_believe_who_a_client_says_it_is(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(_ECHO)
    port = free_port()
    arguments = [
        "echo:application" if part == "config.asgi:application" else part for part in control_arguments(port)
    ]
    process = subprocess.Popen([sys.executable, *arguments], cwd=tmp_path)
    try:
        assert _seen_client(port) == "127.0.0.1"
    finally:
        process.terminate()
        process.wait(20)


def _seen_client(port: int) -> str:
    for _ in range(200):
        try:
            answer = httpx.get(
                f"http://127.0.0.1:{port}/", headers={"x-forwarded-for": "203.0.113.9"}, trust_env=False
            )
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return answer.text
    raise AssertionError("the server did not answer")
