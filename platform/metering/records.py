"""Usage records in one statement: a column is one parameter, however many the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import psycopg

from core.clock import clock
from ledger.arrays import json_array, number_array, text_array
from metering.intake import Posting

_TEXT_COLUMNS = (
    "request_id", "tenant_id", "project_id", "api_key_id", "partner_id", "pool_id", "worker_id", "release_id",
    "offer_id", "model", "endpoint", "finish_reason", "witness",
)  # fmt: skip
_NUMBER_COLUMNS = (
    "prompt_tokens", "cached_tokens", "completion_tokens",
    "input_nano_per_mtok", "cached_input_nano_per_mtok", "output_nano_per_mtok", "levy_ppm",
    "share_nano", "levy_nano", "charge_nano",
)  # fmt: skip
_TIME_COLUMNS = ("received_at", "first_token_at", "finished_at")
_JSON_COLUMNS = ("receipt", "decision")
_COLUMNS = (*_TEXT_COLUMNS, *_NUMBER_COLUMNS, *_TIME_COLUMNS, *_JSON_COLUMNS)
_SELECTED = (
    *_TEXT_COLUMNS,
    *_NUMBER_COLUMNS,
    *(f"timestamptz 'epoch' + {name} * interval '1 millisecond'" for name in _TIME_COLUMNS),
    *_JSON_COLUMNS,
)
_TYPES = ("text[]",) * 13 + ("bigint[]",) * 13
_Literal = Callable[[Iterable[Any]], str]
_LITERALS: tuple[_Literal, ...] = (*[text_array] * 13, *[number_array] * 13, *[json_array] * 2)
# Names and types are the constants above; every value is a parameter.
_INSERT = f"""
    INSERT INTO metering_usagerecord ({", ".join(_COLUMNS)}, posted_at)
    SELECT {", ".join(_SELECTED)}, %s
    FROM ROWS FROM (
        unnest({", ".join(f"%s::{name}" for name in _TYPES)}),
        jsonb_array_elements(%s::jsonb),
        jsonb_array_elements(%s::jsonb)
    ) AS event ({", ".join(_COLUMNS)})
    ON CONFLICT (request_id) DO NOTHING RETURNING request_id
"""  # noqa: S608 - see above


def records_insert(cursor: psycopg.Cursor[Any], events: Sequence[Posting]) -> list[str]:
    """Insert what is not there yet; returns the request ids that were."""
    if not events:
        return []
    columns: Iterable[tuple[Any, ...]] = zip(*map(_row, events), strict=True)
    arrays = [literal(column) for literal, column in zip(_LITERALS, columns, strict=True)]
    cursor.execute(_INSERT, (clock.now(), *arrays))
    return [row[0] for row in cursor]


def _row(event: Posting) -> tuple[object, ...]:
    price, charge = event.price, event.charge
    return (
        event.request_id,
        event.tenant_id,
        event.project_id,
        event.api_key_id,
        event.partner_id,
        event.pool_id,
        event.worker_id,
        event.release_id,
        price.offer_id,
        event.model,
        event.endpoint,
        event.finish_reason,
        event.witness,
        event.prompt_tokens,
        event.cached_tokens,
        event.completion_tokens,
        price.input_nano_per_mtok,
        price.cached_input_nano_per_mtok,
        price.output_nano_per_mtok,
        price.levy_ppm,
        charge.share_nano,
        charge.levy_nano,
        charge.charge_nano,
        event.received_at_ms,
        event.first_token_at_ms,
        event.finished_at_ms,
        event.receipt,
        event.decision,
    )
