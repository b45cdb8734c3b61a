"""From a parsed call to what the engine takes: token ids, sampling parameters, and the answers to fill."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, replace

from inference.engine.admission import check_scores
from inference.engine.types import GenerationRequest, Grammar, RequestRejected, SamplingParams
from inference.worker.grammars import grammar_check
from inference.worker.ports import EnginePort, TokenizerPort
from inference.worker.protocol.answers import Answer
from inference.worker.protocol.calls import Call, ChatPrompt, Prompt, TextPrompt, TokenPrompt, ToolUse
from inference.worker.protocol.logprobs import ChatLogprobs, CompletionLogprobs
from inference.worker.protocol.tools.grammar import tools_grammar
from inference.worker.protocol.tools.reader import ToolReader
from inference.worker.protocol.tools.styles import ToolStyle
from inference.worker.refusal import RefusalError, invalid, overloaded, unsupported
from inference.worker.templates import chat_tokens, chat_tool_style, mark_ids, sentence

# Tokenizing more text than this takes longer than other streams should wait for the event loop.
LOOP_TEXT_CHARS = 16_384


@dataclass(frozen=True, slots=True)
class Caller:
    """What only a gateway may say of a request: its place in the queue, how long it may wait there, whose
    cached prefixes it shares, its adapter and its fixed-routing profile.
    """

    priority: int = 0
    deadline_s: float | None = None
    salt: str = ""
    adapter: str | None = None
    routing: str | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """The engine's requests of one call and the answer that each fills; the first of every prompt is at
    ``prompt * n``.
    """

    requests: tuple[GenerationRequest, ...]
    answers: tuple[Answer, ...]


async def work_prepare(call: Call, request_id: str, engine: EnginePort, caller: Caller) -> Work:
    """The work for ``call``. Raises RefusalError when a prompt or a grammar cannot be taken."""
    tokenizer = engine.tokenizer
    style = chat_tool_style(call, tokenizer)
    _check_biases(call, len(tokenizer.token_bytes))
    grammar = await _grammar(call, style, tokenizer)
    if _takes_long(call):
        prompts = await asyncio.to_thread(_all_tokens, call, tokenizer, style)
    else:
        prompts = _all_tokens(call, tokenizer, style)
    _check_scores(call, prompts)
    requests, answers = [], []
    for place, ids in enumerate(prompts):
        params = replace(_params(call, len(ids), engine.max_model_len), grammar=grammar)
        for choice in range(call.n):
            index = place * call.n + choice
            requests.append(
                GenerationRequest(
                    request_id=request_id if call.choices == 1 else f"{request_id}/{index}",
                    prompt_token_ids=tuple(ids),
                    params=replace(params, seed=_seed(call.sampling.seed, choice)),
                    salt=caller.salt,
                    adapter=caller.adapter,
                    routing=caller.routing,
                    priority=caller.priority,
                    deadline_s=caller.deadline_s,
                    embed=call.endpoint == "embeddings",
                )
            )
            answers.append(_answer(call, index, ids, tokenizer, style))
    return Work(tuple(requests), tuple(answers))


def rejection_refusal(error: RequestRejected) -> RefusalError:
    """How the engine's refusal looks to a client; nothing was computed."""
    if error.code == "queue_full":
        return overloaded("All places of this worker are taken. Try again shortly.")
    if error.code == "engine_closed":
        return overloaded("This worker is stopping. Try again.")
    if error.code == "duplicate_request":
        return duplicate()
    if error.code in ("unknown_adapter", "unknown_routing"):
        return RefusalError(404, f"{sentence(str(error))}.", code=error.code)
    if error.code == "invalid_params":
        return invalid(f"{error}.", code="invalid_value")
    return invalid(f"{sentence(str(error))}.", code=error.code)


def duplicate() -> RefusalError:
    """409: a request id is served once; its journal entry tells what came of it."""
    return RefusalError(
        409, "This request id was served before, or is being served.", code="duplicate_request"
    )


