"""Request bodies to calls. Every refusal names the field and says what to do."""

from __future__ import annotations

from typing import Any

from inference.worker.protocol.bodies import (
    MAX_CHOICES,
    ChatBody,
    CommonBody,
    CompletionBody,
    EmbeddingBody,
    TokenId,
)
from inference.worker.protocol.calls import (
    Call,
    ChatPrompt,
    Endpoint,
    Prompt,
    Sampling,
    TextPrompt,
    TokenPrompt,
)
from inference.worker.protocol.fields import CHAT_FIELDS, COMPLETION_FIELDS, EMBEDDING_FIELDS, body_fields
from inference.worker.protocol.formats import format_grammar
from inference.worker.protocol.messages import message_parse
from inference.worker.protocol.tools.definitions import tool_use_parse
from inference.worker.protocol.values import convert, json_object
from inference.worker.refusal import RefusalError, invalid, unsupported

DEFAULT_COMPLETION_TOKENS = 16


def call_parse(endpoint: Endpoint, body: bytes) -> Call:
    """The call that a request body asks for. Raises RefusalError (400)."""
    raw = json_object(body)
    match endpoint:
        case "chat":
            return _chat_call(raw)
        case "completions":
            return _completion_call(raw)
        case "embeddings":
            return _embedding_call(raw)


def _chat_call(raw: dict[str, Any]) -> Call:
    body = convert(body_fields(raw, CHAT_FIELDS), ChatBody)
    messages = tuple(message_parse(one, f"messages[{index}]") for index, one in enumerate(body.messages))
    limit = body.max_completion_tokens or body.max_tokens
    if body.max_tokens not in (None, limit):
        message = "max_tokens and max_completion_tokens differ. Send max_completion_tokens alone."
        raise invalid(message, param="max_tokens", code="invalid_value")
    if body.top_logprobs and not body.logprobs:
        raise _conflict("top_logprobs", "top_logprobs needs logprobs: true.")
    tool_use = tool_use_parse(body)
    sampling = _sampling(body)
    if tool_use is not None and sampling.grammar is not None:
        raise _conflict("response_format", "response_format cannot be combined with tools. Send one of them.")
    if tool_use is not None and (tool_use.forced or tool_use.strict) and body.ignore_eos:
        raise _conflict("ignore_eos", "ignore_eos cannot be combined with a required call or a strict tool.")
    return Call(
        endpoint="chat",
        model=body.model,
        prompts=(ChatPrompt(messages, tool_use),),
        sampling=sampling,
        n=body.n,
        stream=body.stream,
        include_usage=_include_usage(body),
        max_tokens=limit,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
    )


def _completion_call(raw: dict[str, Any]) -> Call:
    body = convert(body_fields(raw, COMPLETION_FIELDS), CompletionBody)
    prompts = _prompts(body.prompt, "prompt", body.suffix)
    if len(prompts) * body.n > MAX_CHOICES:
        raise _conflict("n", f"At most {MAX_CHOICES} choices a request, found {len(prompts)} × {body.n}.")
    if body.best_of not in (None, body.n):
        raise unsupported("best_of", "best_of is not supported beyond n. Remove it.")
    if body.echo and body.suffix is not None:
        raise _conflict("echo", "echo cannot be combined with suffix.")
    limit = DEFAULT_COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
    if limit == 0 and not body.echo:
        raise _conflict("max_tokens", "max_tokens: expected at least 1, or 0 together with echo.")
    return Call(
        endpoint="completions",
        model=body.model,
        prompts=prompts,
        sampling=_sampling(body),
        n=body.n,
        stream=body.stream,
        include_usage=_include_usage(body),
        max_tokens=limit,
        logprobs=None if body.logprobs is False else body.logprobs,
        echo=body.echo,
    )


def _embedding_call(raw: dict[str, Any]) -> Call:
    body = convert(body_fields(raw, EMBEDDING_FIELDS), EmbeddingBody)
    prompts = _prompts(body.input, "input", None)
    if len(prompts) > MAX_CHOICES:
        raise _conflict("input", f"input: at most {MAX_CHOICES} texts a request, found {len(prompts)}.")
    return Call(
        endpoint="embeddings", model=body.model, prompts=prompts, base64=body.encoding_format == "base64"
    )


def _include_usage(body: CommonBody) -> bool:
    options = body.stream_options
    if options is not None and not body.stream:
        raise invalid("stream_options is only allowed together with stream: true.", param="stream_options")
    if options is not None and options.include_obfuscation:
        name = "stream_options.include_obfuscation"
        raise unsupported(name, f"{name} is not supported. Remove it.")
    return bool(options and options.include_usage)


def _sampling(body: CommonBody) -> Sampling:
    grammar = format_grammar(body.response_format)
    if grammar is not None and body.ignore_eos:
        raise _conflict("ignore_eos", "ignore_eos cannot be combined with response_format.")
    return Sampling(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=max(0, body.top_k),
        min_p=body.min_p,
        seed=body.seed,
        stop=(body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ()),
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        repetition_penalty=body.repetition_penalty,
        logit_bias=_biases(body.logit_bias or {}),
        ignore_eos=body.ignore_eos,
        grammar=grammar,
    )


def _biases(raw: dict[str, float]) -> tuple[tuple[int, float], ...]:
    """JSON keys are text: token ids in decimal, each once however it is written (biases would add up)."""
    for name in raw:
        if not (name.isascii() and name.isdecimal() and len(name) <= 10):
            message = f"logit_bias: expected token ids as keys, found {name[:32]!r}."
            raise invalid(message, param="logit_bias", code="invalid_value")
    biases = {int(name): bias for name, bias in raw.items()}
    if len(biases) < len(raw):
        message = "logit_bias: a token id is there twice, written with leading zeros."
        raise invalid(message, param="logit_bias", code="invalid_value")
    return tuple(biases.items())


def _prompts(raw: str | list[Any], where: str, suffix: str | None) -> tuple[Prompt, ...]:
    """Text, token ids, or a list of either, as evaluation clients send it."""
    if isinstance(raw, list) and raw and isinstance(raw[0], str | list):
        return tuple(_prompt(one, f"{where}[{index}]", suffix) for index, one in enumerate(raw))
    return (_prompt(raw, where, suffix),)


def _prompt(raw: Any, where: str, suffix: str | None) -> TextPrompt | TokenPrompt:
    if isinstance(raw, str):
        return TextPrompt(raw, suffix)
    if suffix is not None:
        raise _conflict("suffix", "suffix needs a prompt of text, not of token ids.")
    return TokenPrompt(tuple(convert(raw, list[TokenId], where)))


def _conflict(param: str, message: str) -> RefusalError:
    return invalid(message, param=param, code="invalid_value")
