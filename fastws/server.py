"""``serve``: listening sockets, the opening handshake, and the end of it all."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import os
import socket
import ssl as ssl_module
import sys
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Sequence
from types import TracebackType
from typing import Any, Final

from ._accept import Acceptor
from ._impl import Carrier, Head, TransportCarrier
from ._loop import new_poller, reactor_of, tls_carrier
from ._options import MaxQueue, MaxSize, WriteLimit, limits, no_extensions
from ._sockets import bind, unlink_socket
from ._transport import HandOver, ServerProtocol
from .deflate import Answers, Deflate, as_deflate
from .exceptions import ConnectionClosed, InvalidHandshake, NegotiationError
from .frames import State
from .handshake import (
    Origins,
    check_head,
    check_origin,
    check_subprotocols,
    offered_subprotocols,
    refusal,
    switching,
)
from .http import Headers, Request, Response
from .listener import hook, listener_factory
from .networks import Networks
from .proxy_protocol import ProxiedAddresses
from .server_connection import ServerConnection, ServerSettings

__all__ = ["Server", "ServerConnection", "serve", "unix_serve"]

Handler = Callable[[ServerConnection], Awaitable[Any]]
ProcessRequest = Callable[
    [ServerConnection, Request], "Response | Awaitable[Response | None] | None"
]
ProcessResponse = Callable[[ServerConnection, Request, Response], "Response | None"]
SelectSubprotocol = Callable[[ServerConnection, Sequence[str]], "str | None"]

# asyncio's 100 overflows in a burst of clients: lost SYNs come again after a second.
BACKLOG: Final = 4096

# Whether loops can watch descriptors: not Windows' proactor.
_READERS: Final = sys.platform != "win32"


class Server:
    """A running server; what ``serve`` gives.

    ``async with server`` closes it at the end; ``serve_forever`` runs until cancelled.
    """

    def __init__(
        self,
        handler: Any,
        *,
        settings: ServerSettings,
        origins: Origins | None,
        subprotocols: Sequence[str] | None,
        select_subprotocol: SelectSubprotocol | None,
        process_request: ProcessRequest | None,
        process_response: ProcessResponse | None,
        server_header: str | None,
        deflate: Deflate | None,
        http: Callable[[], asyncio.Protocol] | None,
        logger: logging.Logger | None,
        ssl: ssl_module.SSLContext | None = None,
        ssl_timeouts: tuple[float | None, float | None] = (None, None),
        proxies: Networks | None = None,
        create_connection: type[ServerConnection] = ServerConnection,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.reactor = reactor_of(self.loop)
        self.settings = settings
        self.settings.endpoint = self
        self.logger: logging.Logger = logger or logging.getLogger("fastws.server")
        self.http = http
        self._ssl = ssl
        self._ssl_timeouts = ssl_timeouts  # of asyncio's TLS: its handshake, its end
        self._proxies = proxies
        self._create_connection = create_connection
        self._origins = origins
        self._subprotocols = list(subprotocols or ())
        self._select_subprotocol = select_subprotocol
        self._process_request = process_request
        self._process_response = process_response
        self._lines = _header_lines(server_header)
        self._answers = Answers(deflate, self.reactor.shared) if deflate is not None else None
        self._new_listener, self._handler = _split_handler(handler)
        self._listening: list[Any] = []
        self._bound: list[socket.socket] = []  # that do not listen yet
        self._listen_options: dict[str, Any] = {}
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Future[Any]] = set()
        self._handshakes: set[asyncio.Future[Any]] = set()  # of TLS, on asyncio transports
        self._closing = False
        self._closed: asyncio.Future[None] = self.loop.create_future()
        self._socket_path: str | None = None

    # --- for the user

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening sockets."""
        sockets = [*self._bound, *(listening.sock for listening in self._listening)]
        for server in self._servers:
            sockets.extend(server.sockets)
        return tuple(sockets)

    @property
    def ssl(self) -> ssl_module.SSLContext | None:
        """The TLS context of new connections; ``None`` without TLS.

        Another one may be put in its place, to renew certificates or what clients' are checked
        with: connections that are open, or whose TLS handshake has begun, keep theirs.
        ``ValueError`` if the server was started without TLS, ``NotImplementedError`` on Windows.
        """
        return self._ssl

    @ssl.setter
    def ssl(self, context: ssl_module.SSLContext) -> None:
        if self._ssl is None:
            raise ValueError("this server was started without TLS")
        if self._servers:
            raise NotImplementedError("asyncio's servers keep their context here")
        self._ssl = context

    @property
    def connections(self) -> set[ServerConnection]:
        """The open connections."""
        return {ws for ws in self._all() if ws._state == State.OPEN}

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop that it runs on."""
        return self.loop

    async def start_serving(self) -> None:
        """Accept connections, where ``serve(start_serving=False)`` left that for later."""
        bound, self._bound = self._bound, []
        await self._listen(bound, **self._listen_options)

    def is_serving(self) -> bool:
        """Whether new connections are accepted."""
        return not self._closing and bool(self._listening or self._servers)

    def close(self, close_connections: bool = True, code: int = 1001, reason: str = "") -> None:
        """Stop accepting, and close every connection (with ``code`` and ``reason``) unless told not
        to.

        ``wait_closed`` waits for them and for their handlers.
        """
        if not self._closing:
            self._closing = True
            for listening in self._listening:
                listening.close()
            self._listening = []
            for sock in self._bound:
                sock.close()
            self._bound = []
            for server in self._servers:
                server.close()
            self._servers = []
            if self._socket_path is not None:
                unlink_socket(self._socket_path)
        if close_connections:
            for task in list(self._handshakes):
                task.cancel()
            for ws in self._all():
                if ws._state == State.OPEN:
                    ws.close(code, reason)
                elif ws._state == State.CONNECTING:
                    ws._lose()
        self._check_closed()

    async def wait_closed(self) -> None:
        """Until ``close`` has been called, every connection is closed and every handler has
        returned.
        """
        await asyncio.shield(self._closed)

    async def serve_forever(self) -> None:
        """Serve until cancelled, then close."""
        try:
            await self.start_serving()
            await asyncio.shield(self._closed)
        except asyncio.CancelledError:
            self.close()
            await self.wait_closed()
            raise

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        await self.wait_closed()

    # --- listening

    def _bind(self, sockets: Iterable[socket.socket], **options: Any) -> None:
        """Let ``start_serving`` listen on ``sockets``; ``options`` are those of ``_listen``."""
        self._bound = list(sockets)
        self._listen_options = options

    async def _listen(
        self, sockets: Iterable[socket.socket], *, backlog: int = BACKLOG, carrier: str = "auto"
    ) -> None:
        poller = None
        # Plain HTTP over TLS goes to a protocol that wants asyncio's transport.
        if carrier != "asyncio" and (
            self._ssl is None or (self.http is None and self._ssl_timeouts == (None, None))
        ):
            poller = new_poller(self.reactor)
        if carrier == "reactor" and poller is None:
            raise RuntimeError(
                "carrier='reactor' needs Linux, the compiled codec, no ssl_*_timeout, and not "
                "http= and ssl= at once; use carrier='auto'"
            )
        for sock in sockets:
            sock.setblocking(False)
            if self._proxies or (self._ssl is not None and poller is None and _READERS):
                sock.listen(backlog)
                self._listening.append(self._acceptor(sock, poller))
            elif poller is not None:
                sock.listen(backlog)
                accepted = self._accepted if self._ssl is None else self._accepted_tls
                self._listening.append(poller.listen(sock, accepted))
            else:
                self._servers.append(
                    await self.loop.create_server(
                        functools.partial(ServerProtocol, self),
                        sock=sock,
                        backlog=backlog,
                        **self._tls_options(),
                    )
                )

    def _acceptor(self, sock: socket.socket, poller: Any) -> Acceptor:
        take = self._take if poller is None else functools.partial(self._adopt, poller)
        return Acceptor(
            self.loop,
            sock,
            take,
            networks=self._proxies,
            timeout=self.settings.open_timeout,
            logger=self.logger,
        )

    def _tls_options(self) -> dict[str, Any]:
        if self._ssl is None:
            return {}
        handshake, shutdown = self._ssl_timeouts
        settings = self.settings
        return {
            "ssl": self._ssl,
            "ssl_handshake_timeout": settings.open_timeout if handshake is None else handshake,
            "ssl_shutdown_timeout": settings.close_timeout if shutdown is None else shutdown,
        }

    def _accepted(
        self, carrier: Carrier, proxied: ProxiedAddresses | None = None
    ) -> ServerConnection:
        """A TCP connection has come in."""
        ws = self._create_connection(self.settings, self.reactor, carrier)
        if proxied is not None and proxied.source is not None:
            ws.proxied = proxied
        self.reactor.set_deadline(ws, self.settings.open_timeout)
        return ws

    def _accepted_tls(self, poller: Any) -> ServerConnection:
        assert self._ssl is not None
        return self._accepted(tls_carrier(poller, self._ssl))

    def _adopt(self, poller: Any, sock: socket.socket, proxied: ProxiedAddresses | None) -> None:
        """Let the poller carry a connection that an `Acceptor` has accepted."""
        carrier = poller if self._ssl is None else tls_carrier(poller, self._ssl)
        try:
            ws = self._accepted(carrier, proxied)
        except BaseException:
            sock.close()
            raise
        fd = sock.detach()
        try:
            poller.adopt(ws, fd)
        except OSError as error:
            os.close(fd)
            ws._lose(error)

    def _take(self, sock: socket.socket, proxied: ProxiedAddresses | None) -> None:
        """Let a transport carry a connection that an `Acceptor` has accepted."""
        protocol = functools.partial(ServerProtocol, self, proxied)
        connecting = self.loop.connect_accepted_socket(protocol, sock, **self._tls_options())
        task = self._track(connecting)
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    # --- the opening handshake

    def handshake(self, ws: ServerConnection, head: Head, data: bytes) -> None:
        """A whole request head has come; ``data`` is all that was read."""
        if self.http is not None and not head.wants_websocket:
            self.hand_over(ws, data)
            return
        try:
            check_head(head)
            if self._origins is not None:
                check_origin(head, self._origins)
        except InvalidHandshake as error:
            self.refuse(ws, error)
            return
        rest = data[head.size :]
        if self._process_request is None:
            self._accept(ws, head, rest)
            return
        details = ws._detail()
        details.head = head
        details.early = rest
        try:
            answer = self._process_request(ws, ws.request)
        except Exception as error:
            self._failed(ws, "process_request", error)
            return
        if answer is not None and inspect.isawaitable(answer):
            # The awaitable itself: cancelled before its first step, a coroutine of ours around it
            # would leave it behind, never awaited.
            details.opening = asyncio.ensure_future(answer)
            details.opening.add_done_callback(functools.partial(self._decided, ws, head))
        else:
            self._answered(ws, head, answer)

    def _decided(
        self, ws: ServerConnection, head: Head, task: asyncio.Future[Response | None]
    ) -> None:
        """An asynchronous ``process_request`` has come to its end."""
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._answered(ws, head, task.result())
        else:
            ws._detail().opening = None
            self._failed(ws, "process_request", error)

    def _failed(self, ws: ServerConnection, name: str, error: BaseException) -> None:
        """A function of the user's raised: a refusal if it meant one, else 500."""
        if not isinstance(error, InvalidHandshake):
            ws.logger.error("%s failed", name, exc_info=error)
            error = InvalidHandshake("internal error", status=500)
        self.refuse(ws, error)

    def _answered(self, ws: ServerConnection, head: Head, response: Response | None) -> None:
        if ws._state != State.CONNECTING or ws.muted:
            return  # lost, or refused in the meantime
        details = ws._detail()
        details.opening = None
        if response is not None:
            details.response = response
            self._respond(ws, response)
            return
        rest, details.early = details.early, b""
        self._accept(ws, head, rest)

    def _accept(self, ws: ServerConnection, head: Head, rest: bytes) -> None:
        assert head.key is not None
        lines = self._lines
        if self._subprotocols or self._select_subprotocol is not None:
            try:
                subprotocol = self._negotiate(ws, head)
            except Exception as error:
                self._failed(ws, "select_subprotocol", error)
                return
            if subprotocol is not None:
                ws._detail().subprotocol = subprotocol
                lines += b"Sec-WebSocket-Protocol: %s\r\n" % subprotocol.encode("latin-1")
        agreed = None
        if self._answers is not None and head.extensions is not None:
            try:
                agreed = self._answers(head.extensions)
            except InvalidHandshake as error:
                self.refuse(ws, error)
                return
            if agreed is not None:
                lines += agreed[0]
        if self._process_response is None:
            ws._write_bytes(switching(head.key, lines))
        elif not self._custom_response(ws, head, lines):
            return
        if agreed is not None and self._still_agreed(ws, agreed[0]):
            ws._use_deflate(agreed[1])
        if ws._state != State.CONNECTING:
            return  # dropped by a function of the user's
        self._open(ws, head)
        if rest:
            ws._receive(rest)

    def _still_agreed(self, ws: ServerConnection, line: bytes) -> bool:
        """Whether ``process_response`` has left the answer about extensions as it was."""
        if ws.response is None:
            return True
        left = ws.response.headers.get_all("Sec-WebSocket-Extensions")
        if [f"Sec-WebSocket-Extensions: {value}\r\n".encode() for value in left] == [line]:
            return True
        if left:
            self.logger.error("process_response must not change Sec-WebSocket-Extensions")
            ws._lose()
        return False

    def _custom_response(self, ws: ServerConnection, head: Head, lines: bytes) -> bool:
        """Let ``process_response`` see, change or replace the 101 response; whether it is still
        one.
        """
        assert self._process_response is not None and head.key is not None
        details = ws._detail()
        if details.request is None:
            details.request = Request.from_head(head)
        _, *fields = switching(head.key, lines).decode("latin-1").split("\r\n")[:-2]
        response = Response(101, "Switching Protocols", Headers(_fields(fields)))
        try:
            response = self._process_response(ws, details.request, response) or response
            data = response.serialize()
        except Exception as error:
            self._failed(ws, "process_response", error)
            return False
        details.response = response
        ws._write_bytes(data)
        if response.status_code != 101:
            ws._mute()
            ws._end(linger=True)
            return False
        return True

    def _negotiate(self, ws: ServerConnection, head: Head) -> str | None:
        """The subprotocol: the first of ours that is offered, or what ``select_subprotocol``
        says.
        """
        values = [value for name, value in head.lines() if name.lower() == "sec-websocket-protocol"]
        offered = offered_subprotocols(values) if values else []
        if self._select_subprotocol is not None:
            chosen = self._select_subprotocol(ws, offered)
            if chosen is not None and chosen not in offered:
                raise NegotiationError(f"subprotocol {chosen} was not offered", status=500)
            return chosen
        for item in self._subprotocols:
            if item in offered:
                return item
        raise NegotiationError(f"no subprotocol in common, only {', '.join(self._subprotocols)}")

    def _open(self, ws: ServerConnection, head: Head) -> None:
        self.reactor.set_deadline(ws, None)
        if self._handler is not None:
            details = ws._detail()
            details.head = head
            ws._opened(None)
            try:
                task = asyncio.ensure_future(self._handler(ws), loop=self.loop)
            except Exception as error:
                ws._on_handler_error(error)
                return
            details.task = task
            self._tasks.add(task)
            task.add_done_callback(functools.partial(self._handled, ws))
            return
        assert self._new_listener is not None
        try:
            listener = self._new_listener()
        except Exception as error:
            ws._opened(None)
            ws._on_handler_error(error)
            return
        ws.listener = listener
        ws._opened(hook(listener, "on_message"))
        if hook(listener, "on_open") is not None:
            # What process_request read is not kept on that account: reading it again keeps it.
            details = ws._detail()
            details.request = None
            details.head = head
            ws._call("on_open")
        ws._forget_head()

    def refuse(self, ws: ServerConnection, error: InvalidHandshake) -> None:
        ws.logger.debug("handshake refused: %s", error)
        self._respond(ws, refusal(error))

    def _respond(self, ws: ServerConnection, response: Response) -> None:
        """Answer without a WebSocket, and close."""
        details = ws._detail()
        if details.opening is not None:
            details.opening.cancel()
            details.opening = None
        try:
            data = response.serialize()
        except ValueError as error:
            ws.logger.error("process_request failed", exc_info=error)
            data = refusal(InvalidHandshake("internal error", status=500)).serialize()
        ws._turn_away(data)

    def hand_over(self, ws: ServerConnection, data: bytes) -> None:
        """Plain HTTP: another protocol takes the connection over, with the bytes read so far."""
        assert self.http is not None
        protocol = self.http()
        carrier = ws.carrier
        if isinstance(carrier, TransportCarrier):
            ws._detach()
            HandOver(protocol, data, ws.proxied).connection_made(carrier.transport)
            return
        proxied = ws.proxied
        sock = socket.socket(fileno=self.reactor.poller.detach(ws))
        self._track(
            self.loop.connect_accepted_socket(lambda: HandOver(protocol, data, proxied), sock)
        )

    def _track(self, connecting: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        """Run what makes a transport of a socket, which may take a TLS handshake."""
        task = self.loop.create_task(connecting)
        self._tasks.add(task)
        task.add_done_callback(self._connected)
        return task

    def _connected(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.logger.debug("a connection failed", exc_info=task.exception())
        self._check_closed()

    # --- the end of a connection

    def _handled(self, ws: ServerConnection, task: asyncio.Future[Any]) -> None:
        """The coroutine of ``ws`` has returned."""
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None or isinstance(error, ConnectionClosed):
            ws.close()
        else:
            ws.logger.error("connection handler failed", exc_info=error)
            ws.close(1011)
        self._check_closed()

    def lost(self, ws: ServerConnection) -> None:
        if self._closing:
            self._check_closed()

    def _all(self) -> list[ServerConnection]:
        return self.reactor.connections(self.settings)

    def _check_closed(self) -> None:
        over = self._closing and not self._tasks and not self.settings.connections
        if over and not self._closed.done():
            self._closed.set_result(None)


def _header_lines(server_header: str | None) -> bytes:
    return b"" if server_header is None else f"Server: {server_header}\r\n".encode("latin-1")


def _fields(lines: Iterable[str]) -> list[tuple[str, str]]:
    return [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]


def _split_handler(handler: Any) -> tuple[Callable[[], Any] | None, Handler | None]:
    """(factory of listeners, ``None``) or (``None``, coroutine function)."""
    new_listener = listener_factory(handler)
    if new_listener is not None:
        return new_listener, None
    if not callable(handler):
        raise TypeError(
            "handler must be a coroutine function, a Listener or a factory of listeners, "
            f"not {type(handler).__name__}"
        )
    if inspect.iscoroutinefunction(handler):
        return None, handler
    try:
        inspect.signature(handler).bind()
    except (TypeError, ValueError):
        return None, handler
    return handler, None


class _Serve:
    """``await serve(…)`` gives a server; ``async with serve(…) as server`` also closes it."""

    def __init__(self, start: Callable[[], Awaitable[Server]]) -> None:
        self._start = start
        self._server: Server | None = None

    def __await__(self) -> Generator[Any, None, Server]:
        return self._start().__await__()

    async def __aenter__(self) -> Server:
        self._server = await self._start()
        return self._server

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()


def serve(
    handler: Any,
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    sock: socket.socket | Sequence[socket.socket] | None = None,
    family: int = 0,
    flags: int = socket.AI_PASSIVE,
    reuse_address: bool | None = None,
    reuse_port: bool | None = None,
    backlog: int = BACKLOG,
    start_serving: bool = True,
    origins: Origins | None = None,
    subprotocols: Sequence[str] | None = None,
    select_subprotocol: SelectSubprotocol | None = None,
    process_request: ProcessRequest | None = None,
    process_response: ProcessResponse | None = None,
    server_header: str | None = None,
    compression: str | Deflate | None = "deflate",
    extensions: Sequence[Any] | None = None,
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
    http: Callable[[], asyncio.Protocol] | None = None,
    ssl: ssl_module.SSLContext | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    proxy_protocol: Iterable[str] = (),
    logger: logging.Logger | None = None,
    create_connection: type[ServerConnection] | None = None,
) -> _Serve:
    """Start a WebSocket server on the running loop: ``await serve(…)`` or ``async with serve(…) as
    server``.

    Args:
        handler: a coroutine function that takes the connection, which is closed when it returns; or
            a ``Listener`` subclass or other factory without arguments, called for each connection;
            or one ``Listener`` that all connections share.
        host: address or addresses to listen on; ``None``: all.
        port: TCP port; 0 or ``None``: a free one (see ``server.sockets``).
        sock: a bound socket, or several, instead of host and port.
        family: ``socket.AF_INET`` or ``AF_INET6`` to listen on no other addresses of the host.
        flags: of the look-up of the host (``socket.AI_…``).
        reuse_address: ``False`` leaves out ``SO_REUSEADDR``, which lets a server start again at
            once.
        reuse_port: let several processes listen on the port (``SO_REUSEPORT``).
        backlog: connections that the system may complete before we accept them.
        start_serving: ``False`` leaves it to ``server.start_serving()`` or ``serve_forever()`` to
            accept connections.
        origins: allowed values of ``Origin`` (str, or a compiled pattern that must match all of it;
            ``None`` among them allows requests without one); others get 403. Browsers always send
            it: list yours to keep other sites from using a user's cookies (RFC 6455 10.2).
            ``None``: any.
        subprotocols: what we speak, the most wanted first: the first that the client offers is
            taken, and a client that offers none of them gets 400.
        select_subprotocol: ``(ws, offered)`` → one of those offered, or ``None``, in place of that
            rule; may raise ``NegotiationError``.
        process_request: ``(ws, request)`` → ``None`` to go on, or a ``Response`` instead
            (``ws.respond(status, text)``); may be a coroutine function.
        process_response: ``(ws, request, response)`` → changes the 101 response, or gives another.
        server_header: value of ``Server``; ``None``: none.
        compression: "deflate" agrees to permessage-deflate (RFC 7692) with clients that offer it, a
            ``Deflate`` does so with its settings; ``None`` never does.
        extensions: ``None`` or empty: there are no others.
        open_timeout: seconds for the handshake, after which 408.
        ping_interval: seconds between keepalive pings; ``ping_timeout``: seconds to wait for the
            pong, then 1011.
        close_timeout: seconds to wait for the closing handshake.
        max_size: bytes in a message; more is 1009. ``max_fragments``: frames in a message,
            likewise.
        max_queue: messages received and not yet taken by ``recv``; more are left in the socket.
        write_limit: bytes, or (high, low): above high, ``await send`` waits and, with a listener,
            reading pauses, until the queue is down to low.
        max_backlog: bytes queued for one connection, over which its queue is dropped and it is
            closed (1008).
        carrier: "reactor" (epoll), "asyncio" (a transport), or "auto": the reactor where it can be.
            It cannot with ``http`` and ``ssl`` at once.
        http: factory of an asyncio protocol that takes over connections whose request is not a
            WebSocket upgrade.
        ssl: a server-side context, for ``wss``; certificates loaded into it later are used for new
            connections, and ``server.ssl`` takes another. ``open_timeout`` bounds the TLS handshake
            as well.
        ssl_handshake_timeout, ssl_shutdown_timeout: seconds, as for ``loop.create_server``, of
            asyncio's TLS, which these choose.
        proxy_protocol: addresses and networks (CIDR) of proxies, and ``"unix"`` for any peer on a
            Unix socket. Their connections have to begin with a header of the PROXY protocol,
            version 1 or 2, before TLS; ``ws.remote_address`` is then the client's. One that is
            wrong, over 4,096 bytes or not there in ``open_timeout`` closes the connection. From
            others a header is not understood. Not on Windows.
        logger: instead of ``logging.getLogger("fastws.server")``.
        create_connection: a subclass of ``ServerConnection`` that connections are to be of.

    Raises:
        OSError: the address cannot be bound.
        ValueError, TypeError: an argument is out of its bounds.
    """
    if carrier not in ("auto", "reactor", "asyncio"):
        raise ValueError(f"carrier: {carrier!r} is not 'auto', 'reactor' or 'asyncio'")
    if sock is not None and (host is not None or port is not None):
        raise ValueError("give sock, or host and port, not both")
    proxies = Networks([proxy_protocol] if isinstance(proxy_protocol, str) else proxy_protocol)
    if proxies and not _READERS:
        raise ValueError("proxy_protocol is not there on Windows")
    if ssl is None and (ssl_handshake_timeout is not None or ssl_shutdown_timeout is not None):
        raise ValueError("ssl_handshake_timeout and ssl_shutdown_timeout need ssl")
    check_subprotocols(subprotocols or ())
    no_extensions(extensions)
    deflate = as_deflate(compression)
    settings = ServerSettings(
        **limits(max_size, max_queue, write_limit),
        max_fragments=max_fragments,
        max_backlog=max_backlog,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
        open_timeout=open_timeout,
        close_timeout=close_timeout,
    )

    async def start() -> Server:
        server = Server(
            handler,
            settings=settings,
            origins=origins,
            subprotocols=subprotocols,
            select_subprotocol=select_subprotocol,
            process_request=process_request,
            process_response=process_response,
            server_header=server_header,
            deflate=deflate,
            http=http,
            logger=logger,
            ssl=ssl,
            ssl_timeouts=(ssl_handshake_timeout, ssl_shutdown_timeout),
            proxies=proxies or None,
            create_connection=create_connection or ServerConnection,
        )
        if sock is None:
            sockets = await bind(
                host,
                port or 0,
                family=family,
                flags=flags,
                reuse_address=reuse_address,
                reuse_port=reuse_port,
            )
        else:
            sockets = [sock] if isinstance(sock, socket.socket) else list(sock)
        try:
            for bound in sockets:
                if bound.family in (socket.AF_INET, socket.AF_INET6):
                    # Accepted sockets inherit it: one system call per connection less.
                    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server._bind(sockets, backlog=backlog, carrier=carrier)
            if start_serving:
                await server.start_serving()
        except BaseException:
            server.close()
            for bound in sockets:
                bound.close()
            raise
        return server

    return _Serve(start)


def unix_serve(handler: Any, path: str, **options: Any) -> _Serve:
    """``serve`` on a Unix socket at ``path``; a stale socket file there is replaced."""

    async def start() -> Server:
        unlink_socket(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(path)
            server = await serve(handler, sock=sock, **options)
        except BaseException:
            sock.close()
            unlink_socket(path)
            raise
        server._socket_path = path
        return server

    return _Serve(start)
