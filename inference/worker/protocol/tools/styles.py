"""How the families of models write a call: known by what their chat templates spell."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ToolStyle:
    """A call is ``begin, before_name, NAME, after_name, ARGUMENTS, after_arguments``.

    ``separator`` stands between calls, ``opening`` and ``closing`` around all. After the mark ``end`` a call
    is complete; ``head`` is what models write up to the arguments. ``parsed_arguments``: the template wants
    them as an object. ``before_number``: after the name stands this, then how many calls the conversation had
    before; ``before_name`` up to the number is the call's id, which the template wants. ``marks`` may be
    tokens of their own.
    """

    begin: str
    before_name: str
    after_name: str
    after_arguments: str
    end: str
    head: re.Pattern[str]
    opening: str = ""
    closing: str = ""
    separator: str = ""
    parsed_arguments: bool = False
    before_number: str = ""
    marks: tuple[str, ...] = ()


_OPENING, _CLOSING = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_BEGIN, _SEP, _END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
_MARKS = (_OPENING, _CLOSING, _BEGIN, _SEP, _END)

# DeepSeek-V3.1 and later: the name, a mark, the arguments
DEEPSEEK = ToolStyle(
    begin=_BEGIN,
    before_name="",
    after_name=_SEP,
    after_arguments=_END,
    end=_END,
    head=re.compile(rf"\s*(?P<name>[\w.-]+)\s*{_SEP}"),
    opening=_OPENING,
    closing=_CLOSING,
    marks=_MARKS,
)
# DeepSeek-V3 and R1: the kind, the name, the arguments in a fenced block
DEEPSEEK_FENCED = ToolStyle(
    begin=_BEGIN,
    before_name=f"function{_SEP}",
    after_name="\n```json\n",
    after_arguments=f"\n```{_END}",
    end=_END,
    head=re.compile(rf"\s*function\s*{_SEP}(?P<name>[\w.-]+)\s*```json\s"),
    separator="\n",
    opening=_OPENING,
    closing=_CLOSING,
    marks=_MARKS,
)
# Hermes and Qwen: a JSON object between tags
TAGGED = ToolStyle(
    begin="<tool_call>",
    before_name='\n{"name": "',
    after_name='", "arguments": ',
    after_arguments="}\n</tool_call>",
    end="</tool_call>",
    head=re.compile(r'\s*\{\s*"name"\s*:\s*"(?P<name>[\w.-]+)"\s*,\s*"arguments"\s*:'),
    separator="\n",
    parsed_arguments=True,
    marks=("<tool_call>", "</tool_call>"),
)
# Kimi K2: an id made of the name and a number, a mark, the arguments
_KIMI_SEP, _KIMI_END = "<|tool_call_argument_begin|>", "<|tool_call_end|>"
KIMI = ToolStyle(
    begin="<|tool_call_begin|>",
    before_name="functions.",
    before_number=":",
    after_name=_KIMI_SEP,
    after_arguments=_KIMI_END,
    end=_KIMI_END,
    head=re.compile(rf"\s*(?:functions\.)?(?P<name>[\w.-]+)\s*:\s*[0-9]+\s*{re.escape(_KIMI_SEP)}"),
    opening="<|tool_calls_section_begin|>",
    closing="<|tool_calls_section_end|>",
    marks=(
        "<|tool_calls_section_begin|>",
        "<|tool_calls_section_end|>",
        "<|tool_call_begin|>",
        _KIMI_SEP,
        _KIMI_END,
    ),
)


def tool_style(template: str) -> ToolStyle | None:
    """The style of the model with this chat template; None where it spells none that is known."""
    if _SEP in template:
        return DEEPSEEK_FENCED if "```json" in template else DEEPSEEK
    if _KIMI_SEP in template:
        return KIMI
    return TAGGED if TAGGED.begin in template else None
