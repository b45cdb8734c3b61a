"""The worker's HTTP surface on bare ASGI."""
