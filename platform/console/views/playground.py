"""The playground: its page, the stream of an answer, and what the answer cost."""

from __future__ import annotations

import msgspec
from asgiref.sync import sync_to_async
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.views.decorators.http import require_POST, require_safe

from console.access import member_page
from console.frame import Visit, visit_of
from console.live import served_models
from console.names import partner_names
from console.playground_key import playground_key_secret
from console.receipts import decision_view
from console.relay import answer_relay, ask_parse
from core.errors import ApiError, unauthorized
from metering.models import UsageRecord

_ATTEMPTS_MAX = 20
_DEFAULT_TOKENS = 128
_MAX_TOKENS = 1024
_SUGGESTIONS = (
    "What does os.path.join do?",
    "How do I read a JSON file?",
    "What is the difference between a list and a tuple?",
)
_FIM_PREFIX = 'def parse_version(text):\n    """Return the version as a tuple of integers."""\n'
_FIM_SUFFIX = "\n    return tuple(numbers)\n"


@require_safe
@member_page
def playground(visit: Visit) -> HttpResponse:
    """The page, for chat or for filling a gap in code."""
    models = served_models()
    context = {
        "mode": "fim" if visit.request.GET.get("mode") == "fim" else "chat",
        "models": list(models),
        "max_tokens": min([_MAX_TOKENS, *(context * 3 // 4 for context in models.values())]),
        "default_tokens": _DEFAULT_TOKENS,
        "suggestions": _SUGGESTIONS,
        "fim_prefix": _FIM_PREFIX,
        "fim_suffix": _FIM_SUFFIX,
    }
    return visit.page("console/playground.html", context)


@require_POST
async def playground_stream(request: HttpRequest) -> HttpResponseBase:
    """Ask the gateway with the session's own key and pass the answer on as it comes."""
    try:
        ask = ask_parse(request.body)
        secret = await sync_to_async(_secret)(request)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return _refusal(ApiError(400, f"The form cannot be read: {error}."))
    except ApiError as error:
        return _refusal(error)
    response = StreamingHttpResponse(
        answer_relay(gateway_url=settings.GATEWAY_URL, secret=secret, ask=ask),
        content_type="text/event-stream",
    )
    response["Cache-Control"] = "no-store"
    response["X-Accel-Buffering"] = "no"
    return response


@require_safe
@member_page
def playground_outcome(visit: Visit, request_id: str) -> HttpResponse:
    """Who served it and what it cost, once the meter has posted it; until then, a part that asks again."""
    attempt = visit.request.GET.get("attempt", "0")
    count = int(attempt) if attempt.isdecimal() and len(attempt) < 4 else _ATTEMPTS_MAX
    record = UsageRecord.objects.filter(request_id=request_id).first()
    context: dict[str, object] = {"request_id": request_id, "line": record}
    if record is not None:
        names = partner_names()
        context["partner_name"] = names.get(record.partner_id, record.partner_id)
        context["decision"] = decision_view(record, names)
    elif count < _ATTEMPTS_MAX:
        context["attempt"] = count + 1
    return visit.page("console/_outcome.html", context)


def _secret(request: HttpRequest) -> str:
    visit = visit_of(request)
    if visit is None:
        raise unauthorized("Your session has ended. Sign in again.")
    return playground_key_secret(visit)


def _refusal(error: ApiError) -> JsonResponse:
    return JsonResponse(error.body(), status=error.status, headers=error.headers())
