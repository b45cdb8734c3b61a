"""A scripted engine in memory, the worker's real HTTP server around it, and a small utility to enrol at."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from inference.engine import (
    AsyncEngine,
    EngineConfig,
    EngineStats,
    FinishReason,
    GenerationRequest,
    RequestRejected,
    TokenEvent,
)
from inference.engine.types import EventBatch, TokenLogprob
from inference.messages import (
    Enrolment,
    EnrolRequest,
    Heartbeat,
    challenge_proof,
    manifest_digest,
    release_manifest,
)
from inference.worker.journal.journal import Journal
from inference.worker.runtime import Runtime, Service
from inference.worker.server.app import WorkerApp
from inference.worker.server.asgi import body_read, respond
from inference.worker.server.http import HttpServer, listener_bind
from inference.worker.signing import WorkerKey, key_load, signature_is_valid

RELEASE = "tokenworks-test"
RELEASE_DIGEST = "ab" * 32
DISPATCH = "dispatch-token"
BOS, FIM_BEGIN, FIM_HOLE, FIM_END, EOS = 256, 257, 258, 259, 260


class ByteTokenizer:
    """One token a byte, so that every count can be checked by hand."""

    token_bytes = tuple(bytes([byte]) for byte in range(256)) + (b"",) * 5
    eos_ids = frozenset({EOS})
    chat_template = "{{ tools }} <tool_call>"
    accepts_tools = True

    def decode(self, ids: list[int]) -> str:
        return b"".join(self.token_bytes[one] for one in ids).decode(errors="replace")

    def token_name(self, token_id: int) -> tuple[str, bytes]:
        data = self.token_bytes[token_id]
        return data.decode("latin-1") or f"<{token_id}>", data

    def encode(self, text: str, *, add_bos: bool = False, allow_special: bool = False) -> list[int]:
        return [BOS] * add_bos + list(text.encode())

    def encode_chat(
        self, messages: list[dict[str, object]], *, tools: list[dict[str, object]] | None = None
    ) -> list[int]:
        if messages[-1]["role"] == "assistant":
            raise ValueError("the last message is the assistant's")
        offered = "" if tools is None else f"{json.dumps(tools)}\n"
        return self.encode(offered + "".join(f"{m['role']}:{m['content']}\n" for m in messages), add_bos=True)

    def fim_prompt(self, prefix: str, suffix: str) -> list[int]:
        if suffix == "unsupported":
            raise ValueError("this model has no fill-in-the-middle tokens")
        return [BOS, FIM_BEGIN, *prefix.encode(), FIM_HOLE, *suffix.encode(), FIM_END]


@dataclass
class ScriptedEngine:
    """Answers with ``texts``, one token each; ``gate`` holds back all but the first ``free`` of them."""

    texts: list[str] = field(default_factory=lambda: ["Hel", "", "lo"])
    cached_tokens: int = 2
    max_model_len: int = 4096
    gate: asyncio.Event | None = None
    free: int = 0
    rejection: RequestRejected | None = None
    failure: Exception | None = None
    last_reason: FinishReason = "stop"
    tokenizer: ByteTokenizer = field(default_factory=ByteTokenizer)
    requests: list[GenerationRequest] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    running: int = 0

    async def ended(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        pass

    def stats(self) -> EngineStats:
        return EngineStats(
            running=self.running,
            queued=0,
            pages_total=8,
            pages_free=5,
            generated_tokens=7,
            steps=3,
            max_running=4,
        )

    def stream(self, requests: Sequence[GenerationRequest]) -> AsyncGenerator[EventBatch, None]:
        return merged([self.generate(request) for request in requests])

    def generate(self, request: GenerationRequest) -> AsyncGenerator[TokenEvent, None]:
        if self.rejection is not None:
            raise self.rejection
        self.requests.append(request)
        return self._events(request)

    async def _events(self, request: GenerationRequest) -> AsyncGenerator[TokenEvent, None]:
        self.running += 1
        finished = False
        try:
            texts = [""] if request.embed else self.texts
            for index, text in enumerate(texts):
                await asyncio.sleep(0)  # a step of its own
                if self.gate is not None and index >= self.free:
                    await self.gate.wait()
                if self.failure is not None and index == len(texts) - 1:
                    raise self.failure
                finished = index == len(texts) - 1
                yield self._event(request, index, text, finished)
        finally:
            self.running -= 1
            if not finished:
                self.cancelled.append(request.request_id)

    def _event(self, request: GenerationRequest, index: int, text: str, last: bool) -> TokenEvent:
        """Token i has log probability -i - 1; a prompt's tokens, after the first, have -0.5."""
        params, prompt = request.params, request.prompt_token_ids
        if request.embed:
            return TokenEvent(
                request.request_id, "", (), "stop", len(prompt), self.cached_tokens, 0, embedding=(3.0, 4.0)
            )
        scored: tuple[TokenLogprob, ...] = ()
        prompt_scored: tuple[TokenLogprob | None, ...] = ()
        if params.logprobs is not None:
            scored = (TokenLogprob(index, -index - 1.0, ((65, -0.25),) * params.logprobs),)
        if params.prompt_logprobs is not None and index == 0:
            top = ((65, -0.25),) * params.prompt_logprobs
            prompt_scored = (None, *(TokenLogprob(token, -0.5, top) for token in prompt[1:]))
        return TokenEvent(
            request_id=request.request_id,
            text=text,
            token_ids=(index,),
            finish_reason=self.last_reason if last else None,
            prompt_tokens=len(request.prompt_token_ids),
            cached_tokens=self.cached_tokens,
            completion_tokens=index + 1,
            logprobs=scored,
            prompt_logprobs=prompt_scored,
        )


