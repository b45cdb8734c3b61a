"""The console in a real browser, on the real stack: from sign-in to the line of the bill."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from stack.browser import LAUNCH_ARGS, browser_ensure
from stack.layout import ROOT
from stack.running import Stack

_REPORT_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) => {
  console.error("policy violation: " + event.violatedDirective + " " + event.blockedURI);
});
"""
_STOP_AT_FIRST_TEXT = """() => {
  new MutationObserver((_changes, observer) => {
    if (!document.querySelector(".turn.fim ins").textContent) return;
    observer.disconnect();
    document.getElementById("stop").click();
  }).observe(document.getElementById("turns"), { subtree: true, childList: true, characterData: true });
}"""
_STEP_MS = 30_000
TENANT_OWNER, FOUNDATION_ADMIN = "tenant owner", "foundation admin"


@dataclass
class Complaints:
    """Everything the browser objects to while a page is used."""

    lines: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        """Collect errors and warnings of this page, and answers that tell of a fault."""
        page.add_init_script(_REPORT_VIOLATIONS)
        page.on("pageerror", lambda error: self.lines.append(f"script: {error}"))
        page.on(
            "console",
            lambda message: (
                self.lines.append(f"{message.type}: {message.text}")
                if message.type in ("error", "warning")
                else None
            ),
        )
        page.on(
            "response",
            lambda response: (
                self.lines.append(f"{response.status} {response.url}") if response.status >= 400 else None
            ),
        )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium: the machine's own, or the copy under var/browser."""
    executable = browser_ensure(ROOT / "var" / "browser")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=executable.path, args=list(LAUNCH_ARGS), env={**os.environ, **executable.env}
        )


@pytest.fixture
def complaints() -> Complaints:
    return Complaints()


@pytest.fixture
def page(stack: Stack, browser: Browser, complaints: Complaints) -> Iterator[Page]:
    """A fresh browser profile at the front page."""
    context = browser.new_context(
        base_url=stack.control_url, permissions=["clipboard-read", "clipboard-write"]
    )
    context.set_default_timeout(_STEP_MS)
    opened = context.new_page()
    complaints.watch(opened)
    yield opened
    context.close()


def sign_in(page: Page, stack: Stack, role: str) -> None:
    """Through the form, as the demo account with this role."""
    account = next(account for account in stack.facts()["accounts"] if account["role"] == role)
    page.goto("/")
    page.get_by_role("link", name="Sign in").first.click()
    page.get_by_label("Email").fill(account["email"])
    page.get_by_label("Password").fill(account["password"])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/console/**")


def test_a_tenant_creates_a_key_streams_an_answer_and_finds_it_on_the_bill(
    page: Page, stack: Stack, complaints: Complaints
) -> None:
    sign_in(page, stack, TENANT_OWNER)

    page.get_by_role("link", name="API keys").click()
    page.get_by_label("Name").fill("from the browser")
    page.get_by_role("button", name="Create key").click()
    secret = page.locator("#new-secret")
    expect(secret).to_have_text(re.compile(r"^tw-sk-[0-9a-f]{72}$"))
    page.get_by_role("button", name="Copy").click()
    assert page.evaluate("navigator.clipboard.readText()") == secret.text_content()
    expect(page.locator("#key-list")).to_contain_text("from the browser")

    page.get_by_role("link", name="Playground").click()
    page.get_by_label("Max tokens").fill("24")
    page.get_by_label("Message").fill("What does os.path.join do?")
    page.keyboard.press("Enter")
    expect(page.locator(".turn.answer")).not_to_be_empty(timeout=_STEP_MS)
    settled = page.locator(".outcome[data-settled]")
    expect(settled).to_contain_text("Served by", timeout=_STEP_MS)
    expect(settled).to_contain_text(re.compile(r"\d+ in, \d+ out"))

    settled.get_by_role("link", name="Receipt").click()
    expect(page.locator(".seal")).to_have_count(4)
    expect(page.locator(".seal.bad")).to_have_count(0)
    request_id = page.locator("#request-id").text_content() or ""

    page.get_by_role("link", name="Bill", exact=True).click()
    expect(page.get_by_label(f"Receipt of {request_id}")).to_be_visible()
    page.get_by_role("link", name="Usage").click()
    expect(page.locator("svg.chart rect.s3").first).to_be_visible()

    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("link", name="Sign in").first).to_be_visible()
    page.goto("/console/bill")
    expect(page.get_by_label("Password")).to_be_visible()
    assert complaints.lines == []


def test_an_answer_can_be_stopped_and_what_was_produced_is_charged(
    page: Page, stack: Stack, complaints: Complaints
) -> None:
    sign_in(page, stack, TENANT_OWNER)
    page.get_by_role("link", name="Fill in the middle").click()
    page.get_by_label("Max tokens").fill("300")
    page.evaluate(_STOP_AT_FIRST_TEXT)
    page.get_by_role("button", name="Fill the gap").click()
    settled = page.locator(".outcome[data-settled]")
    expect(settled).to_contain_text("Charged", timeout=_STEP_MS)
    assert page.locator(".turn.fim ins").text_content(), "what was produced stays on the page"
    produced = re.search(r"(\d+) out", settled.text_content() or "")
    assert produced is not None
    assert 0 < int(produced[1]) < 300
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    assert complaints.lines == []


def test_a_foundation_admin_sees_every_worker_ready(page: Page, stack: Stack, complaints: Complaints) -> None:
    sign_in(page, stack, FOUNDATION_ADMIN)
    page.get_by_role("link", name="Pools").click()
    expect(page.get_by_text("Ready", exact=True)).to_have_count(3)
    page.get_by_role("link", name="Releases").click()
    expect(page.get_by_text("Available")).to_be_visible()
    assert complaints.lines == []
