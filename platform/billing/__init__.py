"""Prices and charges. ``rating`` is pure; statements and invoices build on it."""
