"""Ed25519 signing keys (RFC 8032) kept in files of mode 0600."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


@dataclass(frozen=True)
class SigningKey:
    """A private key with the text form of its public half (base64 of the 32 raw bytes)."""

    private: Ed25519PrivateKey
    public_text: str

    def sign(self, message: bytes) -> str:
        """Base64 of the 64-byte signature."""
        return base64.b64encode(self.private.sign(message)).decode()


def signing_key_load(path: Path) -> SigningKey:
    """Read the key at ``path``, or make one there (atomically, mode 0600) when there is none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(fresh)
        partial.replace(path)
    private = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(private, Ed25519PrivateKey):
        raise ValueError(f"{path.name} holds no Ed25519 key")
    return SigningKey(private=private, public_text=_public_text(private.public_key()))


def signature_is_valid(*, public_text: str, message: bytes, signature: str) -> bool:
    """Whether ``signature`` (base64) over ``message`` was made by the key; malformed input is False."""
    try:
        key = _public_key(public_text)
        key.verify(base64.b64decode(signature, validate=True), message)
    except (ValueError, InvalidSignature):
        return False
    return True


@lru_cache(maxsize=4096)
def _public_key(text: str) -> Ed25519PublicKey:
    """Parsed once a key, for the same few keys sign everything. Raises ValueError."""
    return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))


def _public_text(key: Ed25519PublicKey) -> str:
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return base64.b64encode(raw).decode()
