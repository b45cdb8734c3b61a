"""A worker joins over HTTP, with a real proof over real files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from core import redis_keys
from core.secrets import derive_token
from core.signing import SigningKey, signing_key_load
from directory.redis_client import redis_client
from directory.snapshots import snapshot_read
from inference.messages import Enrolment, EnrolRequest, challenge_proof
from partners.models import Worker
from partners.services import Prices, enrolment_token_create, offer_ensure
from releases.services import release_register
from tenants.scope import system_scope
from tests.api.world import World, model_make

JSON = "application/json"


@pytest.fixture
def token(world: World) -> str:
    """A fresh token for the pool."""
    with system_scope():
        return enrolment_token_create(pool=world.pool)


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    """A fresh worker's key."""
    return signing_key_load(tmp_path / "fresh.pem")


def _post(path: str, body: dict[str, Any]) -> Any:
    return Client(enforce_csrf_checks=True).post(path, body, content_type=JSON)


def _answer(world: World, token: str, key: SigningKey, model_dir: Path | None = None) -> EnrolRequest:
    """What an honest worker with the files in ``model_dir`` sends."""
    answer = _post("/api/workers/challenge", {"token": token})
    assert answer.status_code == 200, answer.content
    challenge = answer.json()
    chunks = []
    for part in challenge["ranges"]:
        data = ((model_dir or world.model_dir) / part["path"]).read_bytes()
        chunks.append(data[part["offset"] : part["offset"] + part["length"]])
    return EnrolRequest(
        token=token,
        nonce=challenge["nonce"],
        name="fresh",
        endpoint="http://127.0.0.1:9100",
        public_key=key.public_text,
        release=challenge["release"],
        release_digest=world.release.digest,
        proof=challenge_proof(challenge["nonce"], chunks),
        capacity={"max_running": 4, "cache_tokens": 1024, "max_model_len": 2048},
    )


def _enrol(request: EnrolRequest, key: SigningKey) -> Any:
    body = request.to_dict() | {"signature": key.sign(request.signing_bytes())}
    return _post("/api/workers/enrol", body)


def test_an_honest_worker_joins_and_gateways_know_it(world: World, token: str, key: SigningKey) -> None:
    answer = _enrol(_answer(world, token, key), key)
    assert answer.status_code == 200, answer.content
    enrolment = Enrolment.from_dict(answer.json())
    assert (enrolment.pool_id, enrolment.partner_id) == (world.pool.id, world.partner.id)
    assert enrolment.dispatch_token == derive_token(settings.DISPATCH_SECRET, "dispatch", enrolment.worker_id)
    assert enrolment.gateway_urls == [settings.GATEWAY_URL]
    snapshot = snapshot_read(redis_client().get(redis_keys.SNAPSHOT))
    assert snapshot is not None
    entry = next(entry for entry in snapshot.workers if entry.worker_id == enrolment.worker_id)
    assert (entry.public_key, entry.endpoint) == (key.public_text, "http://127.0.0.1:9100")


def test_repeating_the_request_gives_the_same_answer_and_one_worker(
    world: World, token: str, key: SigningKey
) -> None:
    request = _answer(world, token, key)
    first, again = _enrol(request, key), _enrol(request, key)
    assert first.json() == again.json()
    with system_scope():
        assert Worker.objects.filter(public_key=key.public_text).count() == 1


def test_a_used_token_admits_nobody_else(world: World, token: str, key: SigningKey, tmp_path: Path) -> None:
    request = _answer(world, token, key)
    assert _enrol(request, key).status_code == 200
    thief = signing_key_load(tmp_path / "thief.pem")
    answer = _enrol(replace(request, public_key=thief.public_text), thief)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_enrolment_token")
    assert _post("/api/workers/challenge", {"token": token}).status_code == 401


def test_every_lie_is_refused_and_leaves_the_token_alone(world: World, token: str, key: SigningKey) -> None:
    request = _answer(world, token, key)
    for changes, status, code in (
        ({"proof": "0" * 64}, 403, "bad_proof"),
        ({"release_digest": "0" * 64}, 403, "release_mismatch"),
        ({"release": "other"}, 403, "release_mismatch"),
        ({"nonce": "0" * 64}, 403, "stale_challenge"),
        ({"token": "tw-enrol-wrong"}, 401, "invalid_enrolment_token"),
        ({"public_key": world.worker_key.public_text}, 403, "bad_signature"),
        ({"endpoint": "file:///etc"}, 422, "invalid_value"),
        ({"capacity": {"max_running": 0}}, 422, "invalid_value"),
    ):
        answer = _enrol(replace(request, **changes), key)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert _enrol(request, key).status_code == 200


def test_other_weights_cannot_pass_for_the_release(world: World, token: str, key: SigningKey) -> None:
    swapped = model_make(world.folder / "swapped", seed=b"other weights")
    answer = _enrol(_answer(world, token, key, swapped), key)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "bad_proof")


def test_a_known_key_cannot_join_twice(world: World, token: str) -> None:
    answer = _enrol(_answer(world, token, world.worker_key), world.worker_key)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "public_key_known")


def test_a_partner_with_two_releases_must_name_one(world: World, token: str, key: SigningKey) -> None:
    with system_scope():
        release_register(slug="second", model_dir=model_make(world.folder / "second"))
        offer_ensure(partner=world.partner, release_slug="second", prices=Prices(1, 1, 1))
    vague = _post("/api/workers/challenge", {"token": token})
    assert (vague.status_code, vague.json()["error"]["param"]) == (422, "release")
    named = _post("/api/workers/challenge", {"token": token, "release": "second"})
    assert named.json()["release"] == "second"
    unknown = _post("/api/workers/challenge", {"token": token, "release": "third"})
    assert unknown.status_code == 403


def test_files_that_are_away_are_a_503(world: World, token: str) -> None:
    world.model_dir.rename(world.folder / "elsewhere")
    answer = _post("/api/workers/challenge", {"token": token})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "server_is_overloaded")
    assert "retry-after" in answer.headers
