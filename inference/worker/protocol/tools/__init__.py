"""Tools: what a request offers, how a model writes calls, and reading calls out of its text."""
