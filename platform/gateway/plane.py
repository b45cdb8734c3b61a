"""One gateway process: its parts, wired, and its life from start to a clean stop."""

from __future__ import annotations

import asyncio
import gc
import secrets
from functools import lru_cache
from pathlib import Path

import msgspec
import structlog

from core import redis_keys
from core.clock import clock
from core.secrets import derive_token
from core.signing import signing_key_load
from gateway.admission import ADMIT
from gateway.flight import ENCODER, Flight, Settlement
from gateway.journal import Journal
from gateway.metrics import GatewayMetrics
from gateway.pool import WorkerPool
from gateway.redis_link import RedisAwayError, RedisLink, RedisReplyError, Script
from gateway.request_log import RequestLog
from gateway.settings import Settings
from gateway.settler import SETTLE, Settler
from gateway.view import View
from routing.seeds import day_key

_LOG = structlog.get_logger("gateway")
RELEASE = Script(Path(__file__).with_name("release.lua").read_text(encoding="utf-8"))
_ALIVE_TTL_MS = 3000
_GC_THRESHOLDS = (20_000, 20, 50)  # a request leaves few cycles; looking seldom keeps latency even
_DAY_MS = 86_400_000


class Plane:
    """Shared by all requests. ``life_id`` names this life of the process: it marks holds."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.life_id = f"{settings.gateway_id}.{secrets.token_hex(4)}"
        self.key = signing_key_load(settings.key_file)
        self.metrics = GatewayMetrics()
        self.log = RequestLog()
        self.view = View()
        self.redis = RedisLink(
            settings.redis_url, timeout_s=settings.redis_timeout_s, scripts=(ADMIT, SETTLE, RELEASE)
        )
        self.redis.observe = self.metrics.redis_s.observe
        self.pool = WorkerPool(
            connect_timeout_s=settings.connect_timeout_s, keep_alive_interval_s=settings.keep_alive_interval_s
        )
        self.journal = Journal(settings.journal_dir, segment_bytes=settings.segment_bytes)
        self.settler = Settler(self.journal, self.redis, self.key)
        self.stopping = False
        self._background: set[asyncio.Task[None]] = set()
        self._tokens: dict[str, str] = {}
        self._day = (-1, b"")
        self._salt = lru_cache(maxsize=65_536)(self._derive_salt)
        self.metrics.backlog_bytes.set_function(lambda: self.settler.backlog_bytes)
        self.metrics.unresolved.set_function(lambda: len(self._background))

    async def start(self) -> None:
        """Connect, read the snapshot, begin to settle. Succeeds without Redis; requests then get 503."""
        await self.redis.start()
        self.pool.start()
        self.log.start()
        await self._refresh()
        self.settler.start()
        self._refresher = asyncio.create_task(self._keep_fresh())
        gc.collect()
        gc.freeze()  # what exists now lives as long as the process: collections need not look at it
        gc.set_threshold(*_GC_THRESHOLDS)
        _LOG.info("gateway_started", gateway_id=self.settings.gateway_id, life_id=self.life_id)

    async def stop(self) -> None:
        """Let open questions to workers end, settle, close. What is left is found by the next life."""
        self.stopping = True
        if self._background:
            await asyncio.wait(self._background, timeout=self.settings.journal_retry_s / 2)
        for task in self._background:
            task.cancel()
        self._refresher.cancel()
        await self.settler.stop(drain_s=2.0)
        self.pool.close()
        await self.redis.close()
        self.journal.close()
        self.log.close()
        _LOG.info("gateway_stopped", unresolved=len(self._background))

    @property
    def ready(self) -> bool:
        """Whether a request could be admitted and routed."""
        return self.redis.connected and self.view.snapshot is not None and not self.stopping

    def dispatch_token(self, worker_id: str) -> str:
        """The bearer that the worker expects of gateways."""
        token = self._tokens.get(worker_id)
        if token is None:
            token = derive_token(self.settings.dispatch_secret, "dispatch", worker_id)
            self._tokens[worker_id] = token
        return token

    def cache_salt(self, tenant_id: str) -> str:
        """Keeps prefix caches of tenants apart: callers cannot choose it."""
        return self._salt(tenant_id)

    def _derive_salt(self, tenant_id: str) -> str:
        return derive_token(self.settings.dispatch_secret, "cache-salt", tenant_id)

    def day_key(self, at_ms: int) -> bytes:
        """The key that seeds the day's routing decisions."""
        day = at_ms // _DAY_MS
        if self._day[0] != day:
            self._day = (day, day_key(self.settings.dispatch_secret, at_ms))
        return self._day[1]

    def settle(self, settlement: Settlement) -> None:
        """Write down how a hold ends, and give its place back; Redis learns the rest in the background.

        Must return before the client's last byte leaves. Without a disk the hold stays: the sweeper ends it.
        """
        try:
            self.journal.append(ENCODER.encode(settlement))
        except OSError as error:
            _LOG.error("journal_failed", request_id=settlement.request_id, error=str(error))
            return
        if settlement.tenant_id:
            keys = (
                redis_keys.hold(settlement.request_id),
                redis_keys.account(settlement.tenant_id),
                redis_keys.bucket(settlement.key_id),
            )
            self.redis.send_script(RELEASE, keys, (settlement.charge_nano, settlement.tokens))
        self.settler.wake()

    def settle_void(self, flight: Flight) -> None:
        """End a flight without a charge; does nothing when it has ended."""
        if not flight.ended:
            flight.ended = True
            self.settle(flight.void())

    def settle_unknown(self, request_id: str) -> None:
        """Void a hold that may or may not exist, and keep a late admission from making it."""
        self.settle(
            Settlement(
                at_ms=clock.now_ms(),
                request_id=request_id,
                tenant_id="",
                key_id="",
                charge_nano=0,
                tokens=0,
            )
        )

    def in_background(self, task: asyncio.Task[None]) -> None:
        """Keep a task until it ends; stopping waits for it."""
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(self.settings.refresh_interval_s)
            await self._refresh()

    async def _refresh(self) -> None:
        try:
            await self.view.refresh(self.redis)
            await self.redis.call(
                "SET", redis_keys.gateway_alive(self.life_id), clock.now_ms(), "PX", _ALIVE_TTL_MS
            )
        except (RedisAwayError, RedisReplyError):
            return
        except msgspec.DecodeError as error:
            _LOG.error("snapshot_unreadable", error=str(error))
            return
        if self.view.epoch is not None:
            self.settler.redis_seen(server_run=self.redis.server_run, epoch=self.view.epoch.decode())