async def merged(
    streams: Sequence[AsyncGenerator[TokenEvent, None]],
) -> AsyncGenerator[EventBatch, None]:
    """Events of several generations, one at a time, as they come. Raises what one of them raises."""
    arrived: asyncio.Queue[tuple[int, TokenEvent | Exception | None]] = asyncio.Queue()

    async def pump(number: int) -> None:
        last: Exception | None = None
        try:
            async with aclosing(streams[number]) as events:
                async for event in events:
                    arrived.put_nowait((number, event))
        except Exception as error:
            last = error
        arrived.put_nowait((number, last))

    tasks = [asyncio.create_task(pump(number)) for number in range(len(streams))]
    try:
        left = len(tasks)
        while left:
            number, found = await arrived.get()
            if isinstance(found, Exception):
                raise found
            if found is None:
                left -= 1
            else:
                yield [(number, found)]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition that other tasks or processes bring about."""
    while True:
        if condition():
            return
        await asyncio.sleep(0.005)


@dataclass
class Worker:
    """A serving worker: its parts, and a client that knows the dispatch token."""

    runtime: Runtime
    engine: Any
    journal: Journal
    key: WorkerKey
    client: httpx.AsyncClient

    async def post(self, path: str, body: object, request_id: str = "req_1") -> httpx.Response:
        return await self.client.post(path, json=body, headers={"x-request-id": request_id})

    async def idle(self) -> None:
        """Wait until nothing is in flight."""
        await until(lambda: not self.runtime.in_flight)

    async def asked(self) -> None:
        """Wait until the engine has been given a request."""
        await until(lambda: self.engine.requests)

    async def busy(self) -> None:
        """Wait until the engine works on a request."""
        await until(lambda: self.engine.running > 0)


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Undo what the test does to the root logger."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def key(tmp_path: Path) -> WorkerKey:
    return key_load(tmp_path / "signing.pem")


@pytest.fixture
def journal(tmp_path: Path, key: WorkerKey) -> Iterator[Journal]:
    opened = Journal(tmp_path / "journal", key)
    yield opened
    opened.close()


@pytest.fixture
def enrolment() -> Enrolment:
    return Enrolment(
        worker_id="wrk_1",
        pool_id="pol_1",
        partner_id="par_1",
        dispatch_token=DISPATCH,
        gateway_urls=["http://127.0.0.1:1"],
        heartbeat_interval_ms=1000,
    )


@pytest.fixture
async def worker(journal: Journal, key: WorkerKey, enrolment: Enrolment) -> AsyncIterator[Worker]:
    """A worker on a real socket with the scripted engine."""
    async with worker_serving(ScriptedEngine(), journal, key, enrolment) as serving:
        yield serving


@pytest.fixture
async def real_worker(
    journal: Journal, key: WorkerKey, enrolment: Enrolment, tiny_dir: Path
) -> AsyncIterator[Worker]:
    """A worker on a real socket with the real engine on a tiny model and a small cache."""
    engine = AsyncEngine.load(
        tiny_dir, EngineConfig(page_size=4, pages=64, max_running=4, max_queued=64, adapters_max=1)
    )
    await engine.start()
    async with worker_serving(engine, journal, key, enrolment) as serving:
        yield serving
    await engine.close()


@asynccontextmanager
async def worker_serving(
    engine: Any, journal: Journal, key: WorkerKey, enrolment: Enrolment
) -> AsyncIterator[Worker]:
    runtime = Runtime(release=RELEASE)
    runtime.begin(Service(engine=engine, journal=journal, enrolment=enrolment, release_digest=RELEASE_DIGEST))
    listener = listener_bind("127.0.0.1", 0)
    base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    http = HttpServer(WorkerApp(runtime), listener)
    headers = {"authorization": f"Bearer {DISPATCH}"}
    async with httpx.AsyncClient(base_url=base_url, headers=headers, timeout=10) as client:
        yield Worker(runtime=runtime, engine=engine, journal=journal, key=key, client=client)
    await http.stop()


@dataclass
class Utility:
    """The control plane's and the gateway's side of the contract, small but with its real checks."""

    model_dir: Path
    url: str = ""
    tokens: dict[str, str] = field(default_factory=lambda: {"token-1": "nonce-1", "token-2": "nonce-2"})
    release: str = RELEASE
    answers: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    heartbeat_status: int = 204
    enrolled: list[dict[str, Any]] = field(default_factory=list)
    heartbeats: list[Heartbeat] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = json.loads(await body_read(scope, receive))
        self.calls.append(scope["path"])
        if self.answers and scope["path"].startswith("/api/"):
            status, answer = self.answers.pop(0)
        else:
            routes = {
                "/api/workers/challenge": self._challenge,
                "/api/workers/enrol": self._enrol,
                "/internal/heartbeat": self._heartbeat,
            }
            status, answer = routes[scope["path"]](body)
        await respond(send, status, b"" if status == 204 else json.dumps(answer).encode())

    def _challenge(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if body["token"] not in self.tokens:
            return 401, error_body("invalid_token", "This token is unknown, used or expired.")
        if body["release"] != RELEASE:
            return 403, error_body("release_mismatch", "The partner offers no such release.")
        ranges = [{"path": "config.json", "offset": 1, "length": 7}]
        return 200, {"nonce": self.tokens[body["token"]], "release": self.release, "ranges": ranges}

    def _enrol(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        signature = body.pop("signature")
        request = EnrolRequest.from_dict(body)
        nonce = self.tokens.pop(request.token, None)
        signed = signature_is_valid(
            public_text=request.public_key, message=request.signing_bytes(), signature=signature
        )
        chunk = (self.model_dir / "config.json").read_bytes()[1:8]
        if nonce is None or not signed or request.proof != challenge_proof(nonce, [chunk]):
            return 403, error_body("bad_proof", "The proof does not fit.")
        if request.release_digest != manifest_digest(release_manifest(self.model_dir)):
            return 403, error_body("release_mismatch", "Another release is expected.")
        self.enrolled.append(body)
        enrolment = Enrolment(
            worker_id=f"wrk_{len(self.enrolled)}",
            pool_id="pol_1",
            partner_id="par_1",
            dispatch_token=DISPATCH,
            gateway_urls=[self.url],
            heartbeat_interval_ms=20,
        )
        return 200, enrolment.to_dict()

    def _heartbeat(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        signature = body.pop("signature")
        beat = Heartbeat.from_dict(body)
        key = self.enrolled[-1]["public_key"]
        if not signature_is_valid(public_text=key, message=beat.signing_bytes(), signature=signature):
            return 401, error_body("bad_signature", "The signature does not fit.")
        self.heartbeats.append(beat)
        return self.heartbeat_status, {}

    async def beat_in(self, state: str) -> Heartbeat:
        """Wait for a heartbeat that reports ``state``."""
        await until(lambda: self.heartbeats and self.heartbeats[-1].state == state)
        return self.heartbeats[-1]

    async def beat_count(self, count: int) -> None:
        """Wait for so many heartbeats."""
        await until(lambda: len(self.heartbeats) >= count)


def error_body(code: str, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


@pytest.fixture
async def utility(tiny_dir: Path) -> AsyncIterator[Utility]:
    """A utility on a real socket that expects the tiny release."""
    app = Utility(model_dir=tiny_dir)
    listener = listener_bind("127.0.0.1", 0)
    app.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    http = HttpServer(app, listener)
    yield app
    await http.stop()
