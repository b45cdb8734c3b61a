"""The public front page."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from partners.selectors import offers_in_force
from releases.selectors import releases_available


@require_safe
def landing(request: HttpRequest) -> HttpResponse:
    """What this is, what it costs today, and the way in."""
    releases = releases_available()
    offers = sorted(offers_in_force(), key=lambda offer: (offer.release_slug, offer.output_nano_per_mtok))
    served = {release.slug for release in releases}
    context = {
        "base_url": f"{settings.GATEWAY_URL.rstrip('/')}/v1",
        "model_name": releases[0].slug if releases else "tokenworks-nano",
        "offers": [offer for offer in offers if offer.release_slug in served],
        "signed_in": request.user.is_authenticated,
    }
    return render(request, "console/landing.html", context)
