"""Redirects of an opening handshake (RFC 6455 4.1, RFC 9110 15.4); without I/O."""

from __future__ import annotations

import urllib.parse
from typing import Final

from .exceptions import SecurityError
from .http import Headers, Response
from .uri import WebSocketURI

__all__ = ["MAX_REDIRECTS", "check_redirect", "redirect_target", "without_credentials"]

MAX_REDIRECTS: Final = 10

_STATUSES: Final = frozenset((300, 301, 302, 303, 307, 308))
# Headers that are for one origin: its credentials, and its name if the caller gave one.
_OF_ONE_ORIGIN: Final = frozenset(("authorization", "cookie", "host", "proxy-authorization"))


def redirect_target(uri: str, response: Response) -> str | None:
    """Where ``response``, to a request for ``uri``, sends us; ``None`` if it does not."""
    locations = response.headers.get_all("Location")
    if response.status_code not in _STATUSES or len(locations) != 1:
        return None
    # A WebSocket has no use for the fragment that it may have (RFC 9110 10.2.2).
    target = urllib.parse.urljoin(uri, locations[0].partition("#")[0])
    # A server that redirects everything, say to TLS, names the scheme that it knows.
    scheme, colon, rest = target.partition(":")
    return {"http": "ws", "https": "wss"}.get(scheme.lower(), scheme) + colon + rest


def check_redirect(old: WebSocketURI, new: WebSocketURI) -> None:
    """``SecurityError`` if what was to be protected by TLS would not be."""
    if old.secure and not new.secure:
        raise SecurityError(f"not redirected from wss to ws: {new.host}:{new.port}")


def without_credentials(headers: Headers) -> Headers:
    """``headers`` as another origin may see them."""
    return Headers(line for line in headers.raw_items() if line[0].lower() not in _OF_ONE_ORIGIN)
