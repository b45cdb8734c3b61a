"""The API object: title, error forms, and the families of endpoints."""

from __future__ import annotations

from importlib.metadata import version

from ninja import NinjaAPI

from api.failures import failures_register
from api.routes import admin, keys, money, projects, receipts, session, workers

api = NinjaAPI(
    title="Tokenworks control API",
    version=version("tokenworks"),
    description="Tenants, projects, keys, money and receipts; the foundation's lists; how workers join.\n\n"
    'Errors are `{"error": {message, type, param, code}}`. Money is whole nano-dollars (1e-9 USD).',
    urls_namespace="control-api",
    docs_url="/docs",
    openapi_url="/openapi.json",
)
failures_register(api)
for family in (session, projects, keys, money, receipts, admin, workers):
    api.add_router("", family.router)
