"""SCRAM-SHA-256 verifiers, so that no password is ever part of an SQL statement or its log."""

from __future__ import annotations

import base64
import hashlib
import hmac

ITERATIONS = 4096
"""PostgreSQL's own count; generated passwords have no need of more."""


def verifier(password: str, salt: bytes) -> str:
    """What PostgreSQL stores for ``password``: ``SCRAM-SHA-256$<iterations>:<salt>$<keys>``.

    Passwords here are generated from ASCII letters and digits, so that no string preparation
    (RFC 4013) applies; ValueError for any other.
    """
    if not password.isascii() or not password.isalnum():
        raise ValueError("expected a password of ASCII letters and digits")
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    keys = f"{_text(stored_key)}:{_text(server_key)}"
    return f"SCRAM-SHA-256${ITERATIONS}:{_text(salt)}${keys}"


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
