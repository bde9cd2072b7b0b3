"""Proxies: HTTP CONNECT (RFC 9110 9.3.6), and SOCKS by the package ``python-socks``."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import ssl as ssl_module
import urllib.parse
import urllib.request
from typing import Any, Final

from ._dial import dial, set_nodelay
from ._response import ResponseParser
from .exceptions import (
    InvalidMessage,
    InvalidProxy,
    InvalidProxyMessage,
    InvalidProxyStatus,
    InvalidURI,
    ProxyError,
)
from .http import Headers, serialize_head
from .uri import WebSocketURI, ascii_host, basic_credentials

__all__ = ["Proxy", "get_proxy", "open_socks", "open_tunnel", "open_tunnel_in_tls", "parse_proxy"]

_PORTS: Final = {
    "http": 80,
    "https": 443,
    "socks4": 1080,
    "socks4a": 1080,
    "socks5": 1080,
    "socks5h": 1080,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Proxy:
    """The parts of a proxy's URL; ``username`` and ``password`` are decoded."""

    scheme: str
    host: str
    port: int
    username: str | None = None
    password: str | None = None


def parse_proxy(proxy: str) -> Proxy:
    """The parts of ``proxy``; ``InvalidProxy`` unless it is ``scheme://[user:password@]host[:port]``
    with the scheme http, https, socks4, socks4a, socks5 or socks5h.
    """
    try:
        parts = urllib.parse.urlsplit(proxy)
        port = parts.port
        if parts.scheme not in _PORTS:
            raise InvalidProxy(proxy, f"the scheme is none of {', '.join(_PORTS)}")
        if not parts.hostname:
            raise InvalidProxy(proxy, "there is no host")
        host = ascii_host(parts.hostname, proxy)
    except ValueError as error:
        raise InvalidProxy(proxy, str(error)) from None
    except InvalidURI as error:
        raise InvalidProxy(proxy, error.msg) from None
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise InvalidProxy(proxy, "there is something behind the host")
    if parts.username is not None and parts.password is None:
        raise InvalidProxy(proxy, "a user name without a password")
    return Proxy(
        parts.scheme,
        host,
        port or _PORTS[parts.scheme],
        None if parts.username is None else urllib.parse.unquote(parts.username),
        None if parts.password is None else urllib.parse.unquote(parts.password),
    )


def get_proxy(uri: WebSocketURI) -> str | None:
    """The proxy for ``uri`` by the environment or the system's settings, if there is one.

    Looked for in this order: one for the scheme itself (``wss_proxy``), SOCKS, HTTPS, for ``ws``
    HTTP (RFC 6455 4.1 asks for SOCKS first, then for HTTPS), and one for all (``all_proxy``).
    """
    if urllib.request.proxy_bypass(f"{uri.host}:{uri.port}"):
        return None
    proxies = urllib.request.getproxies()
    own = ("wss", "socks", "https") if uri.secure else ("ws", "socks", "https", "http")
    for scheme in (*own, "all"):
        proxy = proxies.get(scheme)
        if proxy:
            # The settings of macOS and Windows give SOCKS servers this scheme.
            if scheme == "socks" and proxy.startswith("http://"):
                return "socks5h://" + proxy.removeprefix("http://")
            return proxy
    return None


# --- SOCKS


async def open_socks(
    proxy: Proxy, uri: WebSocketURI, local_addr: tuple[str, int] | None
) -> socket.socket:
    """A socket connected to ``uri`` through a SOCKS proxy. socks5h and socks4a: the proxy looks
    the host up. ``OSError`` if the proxy cannot be reached, ``ProxyError`` if it refuses.
    """
    try:
        from python_socks import ProxyType
        from python_socks.async_.asyncio import Proxy as SocksProxy
    except ImportError:
        raise ImportError(
            f"a {proxy.scheme} proxy needs python-socks: pip install 'fastws-gateway[socks]'"
        ) from None
    kind = ProxyType.SOCKS5 if proxy.scheme.startswith("socks5") else ProxyType.SOCKS4
    socks = SocksProxy(
        kind,
        proxy.host,
        proxy.port,
        proxy.username,
        proxy.password,
        rdns=proxy.scheme in ("socks5h", "socks4a"),
    )
    try:
        sock = await socks.connect(uri.host, uri.port, local_addr=local_addr)
    except OSError:
        raise
    except Exception as error:
        raise ProxyError(f"the SOCKS proxy did not connect us: {error}") from error
    set_nodelay(sock)
    return sock


