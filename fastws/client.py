"""``connect``: a TCP connection, by a proxy or not, the opening handshake, and connecting again."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import socket
import ssl as ssl_module
import time
import traceback as traceback_module
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from types import TracebackType
from typing import Any, Literal

from ._dial import ATTEMPT_DELAY, dial, dial_unix, set_nodelay
from ._impl import Carrier
from ._loop import new_poller, reactor_of, tls_carrier
from ._options import MaxQueue, MaxSize, WriteLimit, limits, no_extensions
from ._redirect import MAX_REDIRECTS, check_redirect, redirect_target, without_credentials
from ._transport import ConnectionProtocol
from .client_connection import ClientConnection, ClientEndpoint, ClientSettings
from .client_handshake import USER_AGENT, ClientHandshake, HeadersLike
from .deflate import Deflate, as_deflate
from .exceptions import InvalidStatus, SecurityError
from .handshake import check_subprotocols
from .http import Headers
from .listener import listener_factory
from .proxy import get_proxy, open_socks, open_tunnel, open_tunnel_in_tls, parse_proxy
from .reconnect import STEADY, backoff, process_exception
from .uri import WebSocketURI, parse_uri

__all__ = ["ClientConnection", "connect", "unix_connect"]

SSL = ssl_module.SSLContext | bool | None


class connect:
    """Connect to the WebSocket server at ``uri``, in one of three ways.

    ``ws = await connect(uri)`` gives a connection, which is the caller's to close. ``async with
    connect(uri) as ws`` closes it at the end. ``async for ws in connect(uri)`` gives one after the
    other, for ever: the next when the body of the loop is done with the last, which is closed then.
    In that body, ``except ConnectionClosed: continue``. An attempt that fails is repeated after a
    delay, exponential with full jitter, unless ``process_exception`` finds it final. After a
    connection that you closed, the next is opened at once; after one that the server closed, in
    order too, or that was lost, behind the first of the delays, so that all its clients do not come
    back together. Such a connection counts as an attempt that failed if it lasted less than 5
    seconds.

    Args:
        uri: ``ws://`` or ``wss://`` (TLS). A user name and password in it are sent as
            ``Authorization: Basic``.
        listener: a ``Listener`` subclass or other factory without arguments, called for each
            connection, or one ``Listener`` that all share: callbacks instead of ``recv``.
        origin: value of ``Origin``.
        subprotocols: what we speak, the most wanted first; see ``ws.subprotocol``.
        additional_headers: further header lines; ``Host`` and ``Authorization`` replace ours.
        user_agent_header: value of ``User-Agent``; ``None``: none.
        compression: "deflate" offers permessage-deflate (RFC 7692), a ``Deflate`` does so with its
            settings; ``None``: neither.
        extensions: ``None`` or empty: there are no others.
        proxy: ``True``: by the environment (``wss_proxy``, ``socks_proxy``, ``https_proxy``,
            ``all_proxy``, ``no_proxy``, …) or the system's settings; a URL, ``http://``, ``https://``,
            ``socks5h://``, ``socks5://``, ``socks4a://`` or ``socks4://`` (SOCKS needs the extra
            ``socks``); ``None``: none. Never for a ``sock`` or a Unix socket.
        process_exception: takes the exception of an attempt, and returns ``None`` to try again or
            the exception to raise.
        reconnect_delays: gives an endless iterator of delays in seconds, anew after each connection
            that lasted 5 seconds or that you closed.
        open_timeout: seconds for all of it, from the look-up of the host to the handshake's end,
            redirects included.
        ping_interval: seconds between keepalive pings, which measure ``ws.latency``;
            ``ping_timeout``: seconds to wait for the pong, then 1011.
        close_timeout: seconds to wait for the closing handshake, and for the server to close the
            TCP connection after it.
        max_size: bytes in a message; more is 1009. ``max_fragments``: frames in a message,
            likewise.
        max_queue: messages received and not yet taken by ``recv``; more are left in the socket.
        write_limit: bytes, or (high, low): above high, ``await send`` waits and, with a listener,
            reading pauses, until the queue is down to low.
        max_backlog: bytes queued, over which the queue is dropped and the connection closed (1008).
        carrier: "reactor" (epoll), "asyncio" (a transport), or "auto": the reactor where it can be.
        host, port: where to connect to in place of what ``uri`` says; ``Host`` and TLS go by
            ``uri``.
        sock: a connected socket to use; it is closed with the connection.
        ssl: context for ``wss``; ``None`` or ``True``: ``ssl.create_default_context()``.
        server_hostname: name that the certificate must have, in place of the host in ``uri``.
        ssl_handshake_timeout, ssl_shutdown_timeout: seconds, as for ``loop.create_connection``, of
            asyncio's TLS, which these choose; the reactor's is bounded by ``open_timeout`` and
            ``close_timeout``.
        proxy_ssl, proxy_server_hostname: as ``ssl`` and ``server_hostname``, for an https proxy.
        family: ``socket.AF_INET`` or ``AF_INET6`` to use no other addresses of the host.
        proto, flags: of the look-up of the host, as for ``socket.getaddrinfo``.
        local_addr: (host, port) to connect from.
        happy_eyeballs_delay: seconds before the next address of the host is tried beside the one
            that has not answered (RFC 8305); ``None``: only when it has failed.
        interleave: addresses of the first family that are tried before one of the other, 1 by
            default (RFC 8305 4); 0 leaves them in the order of the look-up.
        logger: instead of ``logging.getLogger("fastws.client")``.
        create_connection: a subclass of ``ClientConnection`` to make.

    Up to 10 redirects are followed, never from ``wss`` to ``ws``. The same origin is sent the
    credentials of the URI again; another is not, nor ``Cookie`` and ``Authorization``.

    Raises:
        InvalidURI, InvalidProxy: ``uri``, a redirect, or ``proxy`` is not one.
        OSError: the TCP or TLS connection failed; ``TimeoutError`` after ``open_timeout``.
        InvalidHandshake: the server or proxy did not answer as it must: ``InvalidStatus`` carries
            its response.
        ValueError, TypeError: an argument is out of its bounds.
    """

    def __init__(
        self,
        uri: str,
        *,
        listener: Any = None,
        origin: str | None = None,
        subprotocols: Sequence[str] | None = None,
        additional_headers: HeadersLike | None = None,
        user_agent_header: str | None = USER_AGENT,
        compression: str | Deflate | None = "deflate",
        extensions: Sequence[Any] | None = None,
        proxy: str | Literal[True] | None = True,
        process_exception: Callable[[Exception], Exception | None] = process_exception,
        reconnect_delays: Callable[[], Iterator[float]] = backoff,
        open_timeout: float | None = 10.0,
        ping_interval: float | None = 20.0,
        ping_timeout: float | None = 20.0,
        close_timeout: float | None = 10.0,
        max_size: MaxSize = 2**20,
        max_fragments: int | None = 4096,
        max_queue: MaxQueue = 16,
        write_limit: WriteLimit = 65536,
        max_backlog: int | None = 16 * 2**20,
        carrier: str = "auto",
        host: str | None = None,
        port: int | None = None,
        sock: socket.socket | None = None,
        ssl: SSL = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        proxy_ssl: SSL = None,
        proxy_server_hostname: str | None = None,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        local_addr: tuple[str, int] | None = None,
        happy_eyeballs_delay: float | None = ATTEMPT_DELAY,
        interleave: int | None = None,
        logger: logging.Logger | None = None,
        create_connection: type[ClientConnection] | None = None,
    ) -> None:
        if carrier not in ("auto", "reactor", "asyncio"):
            raise ValueError(f"carrier: {carrier!r} is not 'auto', 'reactor' or 'asyncio'")
        if sock is not None and (host is not None or port is not None):
            raise ValueError("give sock, or host and port, not both")
        self.uri = uri
        if not parse_uri(uri).secure and ssl:
            raise ValueError("ssl is for wss:// URIs")
        check_subprotocols(subprotocols or ())
        no_extensions(extensions)
        self._settings = ClientSettings(
            client=True,
            **limits(max_size, max_queue, write_limit),
            max_fragments=max_fragments,
            max_backlog=max_backlog,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            open_timeout=open_timeout,
            close_timeout=close_timeout,
        )
        self.logger = logger or logging.getLogger("fastws.client")
        self._settings.endpoint = ClientEndpoint(self.logger, _new_listener(listener))
        self._headers = Headers(additional_headers or ())
        self._handshake: dict[str, Any] = {
            "origin": origin,
            "subprotocols": list(subprotocols or ()),
            "user_agent": user_agent_header,
            "deflate": as_deflate(compression),
        }
        self._user_agent = user_agent_header
        self._proxy = proxy
        self._process_exception = process_exception
        self._reconnect_delays = reconnect_delays
        self._carrier = carrier
        self._host = host
        self._port = port
        self._sock = sock
        self._path: Any = None
        self._ssl = ssl
        self._tls: dict[str, Any] = {
            "server_hostname": server_hostname,
            "ssl_handshake_timeout": ssl_handshake_timeout,
            "ssl_shutdown_timeout": ssl_shutdown_timeout,
        }
        self._proxy_ssl = proxy_ssl
        self._proxy_server_hostname = proxy_server_hostname
        self._local_addr = local_addr
        self._dialing: dict[str, Any] = {
            "family": family,
            "proto": proto,
            "flags": flags,
            "local_addr": local_addr,
            "attempt_delay": happy_eyeballs_delay,
            "interleave": 1 if interleave is None else interleave,
        }
        self._create_connection = create_connection or ClientConnection
        self._connection: ClientConnection | None = None

    # --- the three ways

    def __await__(self) -> Generator[Any, None, ClientConnection]:
        return self._connect().__await__()

    async def __aenter__(self) -> ClientConnection:
        if self._connection is not None:
            raise RuntimeError("this connect() is in use; make another")
        self._connection = await self
        return self._connection

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._connection is not None
        connection, self._connection = self._connection, None
        await connection.__aexit__(kind, error, traceback)

    async def __aiter__(self) -> AsyncIterator[ClientConnection]:
        delays: Iterator[float] | None = None
        while True:
            try:
                ws = await self
            except Exception as error:
                self._check_final(error)
                reason = traceback_module.format_exception_only(error)[-1].strip()
            else:
                opened = time.monotonic()
                async with ws:
                    yield ws
                if ws._detail().deliberate:
                    delays = None
                    continue
                if time.monotonic() - opened >= STEADY:
                    delays = None
                reason = str(ws._closed_error())
            if delays is None:
                delays = self._reconnect_delays()
            delay = next(delays)
            self.logger.info("connecting again in %.1f seconds: %s", delay, reason)
            await asyncio.sleep(delay)

    def _check_final(self, error: Exception) -> None:
        """Raise ``error``, or what it is to be replaced by, if it is final."""
        final = self._process_exception(error)
        if final is error:
            raise error
        if final is not None:
            raise final from error

    # --- one connection

    async def _connect(self) -> ClientConnection:
        timeout = self._settings.open_timeout
        timer = asyncio.timeout(timeout)
        try:
            async with timer:
                return await self._follow_redirects()
        except TimeoutError as error:
            if not timer.expired():
                raise
            raise TimeoutError(f"no connection to {self.uri} within {timeout:g} s") from error

    async def _follow_redirects(self) -> ClientConnection:
        text, headers = self.uri, self._headers
        uri = parse_uri(text)
        for _ in range(MAX_REDIRECTS + 1):
            try:
                return await self._open(uri, headers)
            except InvalidStatus as error:
                target = redirect_target(text, error.response)
                if target is None:
                    raise
                new = parse_uri(target)
                check_redirect(uri, new)
                self._check_override(uri, new)
                if new.origin != uri.origin:
                    headers = without_credentials(headers)
                elif new.username is None:
                    new = dataclasses.replace(new, username=uri.username, password=uri.password)
                text, uri = target, new
        raise SecurityError(f"more than {MAX_REDIRECTS} redirects")

    def _check_override(self, old: WebSocketURI, new: WebSocketURI) -> None:
        """``ValueError`` if it is not clear what a redirect means to arguments of ours."""
        if self._sock is not None:
            raise ValueError(f"redirected to {new.authority}: the socket is used up")
        given = (self._host, self._port, self._path, self._tls["server_hostname"])
        if new.origin != old.origin and any(value is not None for value in given):
            raise ValueError(
                f"redirected to {new.authority}, "
                "but host, port, server_hostname or the Unix socket are for another origin"
            )

    async def _open(self, uri: WebSocketURI, headers: Headers) -> ClientConnection:
        handshake = ClientHandshake(uri, headers, **self._handshake)
        poller = self._poller(uri)
        ws = await self._carry(await self._dial(uri), uri, poller)
        try:
            await ws._handshake(handshake)
        except BaseException:
            ws._lose()
            raise
        return ws

    # --- the TCP connection

    async def _dial(self, uri: WebSocketURI) -> socket.socket | asyncio.Transport:
        """A way to the server: a socket, or a transport that goes through an https proxy."""
        if self._sock is not None:
            if self._sock.fileno() < 0:
                raise ValueError("the socket is used up: it was closed with its connection")
            self._sock.setblocking(False)
            set_nodelay(self._sock)
            return self._sock
        if self._path is not None:
            return await dial_unix(self._path)
        where = dataclasses.replace(uri, host=self._host or uri.host, port=self._port or uri.port)
        url = get_proxy(where) if self._proxy is True else self._proxy
        if url is None:
            return await dial(where.host, where.port, **self._dialing)
        proxy = parse_proxy(url)
        if proxy.scheme.startswith("socks"):
            return await open_socks(proxy, where, self._local_addr)
        if proxy.scheme == "http":
            return await open_tunnel(proxy, where, self._user_agent, **self._dialing)
        return await open_tunnel_in_tls(
            proxy,
            where,
            self._user_agent,
            ssl=self._proxy_context(),
            server_hostname=self._proxy_server_hostname,
            **self._dialing,
        )

    def _proxy_context(self) -> ssl_module.SSLContext:
        if not isinstance(self._proxy_ssl, ssl_module.SSLContext):
            self._proxy_ssl = ssl_module.create_default_context()
        return self._proxy_ssl

    # --- the carrier

    def _poller(self, uri: WebSocketURI) -> Any:
        """The epoll carrier if it is to be used, and can be; else ``None``."""
        poller = None
        timeouts = ("ssl_handshake_timeout", "ssl_shutdown_timeout")
        bounded = uri.secure and any(self._tls[name] is not None for name in timeouts)
        if self._carrier != "asyncio" and not bounded:
            poller = new_poller(reactor_of(asyncio.get_running_loop()))
        if poller is None and self._carrier == "reactor":
            raise _no_reactor()
        return poller

    async def _carry(
        self, way: socket.socket | asyncio.Transport, uri: WebSocketURI, poller: Any
    ) -> ClientConnection:
        """A connection over ``way``, which is closed if that fails."""
        try:
            if poller is not None and isinstance(way, socket.socket):
                return self._adopt(poller, way, uri)
            if self._carrier == "reactor":
                raise _no_reactor()
            protocol = ConnectionProtocol(self._settings, self._new_connection)
            await self._attach(protocol, way, uri)
        except BaseException:
            if isinstance(way, socket.socket):
                way.close()
            else:
                way.abort()
            raise
        if protocol.error is not None:
            assert protocol.carrier is not None
            protocol.carrier.transport.abort()
            raise protocol.error
        assert isinstance(protocol.connection, ClientConnection)
        return protocol.connection

    def _adopt(self, poller: Any, sock: socket.socket, uri: WebSocketURI) -> ClientConnection:
        carrier = poller
        if uri.secure:
            carrier = tls_carrier(
                poller,
                self._context(),
                server_side=False,
                server_hostname=self._tls["server_hostname"] or uri.host,
            )
        ws = self._new_connection(carrier)
        try:
            poller.adopt(ws, sock.fileno())
        except BaseException:
            ws._lose()
            raise
        sock.detach()
        return ws

    async def _attach(
        self,
        protocol: ConnectionProtocol,
        way: socket.socket | asyncio.Transport,
        uri: WebSocketURI,
    ) -> None:
        loop = asyncio.get_running_loop()
        tls: dict[str, Any] = {}
        if uri.secure:
            tls = {name: value for name, value in self._tls.items() if value is not None}
            tls.setdefault("server_hostname", uri.host)
        if isinstance(way, socket.socket):
            if uri.secure:
                tls["ssl"] = self._context()
            await loop.create_connection(lambda: protocol, sock=way, **tls)
            return
        transport: Any = way
        transport.set_protocol(protocol)
        if uri.secure:
            transport = await loop.start_tls(transport, protocol, self._context(), **tls)
        protocol.connection_made(transport)

    def _context(self) -> ssl_module.SSLContext:
        # Made once: it takes longer than a connection does.
        if not isinstance(self._ssl, ssl_module.SSLContext):
            self._ssl = ssl_module.create_default_context()
        return self._ssl

    def _new_connection(self, carrier: Carrier) -> ClientConnection:
        reactor = reactor_of(asyncio.get_running_loop())
        return self._create_connection(self._settings, reactor, carrier)


def _no_reactor() -> RuntimeError:
    return RuntimeError(
        "carrier='reactor' needs Linux, the compiled codec, no ssl_*_timeout and no https proxy; "
        "use carrier='auto'"
    )


def _new_listener(listener: Any) -> Callable[[], Any] | None:
    """What makes the listener of each connection; ``None`` without one."""
    if listener is None:
        return None
    new = listener_factory(listener) or listener
    if not callable(new):
        raise TypeError(
            f"listener must be a Listener or a factory of listeners, not {type(listener).__name__}"
        )
    factory: Callable[[], Any] = new
    return factory


def unix_connect(path: str | os.PathLike[str], uri: str | None = None, **options: Any) -> connect:
    """``connect`` over the Unix socket at ``path``.

    ``uri`` is for the handshake: ``ws://localhost/`` by default, or ``wss://localhost/`` with
    ``ssl``.
    """
    if uri is None:
        uri = "wss://localhost/" if options.get("ssl") else "ws://localhost/"
    connection = connect(uri, **options)
    connection._path = path
    return connection
