"""Keys that tokens are checked with.

A token names its algorithm itself, so an attacker chooses it. Each algorithm is therefore tied to
keys of its own kind when the gateway starts: a token that says HS256 is only ever held against an
HMAC secret, never against the text of a public key, and ``none`` has no key at all.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import HMACAlgorithm

from gateway.config import ConfigError, Token

HMAC = ("HS256", "HS384", "HS512")
_HASHES = (HMACAlgorithm.SHA256, HMACAlgorithm.SHA384, HMACAlgorithm.SHA512)
RSA = ("RS256", "RS384", "RS512")
EDDSA = ("EdDSA",)

# RFC 7518 3.4: an ECDSA algorithm is bound to one curve. Names as `cryptography` has them.
ECDSA_BY_CURVE = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}

# RFC 7518 3.3: a key of 2048 bits or larger must be used.
_RSA_MIN_BITS = 2048


class WrongKey(Exception):
    """A public key that no algorithm of ours uses."""


def algorithms_of(key: Any) -> tuple[str, ...]:
    """The algorithms that a public key may check. Raises `WrongKey`."""
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < _RSA_MIN_BITS:
            raise WrongKey(f"an RSA key of {key.key_size} bits is too short")
        return RSA
    if isinstance(key, ec.EllipticCurvePublicKey):
        algorithm = ECDSA_BY_CURVE.get(key.curve.name)
        if algorithm is not None:
            return (algorithm,)
        raise WrongKey(f"the curve {key.curve.name} is not supported")
    if isinstance(key, ed25519.Ed25519PublicKey):
        return EDDSA
    raise WrongKey(f"{type(key).__name__} is not supported")


class _Secrets(HMACAlgorithm):
    """Takes secrets as they are: `StaticKeys` has looked whether they are public keys, once. That
    costs as much as the signature.
    """

    def prepare_key(self, key: str | bytes) -> bytes:
        return key.encode() if isinstance(key, str) else key


class _Signatures(jwt.PyJWS):
    """Decodes base64 at once: PyJWT looks at each character in Python, which takes three quarters
    of its time.
    """

    @staticmethod
    def _decode_base64url_segment(segment: bytes, name: str) -> bytes:
        # What its bytes encode to again has no other characters, and no bits left over (RFC 4648
        # 3.3, 3.5). About all else PyJWT decides. Versions up to 2.13 do not call this.
        try:
            decoded = base64.urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
        except binascii.Error:
            pass
        else:
            if base64.urlsafe_b64encode(decoded).rstrip(b"=") == segment:
                return decoded
        return jwt.PyJWS._decode_base64url_segment(segment, name)


def signatures() -> jwt.PyJWS:
    """What checks signatures with keys of `StaticKeys` or of a key set."""
    checker = _Signatures()
    for name, hash_ in zip(HMAC, _HASHES, strict=True):
        checker.unregister_algorithm(name)
        checker.register_algorithm(name, _Secrets(hash_))
    return checker


def _secret(settings: Token, name: str, where: str) -> bytes:
    secret: str = getattr(settings, name)
    try:
        return HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret) if secret else b""
    except jwt.InvalidKeyError as error:
        raise ConfigError(f"{where}.{name}: not a usable secret: {error}") from None


class StaticKeys:
    """The keys of a configuration, by the algorithms they may check."""

    def __init__(self, settings: Token, where: str) -> None:
        """Raises `ConfigError`, which names the key below ``where``."""
        self._by_algorithm: dict[str, Any] = {}
        self.previous_secret = _secret(settings, "hmac_previous_secret_key", where) or None
        secret = _secret(settings, "hmac_secret_key", where)
        if secret:
            self._add(HMAC, secret)
        for name, kind in (
            ("rsa_public_key", rsa.RSAPublicKey),
            ("ecdsa_public_key", ec.EllipticCurvePublicKey),
            ("ed25519_public_key", ed25519.Ed25519PublicKey),
        ):
            text = getattr(settings, name)
            if not text:
                continue
            try:
                key = load_pem_public_key(text.encode())
                if not isinstance(key, kind):
                    raise WrongKey(f"this is a {type(key).__name__}")
                self._add(algorithms_of(key), key)
            except (ValueError, WrongKey) as error:
                raise ConfigError(f"{where}.{name}: not a usable public key: {error}") from None

    def _add(self, algorithms: tuple[str, ...], key: Any) -> None:
        for algorithm in algorithms:
            self._by_algorithm[algorithm] = key

    def __bool__(self) -> bool:
        return bool(self._by_algorithm) or self.previous_secret is not None

    def candidates(self, algorithm: str) -> Iterator[tuple[Any, bool]]:
        """Keys to try for an algorithm, and whether each is the previous HMAC secret."""
        key = self._by_algorithm.get(algorithm)
        if key is not None:
            yield key, False
        if self.previous_secret is not None and algorithm in HMAC:
            yield self.previous_secret, True
