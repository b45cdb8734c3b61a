"""Refusals and faults as pages in the console's own design."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from core.errors import ApiError

_TITLES = {
    400: "That request was not understood",
    402: "The balance is used up",
    403: "That is not open to you",
    404: "There is nothing here",
    409: "That is not possible right now",
    422: "Something in the form is not right",
    429: "Too many attempts",
    500: "Something went wrong on our side",
    503: "Not available for a moment",
}


def message_page(request: HttpRequest, *, status: int, text: str) -> HttpResponse:
    """A page that says what happened and how to go on."""
    title = _TITLES.get(status, "That did not work")
    context = {"status": status, "title": title, "text": text}
    response = render(request, "console/message.html", context, status=status)
    response["Cache-Control"] = "no-store"
    return response


def refusal_page(request: HttpRequest, error: ApiError) -> HttpResponse:
    """The page of a refusal; its status and retry headers are the API's."""
    response = message_page(request, status=error.status, text=error.message)
    for name, value in error.headers().items():
        response[name] = value
    return response


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """404."""
    return message_page(
        request, status=404, text="The address may be mistyped, or what it named is not yours to see."
    )


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """403 of a form that did not come from this site, or from a page that grew old."""
    return message_page(
        request, status=403, text="The form was older than your session. Go back, reload the page, try again."
    )
