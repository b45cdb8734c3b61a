"""Sign-in, sign-out, and the choice of organisation."""

from __future__ import annotations

from django.contrib.auth import login, logout
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from console.access import sign_in_first
from console.frame import TENANT_SESSION_KEY, visit_of
from console.playground_key import playground_key_end
from core.errors import ApiError
from tenants.sign_in import BACKEND, user_authenticate


@sensitive_post_parameters("password")
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def sign_in(request: HttpRequest) -> HttpResponse:
    """The form, and what it sends. A refusal says nothing about whether the account exists."""
    next_url = _own_url(request, request.POST.get("next") or request.GET.get("next", ""))
    if request.method != "POST":
        if request.user.is_authenticated:
            return HttpResponseRedirect(next_url)
        return _form(request, next_url)
    email = request.POST.get("email", "")[:254]
    try:
        user = user_authenticate(
            email=email,
            password=request.POST.get("password", "")[:1024],
            address=request.META.get("REMOTE_ADDR", ""),
        )
    except ApiError as error:
        return _form(request, next_url, email=email, error=error)
    login(request, user, backend=BACKEND)
    return HttpResponseRedirect(next_url)


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    """End the session and the playground key that belongs to it."""
    playground_key_end(request)
    logout(request)
    return redirect("console:landing")


@require_POST
def tenant_switch(request: HttpRequest) -> HttpResponse:
    """Act for another organisation of one's own; any other id leaves things as they are."""
    visit = visit_of(request)
    if visit is None:
        return sign_in_first(request)
    chosen = request.POST.get("tenant", "")
    if chosen in {tenant.id for tenant in visit.tenants}:
        playground_key_end(request)
        request.session[TENANT_SESSION_KEY] = chosen
    return redirect("console:home")


def home(request: HttpRequest) -> HttpResponse:
    """The first page worth seeing for this person."""
    visit = visit_of(request)
    if visit is None:
        return sign_in_first(request)
    if visit.tenant is None and visit.actor.is_foundation_admin:
        return redirect("console:pools")
    return redirect("console:playground")


def _form(
    request: HttpRequest, next_url: str, *, email: str = "", error: ApiError | None = None
) -> HttpResponse:
    context = {"next": next_url, "email": email, "problem": error.message if error else None}
    response = render(request, "console/sign_in.html", context, status=error.status if error else 200)
    for name, value in error.headers().items() if error else ():
        response[name] = value
    return response


def _own_url(request: HttpRequest, url: str) -> str:
    """``url`` when it leads to this site, else the console's first page."""
    allowed = url_has_allowed_host_and_scheme(
        url, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return url if allowed else reverse("console:home")
