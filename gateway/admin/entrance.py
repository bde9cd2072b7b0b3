"""Who may see the admin page: a password, and for who has given it a signed token that ends.

Guessing is limited by address, and for all addresses together. Only what failed counts, so that an
operator who knows the password is not kept out by having used it often.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Callable

import jwt

from gateway.config import AdminPage

ALGORITHM = "HS256"
_AUDIENCE = "fastws-admin"

# Wrong passwords of one address: five at once, then one in 12 seconds. Of all: 50, then 2 a second.
_BY_ADDRESS = (12.0, 5)
_BY_ALL = (0.5, 50)
_ADDRESSES = 4096


class Throttle:
    """How soon the next attempt may be made, for each of a bounded number of names.

    One time is kept for each: when all its attempts will have been forgiven.
    """

    def __init__(self, period: float, burst: int, names: int) -> None:
        self._period = period
        self._patience = period * (burst - 1)
        self._names = names
        self._clear_at: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._clear_at)

    def wait(self, name: str, now: float) -> float:
        """Seconds until an attempt may be made; 0: now."""
        return max(0.0, self._clear_at.get(name, now) - now - self._patience)

    def failed(self, name: str, now: float) -> None:
        """An attempt was made, and was wrong."""
        clear_at = max(self._clear_at.pop(name, now), now) + self._period
        if len(self._clear_at) >= self._names:
            del self._clear_at[next(iter(self._clear_at))]  # who has not failed for longest
        self._clear_at[name] = clear_at


class Entrance:
    """Checks passwords, and makes and checks tokens. ``clock`` is monotonic, ``wall`` Unix time."""

    def __init__(
        self, settings: AdminPage, clock: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        self.insecure = settings.insecure
        self._ttl = settings.token_ttl
        self._password = _digest(settings.password)
        self._is_set = bool(settings.password)
        # A key for this use alone: no other token that the secret may sign is good here, and a new
        # password ends what the old one has opened.
        secret = settings.secret.encode() or secrets.token_bytes(32)
        self._key = hmac.digest(secret, b"fastws admin " + self._password, "sha256")
        self._clock = clock
        self._wall = wall
        self._ended: dict[str, float] = {}  # tokens signed out before their end
        self._address_throttle = Throttle(*_BY_ADDRESS, names=_ADDRESSES)
        self._throttle = Throttle(*_BY_ALL, names=1)

    def wait(self, address: str) -> float:
        """Seconds until this address may try a password; 0: now."""
        now = self._clock()
        by_address = self._address_throttle.wait(_network(address), now)
        return max(by_address, self._throttle.wait("", now))

    def knows(self, password: str, address: str) -> bool:
        """Whether the password is right; an attempt that is not counts for the address."""
        if hmac.compare_digest(_digest(password), self._password) and self._is_set:
            return True
        self._address_throttle.failed(_network(address), self._clock())
        self._throttle.failed("", self._clock())
        return False

    def issue(self) -> tuple[str, int]:
        """A new token, and the seconds that it is good for."""
        now = int(self._wall())
        claims = {"aud": _AUDIENCE, "jti": secrets.token_urlsafe(12), "iat": now}
        token = jwt.encode({**claims, "exp": now + int(self._ttl)}, self._key, ALGORITHM)
        return token, int(self._ttl)

    def admits(self, token: str) -> bool:
        """Whether a token is ours, has not ended, and has not been signed out."""
        return self._read(token) is not None

    def end(self, token: str) -> None:
        """Sign a token out."""
        claims = self._read(token)
        if claims is None:
            return
        now = self._wall()
        self._ended = {name: end for name, end in self._ended.items() if end > now}
        self._ended[claims[0]] = claims[1]

    def _read(self, token: str) -> tuple[str, float] | None:
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[ALGORITHM],
                audience=_AUDIENCE,
                options={
                    "require": ["exp", "jti"],
                    "verify_exp": False,  # below, on our clock
                    "verify_iat": False,
                },
            )
            name, end = str(claims["jti"]), float(claims["exp"])
        except (jwt.InvalidTokenError, ValueError, TypeError):
            return None
        return None if end <= self._wall() or name in self._ended else (name, end)


def _digest(password: str) -> bytes:
    """What is compared instead of passwords: it has one length, whatever theirs."""
    return hashlib.sha256(password.encode("utf-8", "surrogatepass")).digest()


def _network(address: str) -> str:
    """An address, or for IPv6 the network that one customer has."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(ip), 64), strict=False))
    return address
