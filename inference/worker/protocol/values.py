"""Plain JSON to typed bodies, with refusals that name the field and say what to do."""

from __future__ import annotations

import re
from typing import Any, NoReturn, TypeVar

import msgspec

from inference.worker.refusal import invalid

_WHERE = re.compile(r"^(?P<problem>.*?) - at `\$\.?(?P<path>.*)`$", re.DOTALL)
_T = TypeVar("_T")


def json_object(body: bytes) -> dict[str, Any]:
    """The object in a request body. Raises RefusalError (400)."""
    try:
        raw = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise invalid("The body is not valid JSON in UTF-8.", code="invalid_json") from None
    if not isinstance(raw, dict):
        raise invalid("The body must be a JSON object.", code="invalid_json")
    return raw


def convert(raw: Any, kind: type[_T], where: str = "") -> _T:
    """``raw`` as ``kind``; ``where`` is its place in the body. Raises RefusalError (400)."""
    try:
        return msgspec.convert(raw, kind, strict=True)
    except msgspec.ValidationError as error:
        _refuse_value(str(error), where)


def _refuse_value(problem: str, where: str) -> NoReturn:
    """Turn msgspec's ``Expected `float`, got `str` - at `$.top_p` `` into a refusal that names ``top_p``."""
    match = _WHERE.match(problem)
    path = match["path"] if match else ""
    missing = re.search(r"missing required field `(\w+)`", problem)
    unknown = re.search(r"unknown field `([^`]{1,64})", problem)
    named = missing or unknown
    if named:
        path = f"{path}.{named[1]}" if path else named[1]
    joint = "" if not (where and path) or path.startswith("[") else "."
    param = f"{where}{joint}{path}" or None
    if unknown:
        message = f"Unrecognized request argument: {param}. Remove it."
        raise invalid(message, param=param, code="unknown_parameter")
    text = "is required" if missing else (match["problem"] if match else problem)
    code = "missing_required_parameter" if missing else "invalid_value"
    raise invalid(f"{param or 'body'}: {text}.", param=param, code=code)
