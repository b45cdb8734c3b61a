"""The control API under /api: thin endpoints over services and selectors, OpenAPI included."""
