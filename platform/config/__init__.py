"""Wiring: settings, URLs, ASGI. No logic."""
