"""Every refusal and every fault under /api in the four-field form of ``core.errors``."""

from __future__ import annotations

import structlog
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.db import DataError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError

from core.errors import ApiError, not_found, overloaded, unauthorized

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {400: "malformed_request", 401: "invalid_api_key", 403: "forbidden", 404: "not_found"}
_log = structlog.get_logger("api")


def error_response(error: ApiError) -> HttpResponse:
    """The answer that tells ``error``, with its retry headers."""
    return JsonResponse(error.body(), status=error.status, headers=error.headers())


def route_not_found(request: HttpRequest) -> HttpResponse:
    """404 for an address under /api that does not exist."""
    return error_response(not_found(f"There is no {request.method} {request.path}. See /api/docs."))


def failures_register(api: NinjaAPI) -> None:
    """Answer every exception of an endpoint in the four-field form."""
    for kind in (Exception, ValidationError, HttpError, Http404):  # those that ninja has own forms for
        api.add_exception_handler(kind, _answer)


def as_api_error(response: HttpResponse) -> ApiError:
    """The four fields for an error that Django itself answered with a page."""
    status = response.status_code
    if status >= 500:
        return _fault("The server failed. Try again later.", status)
    message = "This method is not allowed here. See /api/docs." if status == 405 else response.reason_phrase
    code = "method_not_allowed" if status == 405 else _CODES.get(status)
    return ApiError(status, message, type=_TYPES.get(status, "invalid_request_error"), code=code)


def _answer(request: HttpRequest, error: Exception | type[Exception]) -> HttpResponse:
    raised = error if isinstance(error, Exception) else error()
    match raised:
        case ApiError():
            refusal = raised
        case ValidationError():
            refusal = _invalid_value(raised)
        case AuthenticationError():
            refusal = unauthorized("Sign in, or send an API key as 'Authorization: Bearer <key>'.")
        case HttpError():
            refusal = _http_error(raised)
        case RequestDataTooBig():
            refusal = ApiError(413, "The request's body is too large.", code="request_too_large")
        case SuspiciousOperation():
            refusal = ApiError(400, "The request is malformed.", code="malformed_request")
        case Http404():
            refusal = not_found("There is no such object.")
        case DataError():  # a zero byte in a text, say
            refusal = ApiError(
                422, "A value in the request cannot be stored or looked up.", code="invalid_value"
            )
        case OperationalError() | InterfaceError():
            _log.warning("database_away", error=type(raised).__name__)
            refusal = overloaded("The database does not answer now. Try again shortly.")
        case _:
            _log.error("fault", path=request.path, exc_info=raised)
            refusal = _fault("The server failed. Tell support the x-request-id of this response.")
    return error_response(refusal)


def _invalid_value(error: ValidationError) -> ApiError:
    first = error.errors[0]
    path = [str(step) for step in first["loc"] if step not in ("body", "query", "path", "header", "payload")]
    param = ".".join(path) or None
    return ApiError(422, f"{param or 'The request'}: {first['msg']}.", code="invalid_value", param=param)


def _http_error(error: HttpError) -> ApiError:
    status = error.status_code
    kind = _TYPES.get(status, "invalid_request_error")
    return ApiError(status, error.message, type=kind, code=_CODES.get(status))


def _fault(message: str, status: int = 500) -> ApiError:
    return ApiError(status, message, type="server_error", code="fault")
