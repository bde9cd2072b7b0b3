"""WebSocket URIs (RFC 6455 3)."""

from __future__ import annotations

import base64
import dataclasses
import re
import urllib.parse
from typing import Final

from .exceptions import InvalidURI

__all__ = ["WebSocketURI", "parse_uri"]

# Not quoted in the path and query of an IRI: what a URI may have there (RFC 3986 2.2, 2.1).
_SAFE: Final = "/:@!$&'()*+,;=?%[]"

# urlsplit() removes some of these without a word.
_BAD = re.compile(r"[\x00-\x20\x7f]")


@dataclasses.dataclass(frozen=True, slots=True)
class WebSocketURI:
    """The parts of a ``ws`` or ``wss`` URI.

    ``host`` is in lower case and, if it is an IPv6 address, without brackets; ``username`` and
    ``password`` are decoded.
    """

    secure: bool
    host: str
    port: int
    path: str
    query: str
    username: str | None = None
    password: str | None = None

    @property
    def resource_name(self) -> str:
        """Path and query, as in the request line (RFC 6455 3)."""
        path = self.path or "/"
        return f"{path}?{self.query}" if self.query else path

    @property
    def authority(self) -> str:
        """Host and port, without the port if it is the default one: for ``Host``."""
        default = 443 if self.secure else 80
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == default else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[bool, str, int]:
        """Scheme, host and port: what credentials are for (RFC 6454 4)."""
        return self.secure, self.host, self.port


def parse_uri(uri: str) -> WebSocketURI:
    """The parts of ``uri``; ``InvalidURI`` unless it is a ``ws`` or ``wss`` URI."""
    if _BAD.search(uri):
        raise InvalidURI(uri, "it has a space or control character in it")
    try:
        parts = urllib.parse.urlsplit(uri)
        port = parts.port
    except ValueError as error:
        raise InvalidURI(uri, str(error)) from None
    if parts.scheme not in ("ws", "wss"):
        raise InvalidURI(uri, "the scheme is not ws or wss")
    if not parts.hostname:
        raise InvalidURI(uri, "there is no host")
    if "#" in uri:
        raise InvalidURI(uri, "it has a fragment (RFC 6455 3)")
    if port == 0:
        raise InvalidURI(uri, "port 0")
    if parts.username is not None and parts.password is None:
        raise InvalidURI(uri, "a user name without a password")
    secure = parts.scheme == "wss"
    return WebSocketURI(
        secure,
        ascii_host(parts.hostname, uri),
        port or (443 if secure else 80),
        urllib.parse.quote(parts.path, safe=_SAFE),
        urllib.parse.quote(parts.query, safe=_SAFE),
        None if parts.username is None else urllib.parse.unquote(parts.username),
        None if parts.password is None else urllib.parse.unquote(parts.password),
    )


def ascii_host(host: str, uri: str) -> str:
    """``host`` as the DNS takes it (RFC 3490)."""
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise InvalidURI(uri, f"host: {error}") from None


def basic_credentials(username: str, password: str) -> str:
    """The value of ``Authorization`` or ``Proxy-Authorization`` (RFC 7617 2)."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode("ascii")
