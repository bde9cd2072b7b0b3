"""Who a client is when proxies stand between: what those that are trusted say of it."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from fastws.networks import Networks
from gateway.config import HttpServer

# Proxies in a row that are looked through; a client may write as many as a header takes.
_MAX_HOPS = 32

_TOKEN = r"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
# A parameter of Forwarded with what ends it (RFC 7239 4), or an empty element (RFC 9110 5.6.1).
_PAIR = re.compile(
    rf'[ \t]*(?:({_TOKEN})=(?:({_TOKEN})|"((?:[^"\\]|\\.)*)"))?[ \t]*([;,]|\Z)', re.ASCII
)

GetAll = Callable[[str], list[str]]  # the values of a header


class ClientAddresses:
    """Finds the client behind ``http_server.trusted_proxies``.

    A proxy appends the address that it was connected from, so the header is read from its end: as
    long as the address that one gave is of another trusted proxy, the one before it counts. What
    an untrusted one wrote is the client's own claim, and is not looked at.
    """

    def __init__(self, settings: HttpServer) -> None:
        self._trusted = Networks(settings.trusted_proxies)
        self._header = settings.forwarded_header

    def address(self, peer: Any, get_all: GetAll) -> str:
        """The client's IP address; ``"unix"`` where there is none.

        ``peer``: as ``socket.getpeername()`` gives it, or what a PROXY header said in its place.
        """
        found = _text(peer)
        if self._header == "none" or peer not in self._trusted:
            return found
        for hop in reversed(self._hops(get_all)[-_MAX_HOPS:]):
            ip = parse_node(hop)
            if ip is None:
                break  # "unknown", a made-up name, or nonsense: the last one that is known
            found = ip
            if ip not in self._trusted:
                break
        return found

    def is_secure(self, peer: Any, get_all: GetAll) -> bool:
        """Whether the proxy in front of us says that TLS was used to it."""
        if self._header == "none" or peer not in self._trusted:
            return False
        if self._header == "forwarded":
            elements = parse_forwarded(get_all("Forwarded"))
            said = elements[-1].get("proto", "") if elements else ""
        else:
            values = get_all("X-Forwarded-Proto")
            said = values[-1].rpartition(",")[2] if values else ""
        return said.strip().lower() in ("https", "wss")

    def _hops(self, get_all: GetAll) -> list[str]:
        if self._header == "forwarded":
            return [element.get("for", "") for element in parse_forwarded(get_all("Forwarded"))]
        return ",".join(get_all("X-Forwarded-For")).split(",")


def _text(peer: Any) -> str:
    return _shortest(str(peer[0])) if isinstance(peer, tuple) else "unix"


@functools.lru_cache(4096)
def _shortest(address: str) -> str:
    return parse_node(address) or address


def parse_node(text: str) -> str | None:
    """The IP address of a proxy's header, without its port (RFC 7239 6), in its shortest form.

    IPv4 in IPv6 is IPv4. ``None`` if there is none.
    """
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return str(ip)


def parse_forwarded(values: list[str]) -> list[dict[str, str]]:
    """The elements of ``Forwarded`` (RFC 7239 4), names in lower case; none if it is malformed."""
    text = ",".join(values)
    elements: list[dict[str, str]] = []
    element: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = _PAIR.match(text, at)
        if match is None:
            return []
        name, token, quoted, end = match.groups()
        if name is not None:
            value = token if token is not None else re.sub(r"\\(.)", r"\1", quoted)
            if element.setdefault(name.lower(), value) is not value:
                return []  # each parameter once
        if end != ";" and element:
            elements.append(element)
            element = {}
        at = match.end()
    return [*elements, element] if element else elements


class Forwarded:
    """ASGI: tells an app the client's address and scheme in place of the proxy's."""

    def __init__(self, app: ASGIApp, addresses: ClientAddresses) -> None:
        self._app = app
        self._addresses = addresses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            get_all = Headers(scope=scope).getlist
            peer = scope["client"] or ""
            address = self._addresses.address(peer, get_all)
            if not peer or peer[0] != address:
                scope["client"] = (address, 0)
            if self._addresses.is_secure(peer, get_all):
                scope["scheme"] = "https"
        await self._app(scope, receive, send)
