"""Organisations that buy: members, projects, API keys, audit; and the scope that row-level security obeys."""
