"""From a parsed call to what the engine takes: token ids and sampling parameters."""

from __future__ import annotations

import asyncio

from inference.engine.types import GenerationRequest, RequestRejected, SamplingParams
from inference.worker.ports import EnginePort, TokenizerPort
from inference.worker.protocol.calls import Call, ChatPrompt, TextPrompt, TokenPrompt
from inference.worker.refusal import RefusalError, invalid, overloaded, unsupported

# Tokenizing more text than this takes longer than other streams should wait for the event loop.
LOOP_TEXT_CHARS = 16_384


async def request_prepare(call: Call, request_id: str, engine: EnginePort) -> GenerationRequest:
    """The engine's request for ``call``. Raises RefusalError when the prompt cannot be put into tokens."""
    if _text_chars(call.prompt) > LOOP_TEXT_CHARS:
        ids = await asyncio.to_thread(_token_ids, call.prompt, engine.tokenizer)
    else:
        ids = _token_ids(call.prompt, engine.tokenizer)
    return GenerationRequest(
        request_id=request_id,
        prompt_token_ids=tuple(ids),
        params=_params(call, len(ids), engine.max_model_len),
    )


def rejection_refusal(error: RequestRejected) -> RefusalError:
    """How the engine's refusal looks to a client; nothing was computed."""
    if error.code == "queue_full":
        return overloaded("All places of this worker are taken. Try again shortly.")
    if error.code == "engine_closed":
        return overloaded("This worker is stopping. Try again.")
    if error.code == "duplicate_request":
        return duplicate()
    if error.code == "invalid_params":
        return invalid(f"{error}.", code="invalid_value")
    return invalid(f"{_sentence(str(error))}.", code=error.code)


def duplicate() -> RefusalError:
    """409: a request id is served once; its journal entry tells what came of it."""
    return RefusalError(
        409, "This request id was served before, or is being served.", code="duplicate_request"
    )


def _params(call: Call, prompt_tokens: int, max_model_len: int) -> SamplingParams:
    room = max(1, max_model_len - prompt_tokens)
    greedy = call.top_p == 0  # an empty nucleus: only the likeliest token is left
    return SamplingParams(
        max_tokens=room if call.max_tokens is None else call.max_tokens,
        temperature=0.0 if greedy else call.temperature,
        top_p=1.0 if greedy else call.top_p,
        seed=call.seed,
        stop=call.stop,
    )


def _token_ids(prompt: ChatPrompt | TextPrompt | TokenPrompt, tokenizer: TokenizerPort) -> list[int]:
    if isinstance(prompt, TokenPrompt):
        return list(prompt.token_ids)
    if isinstance(prompt, ChatPrompt):
        messages: list[dict[str, object]] = [{"role": m.role, "content": m.content} for m in prompt.messages]
        try:
            return tokenizer.encode_chat(messages)
        except ValueError as error:
            raise invalid(f"{_sentence(str(error))}.", param="messages", code="invalid_value") from None
    if prompt.suffix is None:
        return tokenizer.encode(prompt.text, add_bos=True)
    try:
        return tokenizer.fim_prompt(prompt.text, prompt.suffix)
    except ValueError as error:
        raise unsupported("suffix", f"{_sentence(str(error))}.") from None


def _text_chars(prompt: ChatPrompt | TextPrompt | TokenPrompt) -> int:
    if isinstance(prompt, ChatPrompt):
        return sum(len(message.content) for message in prompt.messages)
    return len(prompt.text) + len(prompt.suffix or "") if isinstance(prompt, TextPrompt) else 0


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".")
