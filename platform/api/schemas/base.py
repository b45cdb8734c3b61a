"""What every body has in common. Money is whole nano-dollars (1e-9 USD); times are ISO 8601 in UTC."""

from __future__ import annotations

from typing import Annotated

from ninja import Schema
from pydantic import ConfigDict, StringConstraints

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=120)]
Id = Annotated[str, StringConstraints(max_length=32)]


class In(Schema):
    """What clients send: a field that is not known is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Out(Schema):
    """What they get."""

    model_config = ConfigDict(frozen=True)


class ErrorFields(Out):
    """Why a request was refused, and what to do."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorOut(Out):
    """The body of every error."""

    error: ErrorFields
