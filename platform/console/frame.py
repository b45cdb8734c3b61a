"""What surrounds each page of the console: who is here, for which organisation, and the way around."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django_htmx.middleware import HtmxDetails

from ledger.selectors import tenant_balance
from tenants.actor import Actor, actor_of_user
from tenants.models import Role, Tenant, User
from tenants.selectors import memberships_of_user

TENANT_SESSION_KEY = "tenant_id"

_TENANT_PAGES = (
    ("Playground", "console:playground"),
    ("API keys", "console:keys"),
    ("Usage", "console:usage"),
    ("Bill", "console:bill"),
)
_FOUNDATION_PAGES = (
    ("Partners", "console:partners"),
    ("Pools", "console:pools"),
    ("Releases", "console:releases"),
    ("Tenants", "console:tenants"),
)


@dataclass(frozen=True, slots=True)
class MenuItem:
    """A link of the navigation."""

    label: str
    href: str
    is_current: bool


@dataclass(frozen=True, slots=True)
class MenuGroup:
    """A titled part of the navigation."""

    title: str
    items: tuple[MenuItem, ...]


@dataclass(frozen=True)
class Visit:
    """One request of a signed-in person, acting for one organisation or none."""

    request: HttpRequest
    user: User
    actor: Actor

    @cached_property
    def tenants(self) -> tuple[Tenant, ...]:
        """The organisations this person belongs to."""
        return tuple(membership.tenant for membership in memberships_of_user(self.user.id))

    @property
    def tenant(self) -> Tenant | None:
        """The one acted for."""
        return next((tenant for tenant in self.tenants if tenant.id == self.actor.tenant_id), None)

    @property
    def wants_part(self) -> bool:
        """Whether htmx asks, for a part of the page."""
        return bool(HtmxDetails(self.request))

    @property
    def email(self) -> str:
        """Shown beside sign-out."""
        return self.user.email

    @property
    def can_write(self) -> bool:
        """Whether the person's role lets them change something."""
        return self.actor.role in (Role.OWNER, Role.MEMBER)

    @cached_property
    def balance_nano(self) -> int | None:
        """What the organisation has left; None without one."""
        if self.actor.tenant_id is None:
            return None
        with self.actor.scope():
            return tenant_balance(tenant_id=self.actor.tenant_id).balance_nano

    @property
    def menu(self) -> tuple[MenuGroup, ...]:
        """The groups of pages open to this person."""
        groups = []
        if self.tenant is not None:
            groups.append(self._group(self.tenant.name, _TENANT_PAGES))
        if self.actor.is_foundation_admin:
            groups.append(self._group("Foundation", _FOUNDATION_PAGES))
        return tuple(groups)

    def _group(self, title: str, pages: tuple[tuple[str, str], ...]) -> MenuGroup:
        items = []
        for label, name in pages:
            href = reverse(name)
            items.append(MenuItem(label, href, self.request.path.startswith(href)))
        return MenuGroup(title, tuple(items))

    def page(
        self, template: str, context: Mapping[str, Any] | None = None, *, status: int = 200
    ) -> HttpResponse:
        """Render a page or a part of one, with ``frame`` in its context; never kept by any cache."""
        response = render(self.request, template, {"frame": self, **(context or {})}, status=status)
        response["Cache-Control"] = "no-store"
        return response


def visit_of(request: HttpRequest) -> Visit | None:
    """The visit of whoever is signed in; None for a stranger."""
    user = request.user
    if not isinstance(user, User):
        return None
    chosen = request.session.get(TENANT_SESSION_KEY)
    return Visit(request=request, user=user, actor=actor_of_user(user, tenant_id=chosen))
