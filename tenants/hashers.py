"""How passwords are hashed."""

from __future__ import annotations

from django.contrib.auth.hashers import Argon2PasswordHasher


class Argon2id(Argon2PasswordHasher):
    """Argon2id with 46 MiB, one pass, one lane: slow for a guesser, bounded memory for the server."""

    time_cost = 1
    memory_cost = 47_104
    parallelism = 1