# --- HTTP


class _Answer:
    """The answer to a CONNECT request, as it comes."""

    def __init__(self) -> None:
        self.parser = ResponseParser(switching=range(200, 300))

    def feed(self, data: bytes) -> bool:
        """Whether it is complete."""
        try:
            return self.parser.feed(data)
        except InvalidMessage as error:
            raise InvalidProxyMessage(f"from the proxy: {error}") from error

    def check(self) -> None:
        """It is complete, or the connection has ended."""
        response = self.parser.response
        if response is None:
            raise InvalidProxyMessage("the proxy closed the connection without an answer")
        if not 200 <= response.status_code < 300:
            raise InvalidProxyStatus(response)
        if self.parser.rest:
            # A WebSocket server, or TLS, waits for us to begin.
            raise InvalidProxyMessage("the proxy sent more than an answer")


def _connect_request(proxy: Proxy, uri: WebSocketURI, user_agent: str | None) -> bytes:
    host = f"[{uri.host}]" if ":" in uri.host else uri.host
    target = f"{host}:{uri.port}"
    headers = Headers(Host=target)
    if user_agent is not None:
        headers["User-Agent"] = user_agent
    if proxy.username is not None:
        headers["Proxy-Authorization"] = basic_credentials(proxy.username, proxy.password or "")
    return serialize_head(f"CONNECT {target} HTTP/1.1", headers)


async def open_tunnel(
    proxy: Proxy, uri: WebSocketURI, user_agent: str | None, **options: Any
) -> socket.socket:
    """A socket connected to ``uri`` through an HTTP proxy that is spoken to in the clear.

    ``options`` are those of ``dial``. ``OSError`` if the proxy cannot be reached, ``ProxyError``
    of the fitting kind if it refuses.
    """
    loop = asyncio.get_running_loop()
    sock = await dial(proxy.host, proxy.port, **options)
    try:
        await loop.sock_sendall(sock, _connect_request(proxy, uri, user_agent))
        answer = _Answer()
        while data := await loop.sock_recv(sock, 65536):
            if answer.feed(data):
                break
        answer.check()
    except BaseException:
        sock.close()
        raise
    return sock


class _TunnelProtocol(asyncio.Protocol):
    """Asks a proxy on a transport for a connection."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.answer = _Answer()
        self.connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        try:
            if self.answer.feed(data):
                self._finish()
        except InvalidProxyMessage as error:
            self._fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None:
            self._finish()
        else:
            self._fail(exc)

    def _finish(self) -> None:
        try:
            self.answer.check()
        except ProxyError as error:
            self._fail(error)
        else:
            if not self.connected.done():
                self.connected.set_result(None)

    def _fail(self, error: Exception) -> None:
        if not self.connected.done():
            self.connected.set_exception(error)
            self.connected.exception()  # it may be nobody who waits


async def open_tunnel_in_tls(
    proxy: Proxy,
    uri: WebSocketURI,
    user_agent: str | None,
    *,
    ssl: ssl_module.SSLContext,
    server_hostname: str | None,
    **options: Any,
) -> asyncio.Transport:
    """As ``open_tunnel``, with TLS to the proxy: what it gives is a transport."""
    loop = asyncio.get_running_loop()
    sock = await dial(proxy.host, proxy.port, **options)
    try:
        transport, protocol = await loop.create_connection(
            lambda: _TunnelProtocol(_connect_request(proxy, uri, user_agent)),
            sock=sock,
            ssl=ssl,
            server_hostname=server_hostname or proxy.host,
        )
    except BaseException:
        sock.close()
        raise
    try:
        await protocol.connected
    except BaseException:
        transport.abort()
        raise
    return transport
