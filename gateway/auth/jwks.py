"""Public keys from a JWKS endpoint (RFC 7517), kept until they are old or a new one is named."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import jwt
import msgspec
import structlog

from gateway.auth.keys import WrongKey, algorithms_of

log = structlog.get_logger("gateway.jwks")

# Seconds. Keys are read again when they are this old, ...
KEYS_TTL = 3600.0
# ... or when a token names one that is not among them, but not more often than this: anybody can
# send tokens that name keys which do not exist.
REFETCH_DELAY = 10.0
FETCH_TIMEOUT = 5.0

_MAX_BYTES = 1 << 20
_MAX_KEYS = 256


class JwksUnavailable(OSError):
    """The endpoint gave no keys. Clients are told to try again."""


def fetch(url: str) -> bytes:
    """The body of a JWKS endpoint. Blocks; raises `OSError`."""
    request = urllib.request.Request(url, headers={"Accept": "application/json"})
    with urllib.request.urlopen(request, timeout=FETCH_TIMEOUT) as response:
        body: bytes = response.read(_MAX_BYTES + 1)
    if len(body) > _MAX_BYTES:
        raise JwksUnavailable(f"the answer is larger than {_MAX_BYTES} bytes")
    return body


class Jwks:
    """The keys of one endpoint. ``fetch`` and ``clock`` are replaced by tests."""

    def __init__(
        self,
        url: str,
        fetch: Callable[[str], bytes] = fetch,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._fetch = fetch
        self._clock = clock
        self._keys: dict[str, tuple[tuple[str, ...], Any]] = {}  # by kid: algorithms, key
        self._read_at: float | None = None
        self._tried_at: float | None = None
        self._reading: asyncio.Task[None] | None = None

    async def find(self, kid: str, algorithm: str) -> Any | None:
        """The key of this id for this algorithm, or None.

        Raises `JwksUnavailable` when there never was an answer of the endpoint.
        """
        if self._is_worth_reading(kid):
            if self._reading is None:
                # In a task of its own: several clients wait for it, and one may leave.
                self._reading = asyncio.get_running_loop().create_task(self._read())
            await asyncio.shield(self._reading)
        if self._read_at is None:
            raise JwksUnavailable(f"no keys from {self._url}")
        algorithms, key = self._keys.get(kid, ((), None))
        return key if algorithm in algorithms else None

    def _is_worth_reading(self, kid: str) -> bool:
        now = self._clock()
        if self._reading is not None:
            return kid not in self._keys
        if self._tried_at is not None and now - self._tried_at < REFETCH_DELAY:
            return False
        old = self._read_at is None or now - self._read_at >= KEYS_TTL
        return old or kid not in self._keys

    async def _read(self) -> None:
        self._tried_at = self._clock()
        try:
            body = await asyncio.to_thread(self._fetch, self._url)
            self._keys = _parse(body)
            self._read_at = self._clock()
        except (OSError, ValueError, msgspec.DecodeError) as error:
            # Keys that we have stay good: an endpoint that is down for an hour ends nothing.
            log.warning("cannot read keys", url=self._url, error=str(error))
        finally:
            self._reading = None


def _parse(body: bytes) -> dict[str, tuple[tuple[str, ...], Any]]:
    """Keys by id. One that we cannot use does not hide the others."""
    document = msgspec.json.decode(body)
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("no list of keys in the answer")
    keys = {}
    for entry in entries[:_MAX_KEYS]:
        # A symmetric key ("oct") in a public place would let anyone sign.
        if not isinstance(entry, dict) or entry.get("kty") not in ("RSA", "EC", "OKP"):
            continue
        kid = entry.get("kid", "")
        if not isinstance(kid, str) or entry.get("use", "sig") != "sig":
            continue
        try:
            key = jwt.PyJWK.from_dict({k: v for k, v in entry.items() if k != "alg"}).key
            algorithms = algorithms_of(key)
        except (jwt.PyJWTError, WrongKey, ValueError, TypeError) as error:
            log.warning("a key is not usable", kid=kid, error=str(error))
            continue
        if "alg" in entry:
            algorithms = tuple(name for name in algorithms if name == entry["alg"])
        keys[kid] = (algorithms, key)
    return keys
