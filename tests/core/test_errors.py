"""Errors as clients read them."""

from __future__ import annotations

from core.errors import ApiError, not_found, overloaded, unauthorized


def test_body_has_all_four_fields() -> None:
    assert ApiError(400, "No.").body() == {
        "error": {"message": "No.", "type": "invalid_request_error", "param": None, "code": None}
    }
    assert unauthorized().body()["error"]["code"] == "invalid_api_key"
    assert not_found("Nothing.", param="id").status == 404
    assert str(ApiError(400, "No.")) == "No."


def test_retry_headers_say_whether_and_when() -> None:
    assert overloaded("Busy.", retry_after_ms=1).headers() == {"retry-after": "1", "retry-after-ms": "1"}
    assert overloaded("Busy.", retry_after_ms=1001).headers()["retry-after"] == "2"
    assert ApiError(402, "Pay.").headers() == {"x-should-retry": "false"}
    assert ApiError(404, "No.").headers() == {}
