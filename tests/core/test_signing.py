"""Ed25519 keys in private files, and signatures that nothing else passes for."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from core.signing import signature_is_valid, signing_key_load


def test_key_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "key.pem"
    first = signing_key_load(path)
    assert signing_key_load(path).public_text == first.public_text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
    assert len(base64.b64decode(first.public_text)) == 32


def test_signature_fits_one_key_and_one_message(tmp_path: Path) -> None:
    key, other = signing_key_load(tmp_path / "a"), signing_key_load(tmp_path / "b")
    signature = key.sign(b"message")
    assert signature_is_valid(public_text=key.public_text, message=b"message", signature=signature)
    assert not signature_is_valid(public_text=key.public_text, message=b"massage", signature=signature)
    assert not signature_is_valid(public_text=other.public_text, message=b"message", signature=signature)


@pytest.mark.parametrize("bad", ["", "!", "AAAA", "é", "A" * 88, "A" * 43])
def test_malformed_input_is_no_signature(tmp_path: Path, bad: str) -> None:
    key = signing_key_load(tmp_path / "a")
    assert not signature_is_valid(public_text=key.public_text, message=b"m", signature=bad)
    assert not signature_is_valid(public_text=bad, message=b"m", signature=key.sign(b"m"))


def test_another_kind_of_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ec.pem"
    path.write_bytes(
        generate_private_key(SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    with pytest.raises(ValueError, match=r"ec\.pem"):
        signing_key_load(path)
