"""The ASGI application: ``uvicorn config.asgi:application``."""

from __future__ import annotations

import os

# Under ASGI each request runs in its own thread, so connections are shared through a pool.
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
os.environ.setdefault("TOKENWORKS_DB_POOL", "8")

from django.core.asgi import get_asgi_application

from core.logs import configure_logs

configure_logs(process="control")
application = get_asgi_application()
