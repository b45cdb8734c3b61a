"""A startup's first hour: the OpenAI SDK against the running utility."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import openai
import pytest
from openai import DefaultHttpxClient, OpenAI
from tokenizers import Tokenizer

from stack.layout import ROOT
from stack.running import Stack
from tests.flows.books import Books

QUESTION = "What does os.path.join do?"
NANO = ROOT / "inference" / "models" / "nano"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(NANO / "tokenizer.json"))


def _prompt_tokens(tokenizer: Tokenizer, text: str) -> int:
    """The chat template by hand: begin of sentence, user mark, text, assistant mark."""
    return 3 + len(tokenizer.encode(text, add_special_tokens=False).ids)


def test_a_whole_answer_has_the_tokenizers_own_counts(client: OpenAI, tokenizer: Tokenizer) -> None:
    answer = client.chat.completions.create(
        model="tokenworks-nano",
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=40,
        temperature=0,
    )
    choice = answer.choices[0]
    assert choice.message.content
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == _prompt_tokens(tokenizer, QUESTION)
    produced = len(tokenizer.encode(choice.message.content, add_special_tokens=False).ids)
    ended = 1 if choice.finish_reason == "stop" else 0  # the end-of-sentence token counts
    assert answer.usage.completion_tokens == produced + ended
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_gives_the_same_text_and_usage(client: OpenAI) -> None:
    def options(text: str) -> dict[str, object]:
        return {"model": "tokenworks-nano", "messages": [{"role": "user", "content": text}], "max_tokens": 40}

    whole = client.chat.completions.create(**options(QUESTION), temperature=0)  # type: ignore[call-overload]
    stream = client.chat.completions.create(  # type: ignore[call-overload]
        **options(QUESTION), temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens


def test_a_seed_repeats_its_answer_on_any_partner(client: OpenAI) -> None:
    def answer() -> tuple[str, str]:
        raw = client.chat.completions.with_raw_response.create(
            model="tokenworks-nano",
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=16,
            temperature=1.0,
            seed=7,
        )
        return raw.headers["x-tokenworks-partner"], raw.parse().choices[0].message.content or ""

    answers = [answer() for _ in range(8)]
    assert len({text for _, text in answers}) == 1


def test_fill_in_the_middle(client: OpenAI) -> None:
    completion = client.completions.create(
        model="tokenworks-nano",
        prompt="def add(left, right):\n    ",
        suffix="\n\n\nprint(add(1, 2))\n",
        max_tokens=16,
        temperature=0,
    )
    assert completion.choices[0].text
    assert completion.usage is not None
    assert completion.usage.completion_tokens <= 16


def test_models_are_listed(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tokenworks-nano"]
    assert client.models.retrieve("tokenworks-nano").object == "model"


def test_a_wrong_key_is_401(stack: Stack) -> None:
    wrong = "tw-sk-" + "0" * 72
    with (
        OpenAI(
            base_url=stack.base_url, api_key=wrong, http_client=DefaultHttpxClient(trust_env=False)
        ) as sdk,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        sdk.chat.completions.create(model="tokenworks-nano", messages=[{"role": "user", "content": "hi"}])
    assert caught.value.code == "invalid_api_key"


def test_an_unknown_model_is_404(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-none", messages=[{"role": "user", "content": "hi"}])
    assert "gpt-none" in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"model": "tokenworks-nano"}',
        b'{"model": "tokenworks-nano", "messages": []}',
        b'{"model": "tokenworks-nano", "messages": [{"role": "user", "content": 3}]}',
        b'{"model": "tokenworks-nano", "messages": [{"role": "user", "content": "x"}], "temperature": 9}',
        b'{"model": "tokenworks-nano", "messages": [{"role": "user", "content": "x"}], "max_tokens": "many"}',
    ],
)
def test_a_bad_body_is_400_and_never_reaches_a_worker(stack: Stack, books: Books, body: bytes) -> None:
    books.wait_settled()
    seen_before = _requests_seen(stack)
    answer = httpx.post(
        f"{stack.base_url}/chat/completions",
        content=body,
        headers={"authorization": f"Bearer {stack.api_key}", "content-type": "application/json"},
        trust_env=False,
    )
    assert answer.status_code in {400, 422}
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert answer.headers["x-request-id"].startswith("req_")
    assert _requests_seen(stack) == seen_before
    assert books.unsettled() == {}


def _requests_seen(stack: Stack) -> int:
    """Requests the workers know of: journalled ones and those refused at their doors."""
    lines = 0
    for worker in stack.workers():
        for path in sorted(Path(stack.state_dir / "workers" / worker).rglob("*.jsonl")):
            lines += len(path.read_bytes().splitlines())
        port = stack.facts()["processes"][worker]["port"]
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        lines += sum(
            int(float(line.rsplit(" ", 1)[1]))
            for line in text.splitlines()
            if line.startswith(("tokenworks_worker_requests_total", "tokenworks_worker_refusals_total"))
        )
    return lines


def test_the_receipt_is_signed_by_both_and_its_line_adds_up(
    client: OpenAI, stack: Stack, books: Books
) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="tokenworks-nano", messages=[{"role": "user", "content": QUESTION}], max_tokens=8
    )
    usage = raw.parse().usage
    request_id = raw.headers["x-request-id"]
    books.wait_settled()
    answer = httpx.get(
        f"{stack.control_url}/api/receipts/{request_id}",
        headers={"authorization": f"Bearer {stack.api_key}"},
        trust_env=False,
    )
    assert answer.status_code == 200, answer.text
    receipt = answer.json()
    assert receipt["verified"]["problems"] == [], json.dumps(receipt["verified"])
    line = receipt["bill_line"]
    assert line["charge_nano"] == line["share_nano"] + line["levy_nano"] > 0
    assert usage is not None
    assert (line["prompt_tokens"], line["completion_tokens"]) == (
        usage.prompt_tokens,
        usage.completion_tokens,
    )
