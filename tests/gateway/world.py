"""A consortium of stub workers around a real gateway process and a real Valkey."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import redis

from billing.rating import Price
from core import redis_keys
from core.clock import clock
from core.ids import new_id
from core.secrets import NewSecret, new_secret
from inference.messages import Heartbeat
from metering.events import DECODER, UsageEvent
from routing.snapshot import KeyRecord, Model, Policy, Snapshot, WorkerEntry
from stack.ports import free_port
from tests.gateway.stub import RELEASE_DIGEST, LoopThread, StubWorker

MAX_MODEL_LEN = 4096
PARTNERS = ("huawei", "tencent", "alibaba")
PRICES = (100_000_000, 120_000_000, 140_000_000)
DOLLAR = 1_000_000_000


class World:
    """``start`` everything; tests change workers' modes and look into Redis."""

    def __init__(self, redis_url: str, folder: Path) -> None:
        self.redis_url = redis_url
        self.redis: Any = redis.Redis.from_url(redis_url)
        self.folder = folder
        self.secret = "dispatch-secret"
        self.loop = LoopThread()
        self.workers = [StubWorker(self.secret) for _ in PARTNERS]
        self.gateway_id = new_id("gw")
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.http = httpx.Client(timeout=20)
        self._beat_http = httpx.Client(timeout=2)
        self.tenant_id = new_id("ten")
        self.key = self.key_make()
        self._beating = threading.Event()
        self._beats = threading.Thread(target=self._beat, daemon=True)
        self._seq = 0

    def start(self) -> World:
        for worker in self.workers:
            self.loop.run(worker.start())
        self.publish()
        self.gateway_start()
        self._beats.start()
        self.wait(lambda: len(self.redis.keys("tw:load:*")) == len(self.workers))
        time.sleep(0.05)
        return self

    def close(self) -> None:
        self._beating.set()
        if self._beats.is_alive():
            self._beats.join(5)
        self.gateway_stop()
        for worker in self.workers:
            self.loop.run(worker.stop())
        self.loop.close()
        self.http.close()
        self._beat_http.close()
        self.redis.close()

    # the gateway process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def gateway_start(self) -> None:
        environ = {
            **os.environ,
            "REDIS_URL": self.redis_url,
            "TOKENWORKS_DISPATCH_SECRET": self.secret,
            "TOKENWORKS_STATE_DIR": str(self.folder),
            "TOKENWORKS_GATEWAY_ID": self.gateway_id,
            "TOKENWORKS_PARENT_DEATH_SIGNAL": "1",
        }
        environ.pop("TOKENWORKS_GATEWAY_KEY_FILE", None)
        environ.pop("DJANGO_SETTINGS_MODULE", None)
        log = (self.folder / "gateway.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway.run", "--port", str(self.port), "--drain-seconds", "5"],
                env=environ,
                stderr=log,
                stdout=log,
            )
        self.wait(self._healthy, "the gateway to answer")

    def gateway_kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(5)

    def gateway_stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.gateway_kill()

    def log_text(self) -> str:
        return (self.folder / "gateway.log").read_text()

    def _healthy(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log_text()[-3000:]
        try:
            return self.http.get(f"{self.url}/healthz").status_code == 200
        except httpx.TransportError:
            return False

    # the directory's part

    def snapshot(self, **changes: Any) -> Snapshot:
        workers = tuple(
            WorkerEntry(
                worker_id=stub.worker_id,
                pool_id=f"pol_{partner}",
                partner_id=f"par_{partner}",
                partner_slug=partner,
                region="cn-1",
                model="nano",
                release_digest=RELEASE_DIGEST,
                endpoint=stub.endpoint,
                public_key=stub.key.public_text,
                max_running=64,
                state="active",
                price=Price(
                    offer_id=f"off_{partner}",
                    input_nano_per_mtok=price,
                    cached_input_nano_per_mtok=price // 2,
                    output_nano_per_mtok=price,
                    levy_ppm=50_000,
                ),
            )
            for stub, partner, price in zip(self.workers, PARTNERS, PRICES, strict=True)
        )
        model = Model(
            name="nano",
            release_id="rel_1",
            release_digest=RELEASE_DIGEST,
            max_model_len=MAX_MODEL_LEN,
            created=1_700_000_000,
            vocab_size=8192,
        )
        policy = Policy(name="price-then-load", price_weight=1, load_weight=1, half_cost_ppm=0)
        fields: dict[str, Any] = {
            "version": clock.now_ms(),
            "published_at_ms": clock.now_ms(),
            "charter_digest": "c" * 64,
            "policy": policy,
            "models": (model,),
            "workers": workers,
        }
        return Snapshot(**{**fields, **changes})

    def publish(self, credit_nano: int = 5 * DOLLAR) -> None:
        """Snapshot, account, key, and the epoch last."""
        self.redis.set(redis_keys.SNAPSHOT, msgspec.json.encode(self.snapshot()))
        self.account_set(self.tenant_id, credit_nano)
        self.key_publish(self.key, self.tenant_id)
        self.redis.set(redis_keys.EPOCH, os.urandom(8).hex())

    def account_set(self, tenant_id: str, credit_nano: int) -> None:
        self.redis.hset(redis_keys.account(tenant_id), mapping={"credit": credit_nano, "version": 1})

    def key_make(self) -> NewSecret:
        return new_secret("sk")

    def key_publish(self, key: NewSecret, tenant_id: str, **changes: Any) -> KeyRecord:
        fields = {"key_id": new_id("key"), "tenant_id": tenant_id, "project_id": "prj_1"}
        record = KeyRecord(**{**fields, **changes})
        self.redis.set(redis_keys.key_record(key.digest), msgspec.json.encode(record))
        return record

    def tenant_make(self, credit_nano: int, **changes: Any) -> tuple[str, str, KeyRecord]:
        """A tenant of its own: its id, its key in plain, the key's record."""
        tenant_id, key = new_id("ten"), self.key_make()
        self.account_set(tenant_id, credit_nano)
        return tenant_id, key.plain, self.key_publish(key, tenant_id, **changes)

    # the workers' part

    def heartbeat(self, stub: StubWorker, **changes: Any) -> httpx.Response:
        self._seq += 1
        fields: dict[str, Any] = {
            "worker_id": stub.worker_id,
            "seq": self._seq,
            "at_ms": clock.now_ms(),
            "state": "ready",
            "release_digest": RELEASE_DIGEST,
            "running": stub.running,
            "queued": 0,
            "max_running": 64,
            "pages_free": 1,
            "pages_total": 1,
        }
        beat = Heartbeat(**{**fields, **changes})
        body = {**beat.to_dict(), "signature": stub.key.sign(beat.signing_bytes())}
        return self._beat_http.post(f"{self.url}/internal/heartbeat", json=body)

    def _beat(self) -> None:
        while not self._beating.is_set():
            for stub in self.workers:
                if stub.server is not None:
                    try:
                        self.heartbeat(stub)
                    except httpx.TransportError:
                        continue
            self._beating.wait(0.5)

    def modes(self, *modes: str) -> None:
        """Set the workers' modes, cheapest first."""
        for stub, mode in zip(self.workers, modes, strict=True):
            stub.mode = mode

    # what tests look at

    def request(self, **changes: Any) -> dict[str, Any]:
        message = {"role": "user", "content": changes.pop("say", "say 3")}
        return {"model": "nano", "messages": [message], "max_tokens": 50, **changes}

    def post(
        self, body: Any, *, key: str | None = None, path: str = "/v1/chat/completions"
    ) -> httpx.Response:
        headers = {"authorization": f"Bearer {key or self.key.plain}"}
        return self.http.post(f"{self.url}{path}", json=body, headers=headers)

    def account(self, tenant_id: str | None = None) -> dict[str, int]:
        raw = self.redis.hgetall(redis_keys.account(tenant_id or self.tenant_id))
        return {name.decode(): int(value) for name, value in raw.items()}

    def events(self, tenant_id: str | None = None) -> list[UsageEvent]:
        found = [DECODER.decode(fields[b"event"]) for _, fields in self.redis.xrange(redis_keys.USAGE_STREAM)]
        return [event for event in found if event.tenant_id == (tenant_id or self.tenant_id)]

    def event(self, request_id: str) -> UsageEvent:
        """The usage event of one request, once it is there."""
        found: list[UsageEvent] = []

        def look() -> bool:
            found[:] = [
                DECODER.decode(fields[b"event"])
                for _, fields in self.redis.xrange(redis_keys.USAGE_STREAM)
                if request_id.encode() in fields[b"event"]
            ]
            return bool(found)

        self.wait(look, f"an event of {request_id}")
        assert len(found) == 1
        return found[0]

    def settled(self) -> bool:
        return int(self.redis.zcard(redis_keys.HOLDS)) == 0

    def wait(self, check: Callable[[], Any], what: str = "it", deadline_s: float = 60.0) -> None:
        end = time.monotonic() + deadline_s
        while not check():
            assert time.monotonic() < end, f"waited too long for {what}\n{self.log_text()[-2000:]}"
            time.sleep(0.02)


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error's four fields."""
    body = response.json()
    assert list(body) == ["error"]
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"].startswith("req_")
    error: dict[str, Any] = body["error"]
    return error


def frames_of(text: str) -> list[dict[str, Any]]:
    """The JSON frames of a finished stream."""
    frames = [frame for frame in text.split("\n\n") if frame and not frame.startswith(":")]
    assert all(frame.startswith("data: ") for frame in frames), text
    assert frames[-1] == "data: [DONE]", text[-500:]
    return [json.loads(frame[6:]) for frame in frames[:-1]]


def signature_bytes(text: str) -> bytes:
    """A signature's 64 bytes."""
    return base64.b64decode(text, validate=True)