def _params(call: Call, prompt_tokens: int, max_model_len: int) -> SamplingParams:
    chosen = call.sampling
    room = max(1, max_model_len - prompt_tokens)
    greedy = chosen.top_p == 0  # an empty nucleus: only the likeliest token is left
    limit = 1 if call.endpoint == "embeddings" else room if call.max_tokens is None else call.max_tokens
    return SamplingParams(
        max_tokens=max(1, limit),
        temperature=0.0 if greedy else chosen.temperature,
        top_p=1.0 if greedy else chosen.top_p,
        stop=chosen.stop,
        top_k=chosen.top_k,
        min_p=chosen.min_p,
        presence_penalty=chosen.presence_penalty,
        frequency_penalty=chosen.frequency_penalty,
        repetition_penalty=chosen.repetition_penalty,
        logit_bias=chosen.logit_bias,
        logprobs=call.logprobs,
        prompt_logprobs=call.logprobs if call.echo else None,
        ignore_eos=chosen.ignore_eos,
    )


def _check_biases(call: Call, vocabulary: int) -> None:
    for token, _ in call.sampling.logit_bias:
        if token >= vocabulary:
            message = f"logit_bias: token ids must lie in 0 … {vocabulary - 1}, found {token}."
            raise invalid(message, param="logit_bias", code="invalid_value")


def _check_scores(call: Call, prompts: list[list[int]]) -> None:
    """The limit of one request to the engine holds for all of a call: its answer is one too."""
    try:
        check_scores(call.n * sum(map(len, prompts)), call.logprobs if call.echo else None)
    except RequestRejected as error:
        raise invalid(f"{error}.", param="logprobs", code="invalid_value") from None


def _seed(seed: int | None, choice: int) -> int | None:
    """Each choice has a stream of its own; the first one is that of a request for one choice."""
    if seed is None or choice == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}/{choice}".encode()).digest()[:8])


async def _grammar(call: Call, style: ToolStyle | None, tokenizer: TokenizerPort) -> Grammar | None:
    """What the text must look like, checked: the response format, or calls that must be made or be strict."""
    grammar, param, use = call.sampling.grammar, "response_format", _tool_use(call)
    if use is not None and style is not None:
        grammar, param = tools_grammar(use, style, mark_ids(style, tokenizer)), "tools"
    if grammar is not None:
        await grammar_check(grammar, tokenizer, param)
    return grammar


def _tool_use(call: Call) -> ToolUse | None:
    prompt = call.prompts[0]
    return prompt.tool_use if isinstance(prompt, ChatPrompt) else None


def _all_tokens(call: Call, tokenizer: TokenizerPort, style: ToolStyle | None) -> list[list[int]]:
    return [_tokens(prompt, tokenizer, style) for prompt in call.prompts]


def _tokens(prompt: Prompt, tokenizer: TokenizerPort, style: ToolStyle | None) -> list[int]:
    if isinstance(prompt, TokenPrompt):
        return list(prompt.token_ids)
    if isinstance(prompt, ChatPrompt):
        return chat_tokens(prompt, tokenizer, style)
    if prompt.suffix is None:
        return tokenizer.encode(prompt.text, add_bos=True)
    try:
        return tokenizer.fim_prompt(prompt.text, prompt.suffix)
    except ValueError as error:
        raise unsupported("suffix", f"{sentence(str(error))}.") from None


def _answer(
    call: Call, index: int, ids: list[int], tokenizer: TokenizerPort, style: ToolStyle | None
) -> Answer:
    use, logprobs = _tool_use(call), None
    if call.logprobs is not None:
        logprobs = ChatLogprobs(tokenizer) if call.endpoint == "chat" else CompletionLogprobs(tokenizer)
    prompt = call.prompts[index // call.n]
    echo = ""
    if call.echo:
        echo = prompt.text if isinstance(prompt, TextPrompt) else tokenizer.decode(ids)
    return Answer(
        index,
        reader=ToolReader(style) if use is not None and style is not None else None,
        logprobs=logprobs,
        echo=echo,
        echo_tokens=ids if call.echo else (),
        silent=call.max_tokens == 0,
    )


def _takes_long(call: Call) -> bool:
    """Whether making the tokens may hold up other streams. Definitions of tools are not measured: that takes
    about as long as writing them out.
    """
    return _tool_use(call) is not None or sum(map(_text_chars, call.prompts)) > LOOP_TEXT_CHARS


def _text_chars(prompt: Prompt) -> int:
    if isinstance(prompt, ChatPrompt):
        calls = (call for message in prompt.messages for call in message.tool_calls)
        return sum(len(one.content) for one in prompt.messages) + sum(len(one.arguments) for one in calls)
    return len(prompt.text) + len(prompt.suffix or "") if isinstance(prompt, TextPrompt) else 0
