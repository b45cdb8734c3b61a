"""The receipt, the bill and the addresses, laid out for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from core.money import format_dollars
from stack.served import Billed, Served


def served_line(served: Served) -> str:
    """Speed and counts of a streamed answer."""
    rate = served.completion_tokens / max(served.whole_s, 1e-9)
    return (
        f"{served.prompt_tokens} + {served.completion_tokens} tokens, first after "
        f"{served.first_token_s * 1000:.0f} ms, {rate:.0f} tokens/s, finish: {served.finish_reason}"
    )


def receipt_panel(served: Served, billed: Billed) -> Panel:
    """Who served the request, why, who signed for it, and what it cost."""
    line, verdict = billed.bill_line, billed.verified
    sound = (
        "both signatures and the bill check out" if verdict["sound"] else f"PROBLEMS: {verdict['problems']}"
    )
    gateway = billed.receipt.get("gateway") or {}
    rows = {
        "request": served.request_id,
        "partner": f"{served.partner} (worker {served.worker})",
        "why": served.reason,
        "release": str(billed.receipt["entry"]["release_digest"])[:16] + "…",
        "signed by": f"worker {short(billed.receipt['worker_public_key'])}, "
        f"gateway {short(billed.receipt.get('gateway_public_key'))} ({gateway.get('gateway_id', 'none')})",
        "verdict": sound,
        "tokens": f"{line['prompt_tokens']} in ({line['cached_tokens']} cached), "
        f"{line['completion_tokens']} out",
        "price": f"{_per_mtok(line, 'input')} in, {_per_mtok(line, 'output')} out per 1M tokens, "
        f"levy {line['levy_ppm'] / 10_000:g}%",
        "charge": f"{format_dollars(line['charge_nano'])} = partner {format_dollars(line['share_nano'])}"
        f" + levy {format_dollars(line['levy_nano'])}",
        "balance": f"{format_dollars(billed.balance_before_nano)} before, "
        f"{format_dollars(billed.balance_after_nano)} after",
    }
    return Panel(_pairs(rows), title="Receipt and bill", title_align="left")


def address_lines(facts: Mapping[str, Any], *, stays_up: bool) -> list[RenderableType]:
    """Where everything is and how to sign in; unframed, so that a long key can be copied whole."""
    rows = {
        "OpenAI base URL": facts["base_url"],
        "API key": facts["api_key"],
        "console": facts["console_url"],
        "API docs": f"{facts['control_url']}/api/docs",
        **{each["role"]: f"{each['email']}  {each['password']}" for each in facts["accounts"]},
        "logs": facts["log_dir"],
    }
    title = "Tokenworks is up. Ctrl-C stops everything" if stays_up else "Tokenworks served its first request"
    width = max(len(name) for name in rows)
    lines = [Text.assemble((f"  {name:<{width}}  ", "bold"), value) for name, value in rows.items()]
    return [Rule(title, align="left", style="green"), *lines, Rule(style="green")]


def short(key: object) -> str:
    """The first characters of a public key, enough to compare by eye."""
    return f"{str(key)[:10]}…" if key else "none"


def _per_mtok(line: Mapping[str, Any], side: str) -> str:
    return format_dollars(line[f"{side}_nano_per_mtok"])


def _pairs(rows: Mapping[str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    return table
