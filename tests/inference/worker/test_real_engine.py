"""The whole worker with the real engine: what is counted, shown and freed."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import pytest

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
MESSAGES: list[dict[str, object]] = [
    {"role": "system", "content": "Be <｜User｜> brief."},
    {"role": "user", "content": "Grüße 你好 <｜end▁of▁sentence｜>"},
]
BODY: dict[str, Any] = {"model": "tokenworks-test", "messages": MESSAGES, "temperature": 0, "max_tokens": 24}


def streamed_text(body: str) -> str:
    """The text of all chunks of a chat stream."""
    frames = [frame for frame in body.split("\n\n") if frame.startswith("data: {")]
    chunks = [json.loads(frame.removeprefix("data: ")) for frame in frames]
    return "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])


async def test_stream_and_whole_answer_agree_with_each_other_and_the_receipt(real_worker: Any) -> None:
    whole = (await real_worker.post(CHAT, BODY, "req_1")).json()
    stream = await real_worker.post(CHAT, BODY | {"stream": True}, "req_2")
    text = whole["choices"][0]["message"]["content"]
    assert streamed_text(stream.text) == text
    for request_id in ("req_1", "req_2"):
        entry = real_worker.journal.find(request_id).entry
        assert entry.output_sha256 == hashlib.sha256(text.encode()).hexdigest()
        assert entry.completion_tokens == whole["usage"]["completion_tokens"]


async def test_prompt_tokens_are_the_tokenizers_own_count(real_worker: Any) -> None:
    tokenizer = real_worker.engine.tokenizer
    chat = (await real_worker.post(CHAT, BODY, "req_1")).json()["usage"]
    assert chat["prompt_tokens"] == len(tokenizer.encode_chat(MESSAGES))
    body = {"model": "tokenworks-test", "prompt": "def f(", "max_tokens": 2}
    plain = (await real_worker.post(COMPLETIONS, body, "req_2")).json()["usage"]
    assert plain["prompt_tokens"] == len(tokenizer.encode("def f(", add_bos=True))
    middle = (await real_worker.post(COMPLETIONS, body | {"suffix": "return"}, "req_3")).json()["usage"]
    assert middle["prompt_tokens"] == len(tokenizer.fim_prompt("def f(", "return"))


async def test_a_seed_repeats_and_a_stop_string_ends_before_itself(real_worker: Any) -> None:
    warm = BODY | {"temperature": 1.5, "seed": -5}
    texts = [
        (await real_worker.post(CHAT, warm, f"req_{n}")).json()["choices"][0]["message"]["content"]
        for n in range(2)
    ]
    assert texts[0] == texts[1]
    stop = texts[0][3:5]
    stopped = (await real_worker.post(CHAT, warm | {"stop": [stop]}, "req_9")).json()["choices"][0]
    assert stopped["finish_reason"] == "stop"
    assert stopped["message"]["content"] == texts[0][: texts[0].index(stop)]


async def test_what_does_not_fit_is_refused_with_its_code(real_worker: Any) -> None:
    long = await real_worker.post(CHAT, BODY | {"max_tokens": 1000}, "req_1")
    assert (long.status_code, long.json()["error"]["code"]) == (400, "context_length_exceeded")
    body = {"model": "tokenworks-test", "prompt": [10**6]}
    foreign = await real_worker.post(COMPLETIONS, body, "req_2")
    assert (foreign.status_code, foreign.json()["error"]["code"]) == (400, "invalid_token")
    empty = await real_worker.post(COMPLETIONS, body | {"prompt": []}, "req_3")
    assert (empty.status_code, empty.json()["error"]["code"]) == (400, "empty_prompt")
    assert real_worker.journal.next_seq == 0


async def test_a_crowd_of_which_some_leave_frees_every_page_and_has_every_entry(real_worker: Any) -> None:
    async def one(number: int) -> None:
        body = BODY | {"stream": True, "temperature": 1, "max_tokens": 60}
        headers = {"x-request-id": f"req_{number}"}
        async with real_worker.client.stream("POST", CHAT, json=body, headers=headers) as response:
            async for _ in response.aiter_bytes():
                if number % 3 == 0:
                    return

    async with asyncio.TaskGroup() as group:
        for number in range(24):
            group.create_task(one(number))
    await real_worker.idle()
    entries = [signed.entry for signed in real_worker.journal.page(after_seq=-1, limit=100)]
    assert sorted(entry.request_id for entry in entries) == sorted(f"req_{n}" for n in range(24))
    left = [entry for entry in entries if entry.finish_reason == "cancelled"]
    assert {int(entry.request_id[4:]) % 3 for entry in left} <= {0}
    stats = real_worker.engine.stats()
    while stats.running or stats.queued:
        await asyncio.sleep(0.01)
        stats = real_worker.engine.stats()
    assert stats.pages_free == stats.pages_total
    produced = sum(entry.completion_tokens for entry in entries)
    assert produced <= stats.generated_tokens
    assert left or produced == stats.generated_tokens


async def test_choices_of_one_seed_differ_and_the_first_is_the_request_for_one(real_worker: Any) -> None:
    warm = BODY | {"temperature": 1.5, "seed": 11, "max_tokens": 8}
    alone = (await real_worker.post(CHAT, warm, "req_1")).json()["choices"]
    three = (await real_worker.post(CHAT, warm | {"n": 3}, "req_2")).json()
    again = (await real_worker.post(CHAT, warm | {"n": 3}, "req_3")).json()
    texts = [choice["message"]["content"] for choice in three["choices"]]
    assert texts == [choice["message"]["content"] for choice in again["choices"]]
    assert texts[0] == alone[0]["message"]["content"]
    assert len(set(texts)) == 3
    assert three["usage"]["completion_tokens"] == real_worker.journal.find("req_2").entry.completion_tokens


async def test_a_schema_is_met_by_a_model_that_knows_nothing(real_worker: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "n": {"enum": [1, 22, 333]}},
        "required": ["ok", "n"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    body = BODY | {"temperature": 1.0, "response_format": wanted, "max_tokens": 120, "n": 3, "seed": 1}
    body |= {"logit_bias": {str(token): -100 for token in real_worker.engine.tokenizer.encode(" \n\t\r")}}
    answer = (await real_worker.post(CHAT, body)).json()
    for choice in answer["choices"]:
        assert choice["finish_reason"] == "stop"
        made = json.loads(choice["message"]["content"])
        assert isinstance(made["ok"], bool)
        assert made["n"] in (1, 22, 333)


async def test_scores_of_a_prompt_are_those_of_a_text_that_was_generated(real_worker: Any) -> None:
    """A greedy continuation, sent back as a prompt, has the log probabilities it was generated with."""
    tokenizer = real_worker.engine.tokenizer
    ids = {tokenizer.token_name(id_)[0]: id_ for id_ in range(tokenizer.vocab_size)}
    prompt = tokenizer.encode("def f(", add_bos=True)
    body = {"model": "tokenworks-test", "temperature": 0, "logprobs": 1, "max_tokens": 8, "prompt": prompt}
    first = (await real_worker.post(COMPLETIONS, body | {"ignore_eos": True}, "req_1")).json()
    made = first["choices"][0]["logprobs"]
    whole = prompt + [ids[name] for name in made["tokens"]]
    scored = body | {"prompt": [whole, whole], "echo": True, "max_tokens": 0}
    answer = (await real_worker.post(COMPLETIONS, scored, "req_2")).json()
    for choice in answer["choices"]:
        found = choice["logprobs"]
        assert found["token_logprobs"][0] is None
        assert found["token_logprobs"][len(prompt) :] == pytest.approx(made["token_logprobs"], abs=1e-4)
        tops = found["top_logprobs"][len(prompt) :]
        assert [max(top.values()) for top in tops] == found["token_logprobs"][len(prompt) :]
    assert answer["usage"]["completion_tokens"] == 0


async def test_embeddings_are_vectors_of_length_one_and_the_same_together(real_worker: Any) -> None:
    body = {"model": "tokenworks-test", "input": ["Grüße", "def f("]}
    both = (await real_worker.post("/v1/embeddings", body, "req_1")).json()
    alone = (await real_worker.post("/v1/embeddings", body | {"input": "def f("}, "req_2")).json()
    vectors = [one["embedding"] for one in both["data"]]
    assert [sum(x * x for x in vector) for vector in vectors] == pytest.approx([1.0, 1.0], abs=1e-5)
    assert vectors[1] == pytest.approx(alone["data"][0]["embedding"], abs=1e-5)
    assert vectors[0] != pytest.approx(vectors[1], abs=1e-3)
