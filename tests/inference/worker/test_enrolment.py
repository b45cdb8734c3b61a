"""Enrolment against a server that speaks the contract: proof, retries, refusals, and what is kept."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from inference.messages import Capacity, manifest_digest, release_manifest
from inference.worker.membership import control, join
from inference.worker.membership.enrol import Candidate
from inference.worker.membership.errors import (
    ConfigurationError,
    RefusedError,
    StartupError,
    UnreachableError,
)
from inference.worker.membership.identity import Identity, identity_load
from inference.worker.membership.release import release_read
from inference.worker.signing import WorkerKey, key_load

CHALLENGE: dict[str, Any] = {"nonce": "nonce-1", "release": "tokenworks-test", "ranges": []}


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(join, "TOKEN_WAIT_S", 0.3)


@pytest.fixture
def candidate(utility: Any, key: WorkerKey, tiny_dir: Path) -> Candidate:
    return Candidate(
        name="one",
        endpoint="http://127.0.0.1:9",
        release="tokenworks-test",
        control_url=utility.url,
        files=release_read(tiny_dir),
        key=key,
        capacity=Capacity(max_running=4, cache_tokens=64, max_model_len=32),
    )


class Home:
    """A state directory with its token file."""

    def __init__(self, folder: Path, candidate: Candidate) -> None:
        self.identity_file = folder / "state" / "identity.json"
        self.token_file = folder / "token"
        self.candidate = candidate

    async def join(self, token: str | None = None, **changes: Any) -> Identity:
        if token is not None:
            self.token_file.write_text(f"{token}\n")
        async with httpx.AsyncClient() as client:
            return await join.identity_obtain(
                candidate=dataclasses.replace(self.candidate, **changes),
                identity_file=self.identity_file,
                token_file=self.token_file,
                client=client,
            )


@pytest.fixture
def home(tmp_path: Path, candidate: Candidate) -> Home:
    return Home(tmp_path, candidate)


async def test_a_worker_enrols_with_its_token_and_keeps_its_identity_private(
    home: Home, utility: Any, tiny_dir: Path
) -> None:
    identity = await home.join("token-1")
    assert identity.enrolment.worker_id == "wrk_1"
    (request,) = utility.enrolled
    assert request["release_digest"] == manifest_digest(release_manifest(tiny_dir))
    assert request["capacity"] == {"max_running": 4, "cache_tokens": 64, "max_model_len": 32}
    assert home.identity_file.stat().st_mode & 0o777 == 0o600
    assert identity_load(home.identity_file) == identity
    assert "token-1" not in home.identity_file.read_text()


async def test_a_known_worker_asks_for_nothing(home: Home, utility: Any) -> None:
    first = await home.join("token-1")
    calls = len(utility.calls)
    assert await home.join() == first
    home.token_file.unlink()
    assert await home.join() == first
    assert len(utility.calls) == calls


async def test_a_fresh_token_enrols_anew(home: Home) -> None:
    await home.join("token-1")
    assert (await home.join("token-2")).enrolment.worker_id == "wrk_2"


async def test_a_bad_fresh_token_does_not_stop_a_worker_that_is_known(home: Home) -> None:
    first = await home.join("token-1")
    assert await home.join("expired") == first


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"endpoint": "http://127.0.0.1:8"}, "its address"),
        ({"control_url": "http://x"}, "the control"),
        ({"release": "y"}, "its release changed"),
    ],
)
async def test_a_worker_that_changed_needs_a_fresh_token(
    home: Home, change: dict[str, Any], words: str
) -> None:
    await home.join("token-1")
    with pytest.raises(ConfigurationError, match=words):
        await home.join(**change)


async def test_a_worker_that_changed_enrols_with_a_fresh_token(home: Home) -> None:
    await home.join("token-1")
    moved = await home.join("token-2", endpoint="http://127.0.0.1:8")
    assert (moved.endpoint, moved.enrolment.worker_id) == ("http://127.0.0.1:8", "wrk_2")
    with pytest.raises(RefusedError):
        await home.join("token-2b", endpoint="http://127.0.0.1:7")


async def test_the_token_may_appear_later(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.token_file.write_text("")
    monkeypatch.setattr(join, "TOKEN_WAIT_S", 60)
    joining = asyncio.create_task(home.join())
    await asyncio.sleep(0.01)
    assert not joining.done()
    home.token_file.write_text("token-1")
    assert (await joining).enrolment.worker_id == "wrk_1"


async def test_without_a_token_the_worker_gives_up(home: Home) -> None:
    with pytest.raises(ConfigurationError, match="no enrolment token appeared"):
        await home.join()


async def test_a_control_plane_that_stumbles_is_asked_again(home: Home, utility: Any) -> None:
    utility.answers = [(503, {}), (500, {"error": "x"}), (429, {})]
    assert (await home.join("token-1")).enrolment.worker_id == "wrk_1"
    assert utility.calls.count("/api/workers/challenge") == 4


async def test_a_control_plane_that_never_answers(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control.control_post, "__kwdefaults__", {"give_up_after_s": 0.05})
    with pytest.raises(UnreachableError, match="does not answer"):
        await home.join("token-1", control_url="http://127.0.0.1:1")
    assert not home.identity_file.exists()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((401, {"error": {"message": "No.", "code": "invalid_token"}}), "invalid_token: No."),
        ((403, {}), "status 403"),
        ((200, {"nonce": "n", "release": "other", "ranges": []}), "the token is for release 'other'"),
        ((200, CHALLENGE | {"ranges": [{"path": "../x", "offset": 0, "length": 1}]}), "no part of"),
        ((200, {"nonce": "n"}), "cannot be answered"),
    ],
)  # fmt: skip
async def test_refusals_say_why(home: Home, utility: Any, answer: tuple[int, Any], words: str) -> None:
    utility.answers = [answer]
    with pytest.raises(RefusedError, match=words.replace(".", r"\.")):
        await home.join("token-1")
    assert utility.enrolled == []


async def test_a_token_works_once_and_another_release_is_refused(
    home: Home, utility: Any, tmp_path: Path
) -> None:
    await home.join("token-1")
    home.identity_file.unlink()
    with pytest.raises(RefusedError, match="401 invalid_token"):
        await home.join("token-1")
    utility.model_dir = tmp_path / "other"
    utility.model_dir.mkdir()
    (utility.model_dir / "config.json").write_bytes(
        (home.candidate.files.folder / "config.json").read_bytes()
    )
    (utility.model_dir / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(RefusedError, match="release_mismatch"):
        await home.join("token-2")


async def test_an_enrolment_without_a_gateway_is_refused(home: Home, utility: Any) -> None:
    utility.url = ""
    enrolment = {
        "worker_id": "w", "pool_id": "p", "partner_id": "r", "dispatch_token": "d", "gateway_urls": [],
        "heartbeat_interval_ms": 1,
    }  # fmt: skip
    utility.answers = [(200, CHALLENGE), (200, enrolment)]
    with pytest.raises(RefusedError, match="names no gateway"):
        await home.join("token-1")


async def test_an_unreadable_identity_is_reported(home: Home) -> None:
    home.identity_file.parent.mkdir()
    for text in ("{", "[]", json.dumps({"enrolment": {}}), json.dumps({"enrolment": None})):
        home.identity_file.write_text(text)
        with pytest.raises(ConfigurationError, match="cannot be read"):
            await home.join("token-1")


def test_every_reason_has_its_exit_status() -> None:
    kinds = (StartupError, UnreachableError, RefusedError, ConfigurationError)
    assert [kind.exit_status for kind in kinds] == [70, 75, 77, 78]


def test_a_key_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "signing.pem"
    first = key_load(path)
    assert key_load(path).public_text == first.public_text
    assert path.stat().st_mode & 0o777 == 0o600
