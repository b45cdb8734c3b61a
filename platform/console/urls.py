"""Addresses of the console."""

from __future__ import annotations

from django.urls import path

from console.views import bill, foundation, keys, landing, playground, session, tenants, usage

app_name = "console"

urlpatterns = [
    path("", landing.landing, name="landing"),
    path("sign-in", session.sign_in, name="sign-in"),
    path("sign-out", session.sign_out, name="sign-out"),
    path("console/", session.home, name="home"),
    path("console/tenant", session.tenant_switch, name="tenant-switch"),
    path("console/playground", playground.playground, name="playground"),
    path("console/playground/stream", playground.playground_stream, name="playground-stream"),
    path(
        "console/playground/outcome/<str:request_id>",
        playground.playground_outcome,
        name="playground-outcome",
    ),
    path("console/keys", keys.keys, name="keys"),
    path("console/keys/<str:key_id>", keys.key_row, name="key-row"),
    path("console/keys/<str:key_id>/revoke", keys.key_revoke, name="key-revoke"),
    path("console/usage", usage.usage, name="usage"),
    path("console/bill", bill.bill, name="bill"),
    path("console/receipts/<str:request_id>", bill.receipt, name="receipt"),
    path("console/receipts/<str:request_id>/json", bill.receipt_json, name="receipt-json"),
    path("console/foundation/partners", foundation.partners, name="partners"),
    path("console/foundation/pools", foundation.pools, name="pools"),
    path("console/foundation/releases", foundation.releases, name="releases"),
    path("console/foundation/tenants", tenants.tenants, name="tenants"),
    path("console/foundation/tenants/<str:tenant_id>/topup", tenants.topup, name="topup"),
]
