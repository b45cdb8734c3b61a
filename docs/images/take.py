"""Take the pictures of this folder from the real stack: ``python docs/images/take.py``."""

from __future__ import annotations

import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from openai import OpenAI
from playwright.sync_api import Page, expect, sync_playwright

from stack.browser import LAUNCH_ARGS, browser_ensure
from stack.layout import ROOT
from stack.running import Stack

HERE = Path(__file__).resolve().parent
QUESTIONS = (
    "What does os.path.join do?",
    "What does json.dumps return?",
    "How do I read a file line by line?",
    "What does str.partition do?",
    "What is collections.Counter for?",
    "When does dict.pop raise KeyError?",
    "What does functools.lru_cache do?",
    "How do I copy a list?",
    "What does itertools.chain do?",
    "What is a context manager?",
    "What does zip do with lists of different length?",
    "How do I sort by two keys?",
    "What does pathlib.Path.glob return?",
    "When is a set faster than a list?",
)
PLAYED = "Who are you?"


def requests_make(stack: Stack) -> None:
    """Some traffic, a few requests at a time, so that the bill has lines of several partners."""
    with OpenAI(base_url=stack.base_url, api_key=stack.api_key) as client:

        def ask(index: int) -> None:
            client.chat.completions.create(
                model=stack.model,
                messages=[{"role": "user", "content": QUESTIONS[index]}],
                max_tokens=24 + 8 * index,
            )

        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(ask, range(len(QUESTIONS))))


def playground_play(page: Page, stack: Stack) -> None:
    """Sign in as the demo tenant's owner and ask something."""
    account = next(one for one in stack.facts()["accounts"] if one["role"] == "tenant owner")
    page.goto("/sign-in")
    page.get_by_label("Email").fill(account["email"])
    page.get_by_label("Password").fill(account["password"])
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("Max tokens").fill("64")
    page.get_by_label("Message").fill(PLAYED)
    page.keyboard.press("Enter")
    expect(page.locator(".outcome[data-settled]")).to_be_visible(timeout=30_000)


def main(model_dir: str | None = None) -> None:
    """Write playground.png and bill.png. ``model_dir`` replaces the release that is served."""
    executable = browser_ensure(ROOT / "var" / "browser")
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack(Path(folder), model_dir=Path(model_dir) if model_dir else None) as stack,
        sync_playwright() as playwright,
    ):
        requests_make(stack)
        browser = playwright.chromium.launch(
            executable_path=executable.path, args=list(LAUNCH_ARGS), env={**os.environ, **executable.env}
        )
        page = browser.new_page(base_url=stack.control_url, viewport={"width": 1280, "height": 720})
        playground_play(page, stack)
        page.get_by_label("Message").blur()
        page.screenshot(path=HERE / "playground.png", full_page=True)
        page.get_by_role("link", name="Bill", exact=True).click()
        expect(page.locator("tbody tr")).to_have_count(len(QUESTIONS) + 1)
        page.screenshot(path=HERE / "bill.png")
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
