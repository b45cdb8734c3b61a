"""Requests for several generations, scored prompts, tools, formats and embeddings, as the SDK reads them."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from inference.engine import GenerationRequest, RequestRejected, TokenEvent, admission

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
CHAT_BODY: dict[str, Any] = {"model": "tokenworks-test", "messages": [{"role": "user", "content": "hi"}]}
TEXT_BODY: dict[str, Any] = {"model": "tokenworks-test", "prompt": "abc"}
STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}},
}
PROMPT_TOKENS = len("user:hi\n") + 1


def chunks_of(body: str) -> list[ChatCompletionChunk]:
    frames = [frame for frame in body.split("\n\n") if frame.startswith("data: {")]
    return [ChatCompletionChunk.model_validate_json(frame.removeprefix("data: ")) for frame in frames]


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


async def test_choices_share_a_prompt_and_are_counted_together(worker: Any) -> None:
    response = await worker.post(CHAT, CHAT_BODY | {"n": 3, "seed": 7})
    answer = ChatCompletion.model_validate_json(response.content)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {choice.message.content for choice in answer.choices} == {"Hello"}
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (PROMPT_TOKENS, 9)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 2
    entry = worker.journal.find("req_1").entry
    assert (entry.prompt_tokens, entry.cached_tokens, entry.completion_tokens) == (PROMPT_TOKENS, 2, 9)
    assert entry.output_sha256 == sha256("Hello" * 3)
    requests = worker.engine.requests
    assert [request.request_id for request in requests] == ["req_1/0", "req_1/1", "req_1/2"]
    seeds = [request.params.seed for request in requests]
    assert seeds[0] == 7
    assert len(set(seeds)) == 3


async def test_the_first_choice_is_the_one_of_a_request_for_one(worker: Any) -> None:
    await worker.post(CHAT, CHAT_BODY | {"seed": 7}, "req_1")
    await worker.post(CHAT, CHAT_BODY | {"seed": 7, "n": 2}, "req_2")
    await worker.post(CHAT, CHAT_BODY | {"n": 2}, "req_3")
    seeds = [request.params.seed for request in worker.engine.requests]
    assert seeds[0] == seeds[1]
    assert seeds[3:] == [None, None]


async def test_streamed_choices_are_interleaved_and_each_ends_once(worker: Any) -> None:
    response = await worker.post(CHAT, CHAT_BODY | STREAM | {"n": 2})
    chunks = [chunk for chunk in chunks_of(response.text) if chunk.choices]
    for index in range(2):
        own = [chunk.choices[0] for chunk in chunks if chunk.choices[0].index == index]
        assert [choice.delta.role for choice in own] == ["assistant"] + [None] * (len(own) - 1)
        assert "".join(choice.delta.content or "" for choice in own) == "Hello"
        assert [choice.finish_reason for choice in own] == [None] * (len(own) - 1) + ["stop"]
    order = [chunk.choices[0].index for chunk in chunks]
    assert order != sorted(order)
    usage = chunks_of(response.text)[-1].usage
    assert usage is not None
    assert usage.completion_tokens == 6
    assert response.text.endswith("data: [DONE]\n\n")


async def test_a_client_that_leaves_cancels_all_choices(worker: Any) -> None:
    worker.engine.gate, worker.engine.free = asyncio.Event(), 1
    headers = {"x-request-id": "req_1"}
    async with worker.client.stream(
        "POST", CHAT, json=CHAT_BODY | STREAM | {"n": 3}, headers=headers
    ) as response:
        pieces = response.aiter_text()
        text = ""
        while text.count('"Hel"') < 3:
            text += await anext(pieces)
    await worker.idle()
    assert sorted(worker.engine.cancelled) == ["req_1/0", "req_1/1", "req_1/2"]
    entry = worker.journal.find("req_1").entry
    assert (entry.finish_reason, entry.completion_tokens) == ("cancelled", 3)
    assert entry.output_sha256 == sha256("Hel" * 3)


async def test_a_choice_that_fails_ends_them_all(worker: Any) -> None:
    worker.engine.failure = RuntimeError("no")
    response = await worker.post(CHAT, CHAT_BODY | {"n": 2})
    assert response.status_code == 500
    entry = worker.journal.find("req_1").entry
    assert (entry.finish_reason, entry.prompt_tokens) == ("error", 0)  # nobody was shown anything
    assert worker.engine.running == 0


async def test_a_refusal_of_one_choice_is_a_refusal_of_the_request(
    worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []

    def generate(request: GenerationRequest) -> AsyncGenerator[TokenEvent, None]:
        taken.append(request.request_id)
        if len(taken) == 2:
            raise RequestRejected("queue_full", "full")
        events: AsyncGenerator[TokenEvent, None] = worker.engine._events(request)
        return events

    monkeypatch.setattr(worker.engine, "generate", generate)
    response = await worker.post(CHAT, CHAT_BODY | {"n": 2})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "server_is_overloaded")
    assert worker.journal.next_seq == 0
    assert worker.engine.running == 0


async def test_a_request_that_expires_in_the_queue_may_be_tried_again(worker: Any) -> None:
    worker.engine.texts, worker.engine.last_reason = [""], "expired"
    response = await worker.post(CHAT, CHAT_BODY | {"n": 2})
    assert response.status_code in (500, 503)
    assert worker.journal.find("req_1").entry.finish_reason == "cancelled"


async def test_many_prompts_make_choices_in_their_order(worker: Any) -> None:
    body = TEXT_BODY | {"prompt": ["ab", [65, 66, 67, 68]], "n": 2, "echo": True}
    answer = Completion.model_validate_json((await worker.post(COMPLETIONS, body)).content)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in answer.choices] == ["abHello", "abHello", "ABCDHello", "ABCDHello"]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3 + 4, 12)
    assert worker.journal.find("req_1").entry.output_sha256 == sha256("abHello" * 2 + "ABCDHello" * 2)


@pytest.mark.parametrize("limit", [0, 1])
async def test_prompts_are_scored_as_evaluation_clients_ask(worker: Any, limit: int) -> None:
    """What lm-eval's local-completions sends, and how it reads the answer. A prompt's first token has null,
    as at OpenAI, whatever the SDK's types say.
    """
    worker.engine.texts = ["E"]
    body = TEXT_BODY | {
        "prompt": [[65, 66, 67], [68, 69]], "temperature": 0, "max_tokens": limit, "logprobs": 1,
        "seed": 1234, "echo": True,
    }  # fmt: skip
    answer = (await worker.post(COMPLETIONS, body)).json()
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (5, 2 * limit)
    for choice, count in zip(answer["choices"], (3, 2), strict=True):
        scored = choice["logprobs"]
        assert scored["token_logprobs"] == [None] + [-0.5] * (count - 1) + [-1.0] * limit
        assert scored["top_logprobs"][0] is None
        assert all("A" in top for top in scored["top_logprobs"][1:])
        assert len(scored["tokens"]) == len(scored["top_logprobs"]) == count + limit
        assert scored["text_offset"] == list(range(count + limit))
        assert choice["text"] == ("ABC" if count == 3 else "DE") + "E" * limit


async def test_chat_log_probabilities_come_in_both_shapes(worker: Any) -> None:
    body = CHAT_BODY | {"logprobs": True, "top_logprobs": 2}
    whole = ChatCompletion.model_validate_json((await worker.post(CHAT, body)).content)
    assert whole.choices[0].logprobs is not None
    content = whole.choices[0].logprobs.content
    assert content is not None
    assert [one.logprob for one in content] == [-1.0, -2.0, -3.0]
    assert [[top.token for top in one.top_logprobs] for one in content] == [["A", "A"]] * 3
    streamed = chunks_of((await worker.post(CHAT, body | STREAM, "req_2")).text)
    parts = [chunk.choices[0].logprobs for chunk in streamed if chunk.choices]
    found = [one for part in parts if part is not None for one in part.content or ()]
    assert found == content


CALL_TEXT = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'


async def test_calls_of_tools_are_told_from_text(worker: Any) -> None:
    worker.engine.texts = [
        "Look",
        ": <tool",
        '_call>\n{"name": "add", "argu',
        'ments": {"a"',
        ": 1}}\n</tool_call>",
    ]
    body = CHAT_BODY | {"tools": [TOOL]}
    whole = ChatCompletion.model_validate_json((await worker.post(CHAT, body)).content)
    choice = whole.choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Look: ")
    assert choice.message.tool_calls is not None
    call = choice.message.tool_calls[0]
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == ("add", '{"a": 1}')
    entry = worker.journal.find("req_1").entry
    assert (entry.finish_reason, entry.output_sha256) == ("stop", sha256('Look: add{"a": 1}'))
    streamed = chunks_of((await worker.post(CHAT, body | STREAM, "req_2")).text)
    deltas = [
        delta for chunk in streamed if chunk.choices for delta in chunk.choices[0].delta.tool_calls or ()
    ]
    assert all(delta.index == 0 and delta.function is not None for delta in deltas)
    assert [delta.id is not None for delta in deltas] == [True] + [False] * (len(deltas) - 1)
    assert "".join(delta.function.arguments or "" for delta in deltas if delta.function) == '{"a": 1}'
    assert len(deltas) > 2
    assert [chunk.choices[0].finish_reason for chunk in streamed if chunk.choices][-1] == "tool_calls"


async def test_tools_are_offered_through_the_template_and_forced_by_a_grammar(worker: Any) -> None:
    worker.engine.texts = [CALL_TEXT]
    body = CHAT_BODY | {"tools": [TOOL]}
    for number, choice in enumerate(("none", "auto", "required")):
        response = await worker.post(CHAT, body | {"tool_choice": choice}, f"req_{number}")
        assert response.status_code == 200
    without, free, forced = worker.engine.requests
    decode = worker.engine.tokenizer.decode
    assert json.dumps([TOOL]) not in decode(list(without.prompt_token_ids)[1:])
    assert decode(list(free.prompt_token_ids)[1:]).startswith(json.dumps([TOOL]))
    assert free.prompt_token_ids == forced.prompt_token_ids
    assert (without.params.grammar, free.params.grammar) == (None, None)
    assert forced.params.grammar is not None
    assert '"add' in forced.params.grammar.source


async def test_strict_tools_are_held_to_their_schema_where_the_model_may_choose(worker: Any) -> None:
    worker.engine.texts = [CALL_TEXT]
    strict = TOOL | {"function": TOOL["function"] | {"strict": True}}
    for number, choice in enumerate(("auto", "none")):
        body = CHAT_BODY | {"tools": [strict], "tool_choice": choice}
        assert (await worker.post(CHAT, body, f"req_{number}")).status_code == 200
    held, without = worker.engine.requests
    assert held.params.grammar is not None
    assert '"integer"' in held.params.grammar.source
    assert without.params.grammar is None
    odd = {"name": "add", "parameters": {"type": "object", "not": {}}, "strict": True}
    refused = await worker.post(CHAT, CHAT_BODY | {"tools": [TOOL | {"function": odd}]}, "req_9")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_grammar")
    assert refused.json()["error"]["param"] == "tools"
    loose = await worker.post(
        CHAT, CHAT_BODY | {"tools": [TOOL | {"function": odd | {"strict": False}}]}, "req_8"
    )
    assert loose.status_code == 200


async def test_text_that_looks_like_a_call_is_text_without_tools(worker: Any) -> None:
    worker.engine.texts = [CALL_TEXT]
    answer = (await worker.post(CHAT, CHAT_BODY)).json()["choices"][0]
    assert (answer["message"]["content"], answer["finish_reason"]) == (CALL_TEXT, "stop")


async def test_a_model_without_a_place_for_tools_says_so(
    worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.engine.tokenizer, "accepts_tools", False)
    response = await worker.post(CHAT, CHAT_BODY | {"tools": [TOOL]})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "tools")
    monkeypatch.setattr(worker.engine.tokenizer, "chat_template", "")
    result = {"role": "tool", "tool_call_id": "c", "content": "3"}
    response = await worker.post(CHAT, CHAT_BODY | {"messages": [*CHAT_BODY["messages"], result]})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "messages")
    assert worker.engine.requests == []


async def test_formats_reach_the_engine_and_bad_ones_are_refused_with_their_reason(worker: Any) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    assert (await worker.post(CHAT, CHAT_BODY | {"response_format": wanted})).status_code == 200
    grammar = worker.engine.requests[0].params.grammar
    assert json.loads(grammar.source) == schema
    schema["type"] = "objekt"
    refused = await worker.post(CHAT, CHAT_BODY | {"response_format": wanted}, "req_2")
    error = refused.json()["error"]
    assert (refused.status_code, error["param"], error["code"]) == (400, "response_format", "invalid_grammar")
    assert "objekt" in error["message"]
    bias = await worker.post(CHAT, CHAT_BODY | {"logit_bias": {"999": 1}}, "req_3")
    assert (bias.status_code, bias.json()["error"]["param"]) == (400, "logit_bias")
    assert len(worker.engine.requests) == 1


async def test_embeddings_are_charged_by_their_prompts(worker: Any) -> None:
    body = {"model": "tokenworks-test", "input": ["abc", "d"]}
    answer = CreateEmbeddingResponse.model_validate_json((await worker.post(EMBEDDINGS, body)).content)
    assert [one.embedding for one in answer.data] == [pytest.approx([0.6, 0.8])] * 2
    assert [one.index for one in answer.data] == [0, 1]
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (6, 6)
    entry = worker.journal.find("req_1").entry
    assert (entry.prompt_tokens, entry.completion_tokens, entry.finish_reason) == (6, 0, "stop")
    assert entry.first_token_at_ms is None
    assert all(request.embed for request in worker.engine.requests)


async def test_the_gateways_headers_set_salt_and_priority(worker: Any) -> None:
    headers = {"x-request-id": "req_1", "x-tokenworks-priority": "-3", "x-tokenworks-cache-salt": "pepper"}
    assert (await worker.client.post(CHAT, json=CHAT_BODY, headers=headers)).status_code == 200
    request = worker.engine.requests[0]
    assert (request.priority, request.salt) == (-3, "pepper")
    for wrong in ("high", "101", "-101"):
        headers |= {"x-request-id": "req_2", "x-tokenworks-priority": wrong}
        refused = await worker.client.post(CHAT, json=CHAT_BODY, headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_header")


async def test_every_sampling_parameter_reaches_the_engine(worker: Any) -> None:
    body = CHAT_BODY | {
        "top_k": 5, "min_p": 0.1, "presence_penalty": 1, "frequency_penalty": -1, "repetition_penalty": 1.1,
        "logit_bias": {"65": 2}, "ignore_eos": True, "logprobs": True, "top_logprobs": 3,
    }  # fmt: skip
    await worker.post(CHAT, body)
    params = worker.engine.requests[0].params
    assert (params.top_k, params.min_p, params.presence_penalty, params.frequency_penalty) == (5, 0.1, 1, -1)
    assert (params.repetition_penalty, params.logit_bias, params.ignore_eos) == (1.1, ((65, 2.0),), True)
    assert (params.logprobs, params.prompt_logprobs) == (3, None)


async def test_log_probabilities_of_all_prompts_have_one_limit(
    worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "SCORES_MAX", 40)
    body = {"model": "tokenworks-test", "prompt": "abcd", "echo": True, "logprobs": 1, "max_tokens": 1}
    assert (await worker.post(COMPLETIONS, body | {"n": 4}, "req_1")).status_code == 200
    response = await worker.post(COMPLETIONS, body | {"n": 5}, "req_2")
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, "logprobs", "invalid_value")
    assert worker.engine.requests[-1].request_id.startswith("req_1/")
