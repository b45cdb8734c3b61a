"""One admitted request while it is served, and how it becomes a settlement."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import msgspec

from billing.rating import Price, charge_for
from core.clock import clock
from gateway.bodies import Ask
from inference.messages import SignedEntry
from metering.events import UsageFacts
from routing.records import Candidate, Decision
from routing.snapshot import KeyRecord, Model, WorkerEntry
from transparency.receipts import Bounds, Receipt, Statement, entry_problems, settled_tokens


class GatewayEvent(UsageFacts, frozen=True, kw_only=True):
    """A ``UsageEvent`` while the gateway holds it: the same JSON, its evidence typed or still encoded."""

    receipt: Receipt
    decision: msgspec.Raw


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the gateway's journal: how a hold ends. Without an event the hold is void.

    The event's receipt lacks the gateway's signature: the settler checks the worker's and adds it.
    """

    at_ms: int
    request_id: str
    tenant_id: str
    key_id: str
    charge_nano: int
    tokens: int
    event: GatewayEvent | None = None


ENCODER = msgspec.json.Encoder()
DECODER = msgspec.json.Decoder(Settlement)


@lru_cache(maxsize=4096)
def _price_terms(price: Price) -> dict[str, int | str]:
    """The price in plain types; shared, never changed."""
    return {name: getattr(price, name) for name in price.__struct_fields__}


@dataclass(slots=True)
class Flight:
    """What is known of a request in flight. ``worker`` is the one it is at, or was last.

    ``uncertain``: a worker took the request and did not say what came of it. ``usage_seen``: the usage chunk
    as the client got it. ``ended``: it is settled or void. ``sent_s``, ``headed_s``: the loop's time when the
    request left for the worker and its answer began. ``decision_json``: the decision, encoded once.
    """

    request_id: str
    received_at_ms: int
    ask: Ask
    model: Model
    bounds: Bounds
    decision: Decision
    decision_json: bytes
    decision_digest: str
    key: KeyRecord
    gateway_id: str
    worker: WorkerEntry | None = None
    failovers: list[dict[str, str]] = field(default_factory=list)
    relayed_frames: int = 0
    first_token_at_ms: int | None = None
    sent_s: float = 0.0
    headed_s: float = 0.0
    usage_seen: bytes = b""
    uncertain: bool = False
    ended: bool = False

    @property
    def candidate(self) -> Candidate:
        """Routing's facts about the worker the request is at."""
        if self.worker is None:
            raise RuntimeError("the request has not been dispatched")
        return self.decision.candidate(self.worker.worker_id)

    def void(self) -> Settlement:
        """Nothing was served, nothing is charged."""
        return Settlement(
            at_ms=clock.now_ms(),
            request_id=self.request_id,
            tenant_id=self.key.tenant_id,
            key_id=self.key.key_id,
            charge_nano=0,
            tokens=0,
        )

    def settlement(self, signed: SignedEntry, *, output_sha256: str | None, seen: list[str]) -> Settlement:
        """The charge that the worker's entry justifies, at the price of the hold.

        ``seen`` are problems the relay noticed; with any problem the receipt is disputed, and the charge
        is the worker's count within the hold's bounds.
        """
        worker, candidate, entry = self.worker, self.candidate, signed.entry
        if worker is None:
            raise RuntimeError("the request has not been dispatched")
        prompt, cached, completion = settled_tokens(entry, self.bounds)
        if prompt + completion == 0:
            return self.void()
        price = candidate.price
        charge = charge_for(
            price=price, prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion
        )
        problems = entry_problems(
            entry,
            request_id=self.request_id,
            worker_id=worker.worker_id,
            model=self.model.name,
            release_digest=self.model.release_digest,
            bounds=self.bounds,
            max_model_len=self.model.max_model_len * self.ask.choices,
        )
        statement = Statement(
            gateway_id=self.gateway_id,
            request_id=self.request_id,
            tenant_id=self.key.tenant_id,
            entry_hash="",
            prompt_tokens=prompt,
            cached_tokens=cached,
            completion_tokens=completion,
            price=_price_terms(price),
            charge={
                "share_nano": charge.share_nano,
                "levy_nano": charge.levy_nano,
                "charge_nano": charge.charge_nano,
            },
            relayed_frames=self.relayed_frames,
            output_sha256=output_sha256,
            decision_digest=self.decision_digest,
            problems=(*problems, *seen),
        )
        receipt = Receipt(
            entry=entry,
            worker_signature=signed.signature,
            worker_public_key=worker.public_key,
            gateway=statement,
        )
        event = GatewayEvent(
            request_id=self.request_id,
            tenant_id=self.key.tenant_id,
            project_id=self.key.project_id,
            api_key_id=self.key.key_id,
            partner_id=candidate.partner_id,
            pool_id=candidate.pool_id,
            worker_id=candidate.worker_id,
            release_id=self.model.release_id,
            model=self.model.name,
            endpoint=self.ask.endpoint,
            prompt_tokens=prompt,
            cached_tokens=cached,
            completion_tokens=completion,
            finish_reason=entry.finish_reason,
            price=price,
            charge=charge,
            received_at_ms=self.received_at_ms,
            first_token_at_ms=self.first_token_at_ms,
            finished_at_ms=clock.now_ms(),
            witness="both",
            receipt=receipt,
            decision=self.decision_record(),
        )
        return Settlement(
            at_ms=clock.now_ms(),
            request_id=self.request_id,
            tenant_id=self.key.tenant_id,
            key_id=self.key.key_id,
            charge_nano=charge.charge_nano,
            tokens=prompt + completion,
            event=event,
        )

    def decision_record(self) -> msgspec.Raw:
        """Routing's decision with what came of it: ``served_by``, and ``failovers`` before that."""
        outcome = {
            "served_by": self.worker.worker_id if self.worker is not None else None,
            "failovers": self.failovers,
        }
        return msgspec.Raw(b"%s,%s" % (self.decision_json[:-1], ENCODER.encode(outcome)[1:]))
