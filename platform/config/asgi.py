"""The ASGI application: ``uvicorn config.asgi:application``."""

from __future__ import annotations

import logging
import os
import warnings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
# Under ASGI each request runs in a thread of its own, so connections are shared through a pool.
os.environ.setdefault("TOKENWORKS_DB_POOL", "8")

from django.core.asgi import get_asgi_application

from core.logs import configure_logs

configure_logs(process="control")
for name in ("uvicorn", "uvicorn.error"):  # one form of log line, not two
    logging.getLogger(name).handlers.clear()
    logging.getLogger(name).propagate = True
logging.getLogger("django.request").setLevel(logging.ERROR)  # refusals have a log line of their own
# Static files are small: reading one in a thread before sending it is fine.
warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")
application = get_asgi_application()
