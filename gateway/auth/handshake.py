"""What the opening request of a connection says of its client: where it comes from, and a token."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import parse_qs, urlsplit

import fastws
from gateway.config import TokenSource

_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


class OriginCheck:
    """Keeps pages of other sites from connecting with the cookies of their visitors.

    Browsers always send ``Origin`` (RFC 6455 10.2); without one it is no browser, and passes.
    ``allowed`` are origins such as ``https://example.com`` in which ``*`` stands for anything;
    ``*`` alone allows all. Without any, a page has to come from the host that it connects to.
    """

    def __init__(self, allowed: Sequence[str]) -> None:
        # Nothing but * is special: http://[::1]:8000 is an origin.
        parts = (map(re.escape, each.lower().split("*")) for each in allowed)
        self._patterns = [re.compile(".*".join(each)) for each in parts]

    def allows(self, request: fastws.Request, *, secure: bool = False) -> bool:
        """Whether the request may become a connection. ``secure``: it is known to be over TLS."""
        origins = request.headers.get_all("Origin")
        if not origins:
            return True
        if len(origins) > 1:
            return False
        origin = origins[0].lower()
        if self._patterns:
            return any(pattern.fullmatch(origin) for pattern in self._patterns)
        hosts = request.headers.get_all("Host")
        return len(hosts) == 1 and _is_same_host(origin, hosts[0].lower(), secure)


def _is_same_host(origin: str, host: str, secure: bool) -> bool:
    """Host and port are the same. The scheme may differ: TLS may end in front of us.

    Where it is known not to, a page that came without TLS is another origin: anyone on the way may
    have written it.
    """
    try:
        page = urlsplit(origin)
        if secure and page.scheme not in ("https", "wss"):
            return False
        default = _DEFAULT_PORTS.get(page.scheme)
        ours = urlsplit(f"//{host}")
        return bool(page.hostname) and (page.hostname, page.port or default) == (
            ours.hostname,
            ours.port or default,
        )
    except ValueError:
        return False


def token_of(request: fastws.Request, source: TokenSource) -> str:
    """The connection token that a request carries where it may, or an empty text."""
    headers = request.headers
    if source.authorization_header:
        for value in headers.get_all("Authorization"):
            scheme, _, token = value.partition(" ")
            if scheme.lower() == "bearer" and token:
                return token.strip()
    if source.cookie:
        for value in headers.get_all("Cookie"):
            token = _cookie(value, source.cookie)
            if token:
                return token
    if source.query_parameter:
        query = request.path.partition("?")[2]
        try:
            found = parse_qs(query, max_num_fields=100).get(source.query_parameter)
        except ValueError:  # too many fields
            found = None
        if found:
            return found[0]
    if source.subprotocol_prefix:
        for value in headers.get_all("Sec-WebSocket-Protocol"):
            for offered in value.split(","):
                if offered.strip().startswith(source.subprotocol_prefix):
                    return offered.strip()[len(source.subprotocol_prefix) :]
    return ""


def _cookie(header: str, name: str) -> str:
    """A cookie by name (RFC 6265 4.2.1). What is wrong with others does not matter."""
    for pair in header.split(";"):
        key, _, value = pair.strip().partition("=")
        if key == name:
            return value.strip('"')
    return ""


def select_subprotocol(offered: Sequence[str], source: TokenSource) -> str | None:
    """The subprotocol to answer with: a browser fails if it offered some and none was taken.

    What does not carry a token goes first; a token alone is all that can be answered.
    """
    if not source.subprotocol_prefix:
        return None
    tokens = [each for each in offered if each.startswith(source.subprotocol_prefix)]
    if not tokens:
        return None
    others = [each for each in offered if each not in tokens]
    return (others or tokens)[0]
