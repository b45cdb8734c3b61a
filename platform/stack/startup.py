"""The steps from nothing to a first served, receipted and billed request, on a thread of their own."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from rich.text import Text

from stack.identities import identity_put_aside, token_write
from stack.layout import ROOT, Layout
from stack.once import python_json
from stack.panels import address_lines, receipt_panel, served_line
from stack.processes import shared_environment
from stack.roles import roles_ensure
from stack.screen import Screen
from stack.services.service import Service
from stack.supervisor import StartError, Supervisor
from stack.upfile import UpFile

_SERVICES_WITHIN_S = 90.0
_READY_WITHIN_S = 150.0


@dataclass(frozen=True)
class Servers:
    """How this run reaches PostgreSQL (as whoever may create roles) and Redis."""

    postgres_admin_url: str
    redis_url: str
    role_passwords: dict[str, str]
    embedded: tuple[Service, ...]  # those the supervisor runs


class Startup(threading.Thread):
    """Runs once; afterwards ``failure`` says why not, or is None. Never raises."""

    def __init__(
        self,
        *,
        layout: Layout,
        servers: Servers,
        supervisor: Supervisor,
        screen: Screen,
        up_file: UpFile,
        need_tokens: set[str],
        demo: bool,
        stays_up: bool,
    ) -> None:
        super().__init__(name="startup", daemon=True)
        self.failure: str | None = None
        self.finished = threading.Event()
        self.cancelled = threading.Event()
        self._layout = layout
        self._servers = servers
        self._supervisor = supervisor
        self._screen = screen
        self._up_file = up_file
        self._need_tokens = need_tokens
        self._demo = demo
        self._stays_up = stays_up

    def run(self) -> None:
        """All steps. Any failure is kept as text for the main thread to show."""
        try:
            self._steps()
        except Exception as error:  # whatever it is, the user must read it, and we must stop
            self.failure = str(error) or type(error).__name__
        finally:
            self.finished.set()

    def _steps(self) -> None:
        workers = [worker.name for worker in self._layout.workers]
        servers = [service.name for service in self._servers.embedded]
        self._screen.step(f"starting {', '.join((*servers, 'control', 'gateway', *workers))}")
        self._supervisor.start(*workers)  # they load torch and the model, and wait for their tokens
        if self._demo:  # loading the SDK takes a second of its own
            threading.Thread(target=import_module, args=("openai",), daemon=True).start()
        for service in self._servers.embedded:
            service.prepare()  # a new cluster takes its time: not on the supervisor's thread
        self._supervisor.start(*servers)
        self._supervisor.wait_ready(*servers, deadline_s=_SERVICES_WITHIN_S)
        self._supervisor.start("control", "gateway")
        facts = self._prepare_database()
        self._hand_out_tokens(facts["pools"])
        self._supervisor.start("meter")
        self._supervisor.wait_ready("control", "gateway", "meter", *workers, deadline_s=_READY_WITHIN_S)
        self._screen.step("every process is ready")
        facts = self._publish(facts)
        if self._demo:
            try:
                self._first_request(facts)
            except Exception as error:
                raise StartError(f"the first request: {error}. {self._supervisor.tail('gateway')}") from error
        self._screen.show(*address_lines(facts, stays_up=self._stays_up))
        self._up_file.set(state="ready")

    def _prepare_database(self) -> dict[str, Any]:
        servers, layout = self._servers, self._layout
        roles = roles_ensure(servers.postgres_admin_url, servers.role_passwords)
        self._screen.step("migrating, and bootstrapping the consortium from its charter")
        env = {
            **shared_environment(layout, servers.redis_url),
            **roles.environment(),
            "TOKENWORKS_SECRET_KEY": layout.secret_key,
        }
        arguments = [
            "bootstrap",
            "--migrate",
            "--json",
            "--charter",
            str(layout.charter),
            "--model-dir",
            str(layout.model_dir),
        ]
        if self._need_tokens:
            arguments.append("--fresh-tokens")
        facts = python_json(
            [str(ROOT / "manage.py"), *arguments],
            env=env,
            cwd=ROOT,
            log=layout.log_dir / "prepare.log",
            cancelled=self.cancelled,
        )
        return {**facts, "database_urls": roles.environment()}

    def _hand_out_tokens(self, pools: Sequence[dict[str, Any]]) -> None:
        tokens = {pool["slug"]: pool.get("enrolment_token") for pool in pools}
        for worker in self._layout.workers:
            token = tokens.get(worker.pool)
            if token is None:
                continue
            if worker.name in self._need_tokens:
                token_write(self._layout, worker.name, token)
            elif not self._need_tokens:  # the database does not know this worker: it was made anew
                identity_put_aside(self._layout.worker_dir(worker.name))
                token_write(self._layout, worker.name, token)
                self._supervisor.bounce(worker.name)

    def _publish(self, facts: dict[str, Any]) -> dict[str, Any]:
        layout = self._layout
        shown = {
            **facts,
            "base_url": f"{layout.url('gateway')}/v1",
            "gateway_url": layout.url("gateway"),
            "control_url": layout.url("control"),
            "console_url": layout.url("control"),
            "redis_url": self._servers.redis_url,
            "model": layout.model,
            "log_dir": str(layout.log_dir),
        }
        shown.pop("pools")
        self._up_file.set(**shown)
        return shown

    def _first_request(self, facts: dict[str, Any]) -> None:
        from stack import demo  # noqa: PLC0415  (the SDK is loaded only where it is used)

        screen, key, control_url = self._screen, facts["api_key"], facts["control_url"]
        balance_nano = demo.balance_read(control_url=control_url, api_key=key)
        screen.step(f"asking {facts['model']} through the OpenAI SDK: {demo.QUESTION}")
        screen.show("")
        served = demo.request_stream(
            base_url=facts["base_url"], api_key=key, model=facts["model"], on_text=screen.answer_add
        )
        screen.answer_end()
        screen.show(Text(served_line(served), style="dim"), "")
        billed = demo.bill_read(
            control_url=control_url,
            api_key=key,
            request_id=served.request_id,
            balance_before_nano=balance_nano,
        )
        screen.show(receipt_panel(served, billed))
        self._up_file.set(first_request_id=served.request_id)
        if not billed.verified["sound"]:
            raise demo.DemoError(f"the receipt does not check out: {billed.verified['problems']}")
        screen.step("served, receipted and billed")
