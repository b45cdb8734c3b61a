"""Who may open a page: decorators that turn a request into a visit, and refusals into pages."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

import structlog
from django.contrib.auth.views import redirect_to_login
from django.db import DataError, InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django_htmx.http import HttpResponseClientRedirect

from console.errors import refusal_page
from console.frame import Visit, visit_of
from core.errors import ApiError, overloaded
from tenants.scope import system_scope

log = structlog.get_logger()

P = ParamSpec("P")
PageView = Callable[Concatenate[Visit, P], HttpResponseBase]
DjangoView = Callable[Concatenate[HttpRequest, P], HttpResponseBase]


def member_page(view: PageView[P]) -> DjangoView[P]:
    """For signed-in people with an organisation; the view runs inside that tenant's scope."""

    def inside(visit: Visit, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        with visit.actor.scope():
            return view(visit, *args, **kwargs)

    return _guarded(view, inside)


def foundation_page(view: PageView[P]) -> DjangoView[P]:
    """For foundation admins; the view runs inside the system's scope."""

    def inside(visit: Visit, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        visit.actor.require_foundation_admin()
        with system_scope():
            return view(visit, *args, **kwargs)

    return _guarded(view, inside)


def _guarded(view: PageView[P], inside: PageView[P]) -> DjangoView[P]:
    @wraps(view)
    def guarded(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        try:
            visit = visit_of(request)
            if visit is None:
                return sign_in_first(request)
            return inside(visit, *args, **kwargs)
        except ApiError as error:
            return refusal_page(request, error)
        except DataError:  # a zero byte in a text, say
            return refusal_page(request, ApiError(422, "A value in the address or form cannot be looked up."))
        except (InterfaceError, OperationalError) as error:
            log.warning("database_away", error=type(error).__name__)
            return refusal_page(request, overloaded("The database does not answer now. Try again shortly."))

    return guarded


def sign_in_first(request: HttpRequest) -> HttpResponse:
    """Send a stranger to sign in and back; a part loaded by htmx moves the whole page."""
    redirect = redirect_to_login(request.get_full_path() if request.method == "GET" else "/console/")
    if request.headers.get("HX-Request"):
        return HttpResponseClientRedirect(redirect["Location"])
    return redirect
