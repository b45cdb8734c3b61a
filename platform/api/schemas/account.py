"""People, projects and API keys over the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from api.schemas.base import Id, In, Name, Out


class SignInIn(In):
    """Credentials."""

    email: Annotated[str, StringConstraints(max_length=254)]
    password: Annotated[str, StringConstraints(max_length=1024)]


class TenantRef(Out):
    """A tenant the caller belongs to, with the caller's role."""

    id: str
    name: str
    slug: str
    role: str


class MeOut(Out):
    """The caller. ``tenant_id`` is the tenant acted for; ``csrf_token`` goes into X-CSRFToken on writes."""

    id: str
    kind: Literal["user", "api_key"]
    name: str
    tenant_id: str | None
    role: str
    is_foundation_admin: bool
    tenants: list[TenantRef]
    csrf_token: str | None


class ProjectIn(In):
    """A new project."""

    name: Name


class ProjectOut(Out):
    """A project."""

    id: str
    name: str
    created_at: datetime


class ProjectPage(Out):
    """Projects, newest first."""

    data: list[ProjectOut]
    next_cursor: str | None


class KeyIn(In):
    """A new API key."""

    project_id: Id
    name: Name
    expires_at: AwareDatetime | None = None
    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] = 6000
    max_concurrency: Annotated[int, Field(ge=1, le=100_000)] = 512


class KeyOut(Out):
    """An API key as it may be shown."""

    id: str
    project_id: str
    name: str
    display: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    requests_per_minute: int
    max_concurrency: int


class NewKeyOut(KeyOut):
    """A key just made: the only time its ``secret`` is shown."""

    secret: str


class KeyPage(Out):
    """API keys, newest first."""

    data: list[KeyOut]
    next_cursor: str | None
