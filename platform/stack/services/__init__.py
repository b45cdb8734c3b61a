"""PostgreSQL and Valkey from their wheels, run as real servers with data under one folder."""

from stack.services.postgres import EmbeddedPostgres
from stack.services.service import ServiceError
from stack.services.valkey import EmbeddedValkey

__all__ = ["EmbeddedPostgres", "EmbeddedValkey", "ServiceError"]
