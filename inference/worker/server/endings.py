"""What a client is told when a request ended without its answer."""

from __future__ import annotations

from inference.worker.refusal import RefusalError, fault, overloaded
from inference.worker.server.flight import Flight
from inference.worker.templates import sentence


def ending_refusal(flight: Flight) -> RefusalError:
    """The error for a flight that was cancelled or failed. 503 only while nothing was produced: then another
    worker may take the same request.
    """
    match flight.cause:
        case "stuck":
            return _stuck(flight)
        case "refused":
            return RefusalError(404, f"{sentence(flight.problem or 'It is gone')}.", code="not_found")
        case "lost":
            return _stopped(flight, "The engine stopped before the answer was complete. Try again.")
        case "expired":
            return _stopped(flight, "The request waited too long for its turn. Try again.")
    if flight.finish_reason == "cancelled":
        return _stopped(flight, "The worker stopped before the answer was complete. Try again.")
    return fault("The worker failed while it generated the answer. Try again.")


def _stopped(flight: Flight, message: str) -> RefusalError:
    if flight.first_token_at_ms is None:
        return overloaded(message)
    return RefusalError(500, message, type="server_error", code="insufficient_system_resource")


def _stuck(flight: Flight) -> RefusalError:
    """Trying again would not help: the grammar must be changed."""
    param = "response_format" if flight.call.sampling.grammar is not None else "tools"
    message = f"{param}: the text cannot go on in its grammar: {flight.problem}."
    return RefusalError(422, message, param=param, code="grammar_stuck")
