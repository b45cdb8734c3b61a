"""Values by module, whose keys are regular expressions: PEFT's rule, for keys that cannot run away.

The keys come from a file, and a regular expression can take exponential time. So only plain ones are taken:
letters, digits, classes and `.`, each with one repetition at most; groups without one; alternatives. Then the
ways in which a key can be read are counted before it is used, and too many for all modules are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

_V = TypeVar("_V")

LENGTH_MAX = 256
_WORK_MAX = 1 << 29  # ways of reading all keys on all modules; the worst take 26 ns each (AVX2, one thread)
_FIXED = 32  # what the attempt costs that fails at once, in ways of reading
_DIGITS = 6  # of a number in a module's name, and one
_PART = re.compile(
    r"(?P<atom>[A-Za-z0-9_\-.]|\\(?:[dDwW]|[^A-Za-z0-9])|\[\^?(?:[\w.](?:-\w)?)+\])"
    r"(?P<repeat>[*+?]\??|\{\d{1,3}(?:,\d{0,3})?\}\??)?"
    r"|(?P<open>\((?:\?:)?)|(?P<close>\))|(?P<bar>\|)|(?P<anchor>[\^$])",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Pattern(Generic[_V]):
    """Which of `values` a module has: that of the first key which is its name or ends it after a dot."""

    values: tuple[tuple[re.Pattern[str], _V], ...] = ()

    def get(self, module: str, default: _V) -> _V:
        """PEFT 0.21's `get_pattern_key`: `re.match(rf"(.*\\.)?({key})$", module)`, in the keys' order."""
        return next((value for key, value in self.values if key.match(module)), default)


def compile_pattern(values: Mapping[str, _V], modules: Iterable[str]) -> Pattern[_V]:
    """`values` for use on `modules`. Raises `ValueError`, which names the key."""
    names = list(modules)
    longest = max(map(len, names), default=0)
    starts = 1 + max((name.count(".") for name in names), default=0)
    work = len(names) * sum(_FIXED + starts * _ways(key, longest + 1) for key in values)
    if work > _WORK_MAX:
        raise ValueError(f"{len(values)} keys may take too long on {len(names)} modules")
    return Pattern(tuple((_compiled(key), value) for key, value in values.items()))


def _compiled(key: str) -> re.Pattern[str]:
    try:
        return re.compile(rf"(.*\.)?({key})$")
    except (re.error, OverflowError) as error:
        raise ValueError(f"{key!r} is no regular expression: {error}") from error


def _ways(key: str, longest: int) -> int:
    """In how many ways `key` can be laid on a name of fewer than `longest` characters, at most."""
    if len(key) > LENGTH_MAX:
        raise ValueError(f"{key[:40]!r}… has more than {LENGTH_MAX} characters")
    sums, products = [0], [1]  # alternatives so far, and the one being read; one of each for an open group
    at = 0
    while at < len(key):
        part = _PART.match(key, at)
        if part is None or (part["close"] and len(sums) == 1):
            raise ValueError(f"{key!r}: {key[at : at + 8]!r} is none of the regular expressions taken here")
        at = part.end()
        if part["open"]:
            sums.append(0)
            products.append(1)
        elif part["bar"]:
            sums[-1] += products[-1]
            products[-1] = 1
        elif part["close"]:
            inside = sums.pop() + products.pop()
            products[-1] *= inside
        elif part["repeat"]:
            products[-1] *= _repeats(part["atom"], part["repeat"], longest)
    return sums[0] + products[0]


def _repeats(atom: str, repeat: str, longest: int) -> int:
    if repeat[0] == "?":
        return 2
    return _DIGITS if atom in ("\\d", "[0-9]") else longest
