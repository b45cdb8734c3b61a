"""Log lines are JSON, carry their fields, and hide what looks like a secret."""

from __future__ import annotations

import json
import logging

import pytest

from inference.worker.logs import configure_logs, log_event


@pytest.fixture(autouse=True)
def _restored(restored_logging: None) -> None:
    pass


def test_events_are_json_lines_with_their_fields(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(worker="one")
    log_event("request_served", request_id="req_1", total_ms=5)
    logging.getLogger("other").warning("from a library: %d", 3)
    log_event("failed", level=logging.ERROR, error=RuntimeError("why"), path="/x")
    first, second, third = map(json.loads, capsys.readouterr().err.splitlines())
    assert first["event"] == "request_served"
    assert (first["process"], first["worker"], first["request_id"], first["total_ms"]) == (
        "worker",
        "one",
        "req_1",
        5,
    )
    assert (second["event"], second["level"]) == ("from a library: 3", "warning")
    assert "RuntimeError: why" in third["exception"]


def test_secrets_are_hidden_wherever_they_stand(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(worker="one")
    secret = "tw-enr-" + "0123456789abcdef" * 4
    log_event("failed", error=RuntimeError(f"token {secret}"), problem=secret)
    err = capsys.readouterr().err
    assert secret not in err
    assert err.count("[redacted]") == 2
