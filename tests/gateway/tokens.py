"""Keys and tokens for tests."""

from __future__ import annotations

from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SECRET = "secret of at least sixty-four bytes, which is what HS512 should have, so more of it"

RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEYS = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
}
ED_KEY = ed25519.Ed25519PrivateKey.generate()


def pem(key: Any) -> str:
    """The public half of a key."""
    public = key.public_key()
    return str(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def token(
    user: str = "ann",
    *,
    key: Any = SECRET,
    algorithm: str = "HS256",
    headers: dict[str, str] | None = None,
    **claims: Any,
) -> str:
    """A token of this user, signed."""
    return jwt.encode({"sub": user, **claims}, key, algorithm=algorithm, headers=headers)
