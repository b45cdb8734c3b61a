"""Views: they read the request, call a service or selector, and render."""
