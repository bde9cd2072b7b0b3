"""One WebSocket connection: what happens once in its life, not once per message.

``Core`` below it, compiled or pure, has what runs per message: ``send``, ``recv`` and ``async
for``. Callbacks and coroutines use the same class. Nothing here knows which carrier moves the
bytes, and nothing how the opening handshake goes: that is in ``server_connection`` and
``client_connection``, with what else differs between the two sides.
"""

from __future__ import annotations

import asyncio
import logging
import operator
import os
import socket
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from ._awaitable import Done, Later
from ._impl import Core, Settings, TransportCarrier, encode_close, parse_close
from ._streams import (
    Streams,
    fragments_of,
    is_whole,
    receive_fragments,
    receive_whole,
    send_behind,
    send_fragments,
)
from .exceptions import ConcurrencyError, ConnectionClosed, ProtocolError, connection_closed
from .frames import OK_CLOSE_CODES, Close, CloseCode, Opcode, State
from .http import Request, Response
from .listener import hook

if TYPE_CHECKING:
    from ._impl import Carrier, Head, Reactor

__all__ = ["Connection", "Endpoint", "EndpointSettings"]


# RFC 6455 7.1.5
_NO_CLOSE = Close(CloseCode.ABNORMAL_CLOSURE.value)


class Endpoint(Protocol):
    """What a connection asks of the server or client that it belongs to."""

    logger: logging.Logger

    def lost(self, ws: Any) -> None:
        """The connection is gone."""


class EndpointSettings(Settings):
    """What the connections of one server or client share, and whose they are."""

    endpoint: Any  # Endpoint; each side asks more of its own


class _Details:
    """What most connections never need while they are idle; made when first needed."""

    __slots__ = (
        "addresses",
        "closed",
        "deliberate",
        "early",
        "error",
        "head",
        "id",
        "opening",
        "pings",
        "rcvd",
        "rcvd_then_sent",
        "request",
        "response",
        "sent",
        "streams",
        "subprotocol",
        "task",
    )

    def __init__(self) -> None:
        self.early = b""  # bytes before, or right behind, the handshake
        self.head: Head | None = None
        self.request: Request | None = None
        self.response: Response | None = None
        self.subprotocol: str | None = None
        self.opening: Any = None  # what is under way until the connection is open
        self.task: asyncio.Future[Any] | None = None
        self.id: uuid.UUID | None = None
        self.addresses: tuple[Any, Any] | None = None  # ours, the peer's
        self.rcvd: Close | None = None
        self.sent: Close | None = None
        self.rcvd_then_sent: bool | None = None
        self.closed: asyncio.Future[None] | None = None
        self.deliberate = False  # ended by close() or abort(), and neither by the peer nor a fault
        self.pings: dict[bytes, tuple[asyncio.Future[float], float]] | None = None
        self.error: BaseException | None = None
        self.streams: Streams | None = None

    def is_blank(self) -> bool:
        """Whether there is nothing in it worth keeping."""
        return not any(_all_details(self))


_all_details = operator.attrgetter(*_Details.__slots__)


class Connection(Core):
    """Either side of a WebSocket connection.

    Not made by hand: ``serve`` hands a ``ServerConnection`` to the coroutine or listener,
    ``connect`` gives a ``ClientConnection``. Attributes of your own may be set on it. ``async with
    ws`` closes it at the end, with 1011 after an exception.
    """

    settings: EndpointSettings

    def __init__(self, settings: EndpointSettings, reactor: Reactor, carrier: Carrier) -> None:
        self._details: _Details | None = None
        self.listener: Any = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.state.name} slot={self.slot}>"

    def _detail(self) -> _Details:
        if self._details is None:
            self._details = _Details()
        return self._details

    # --- what it is

    @property
    def logger(self) -> logging.LoggerAdapter[Any]:
        """That of the server, or of ``connect``; its records have the connection as
        ``record.websocket``.
        """
        return logging.LoggerAdapter(self.settings.endpoint.logger, {"websocket": self})

    @property
    def state(self) -> State:
        return State(self._state)

    @property
    def id(self) -> uuid.UUID:
        """A random identifier, made when first asked for."""
        details = self._detail()
        if details.id is None:
            details.id = uuid.uuid4()
        return details.id

    @property
    def request(self) -> Request:
        """The request of the opening handshake."""
        details = self._details
        if details is None or details.request is None:
            raise RuntimeError("there is no request yet")
        return details.request

    @property
    def response(self) -> Response | None:
        """The response to it, where it was kept."""
        return None if self._details is None else self._details.response

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol agreed on, if any."""
        return None if self._details is None else self._details.subprotocol

    @property
    def local_address(self) -> Any:
        """As ``socket.getsockname()``. Once closed: as ``remote_address``."""
        return self._addresses()[0]

    @property
    def remote_address(self) -> Any:
        """As ``socket.getpeername()``.

        Once closed, it is there if there was a closing handshake or it was read while the
        connection was open; ``None`` otherwise, and with a listener.
        """
        return self._addresses()[1]

    @property
    def ssl_object(self) -> ssl.SSLObject | None:
        """What ``ssl`` knows of this connection: version, cipher, the peer's certificate. ``None``
        without TLS, and once closed.
        """
        if isinstance(self.carrier, TransportCarrier):
            found: ssl.SSLObject | None = self.carrier.transport.get_extra_info("ssl_object")
            return found
        return getattr(self.carrier, "ssl_object", None)

    def _addresses(self) -> tuple[Any, Any]:
        """Ours and the peer's, kept where they are to be there after the end."""
        details = self._details
        if details is not None and details.addresses is not None:
            return details.addresses
        if self._state == State.CLOSED:
            return None, None
        found = self._ask_addresses()
        # Of connections with a listener there are many, and they are to be small.
        if self.listener is None and self._state != State.CONNECTING and found[1] is not None:
            self._detail().addresses = found
        return found

    def _ask_addresses(self) -> tuple[Any, Any]:
        carrier = self.carrier
        if isinstance(carrier, TransportCarrier):
            ask = carrier.transport.get_extra_info
            return ask("sockname"), ask("peername")
        # Its type and protocol need not be asked for.
        sock = socket.socket(type=socket.SOCK_STREAM, proto=0, fileno=self._fileno)
        try:
            return sock.getsockname(), _peer_name(sock)
        finally:
            sock.detach()

    @property
    def close_code(self) -> int | None:
        """The code of the peer's close frame, 1005 if it had none; 1006 once no close frame can
        come any more. ``None`` before.
        """
        close = self._received_close()
        return None if close is None else close.code

    @property
    def close_reason(self) -> str | None:
        """The reason in the peer's close frame; empty if no close frame can come any more. ``None``
        before.
        """
        close = self._received_close()
        return None if close is None else close.reason

    @property
    def close_sent(self) -> Close | None:
        """The close frame that we sent, if one went: ours, or the echo of the peer's."""
        return None if self._details is None else self._details.sent

    def _received_close(self) -> Close | None:
        # Known before the TCP connection is closed, since recv() and send() raise that early.
        details = self._details
        if details is not None and details.rcvd is not None:
            return details.rcvd
        if self._state == State.CLOSED or (self._state == State.CLOSING and self.muted):
            return _NO_CLOSE
        return None

    # --- messages in fragments (RFC 6455 5.4), and what else is rare

    def recv_streaming(self, decode: bool | None = None) -> AsyncIterator[str | bytes]:
        """The next message, fragment by fragment as they come: ``async for``.

        A message that was sent whole, or had come already, is one fragment. ``decode`` is as for
        ``recv``. The iterator must be read to its end: in the middle of a message, ``recv`` and
        ``recv_streaming`` raise ``ConcurrencyError``. Limits are those of the whole message. Raises
        as ``recv``; ``RuntimeError`` if a listener gets the messages.
        """
        return receive_fragments(self, self._streams(), decode)

    def _streams(self) -> Streams:
        details = self._detail()
        if details.streams is None:
            details.streams = Streams()
        return details.streams

    def _recv_rarely(self, decode: bool | None) -> Coroutine[Any, Any, str | bytes]:
        return receive_whole(self, self._streams(), decode)

    async def _next_rarely(self) -> str | bytes:
        try:
            return await self._recv_rarely(None)
        except ConnectionClosed:
            if self._ended_well():
                raise StopAsyncIteration from None
            raise

    def _send_fragments(
        self, message: Any, text: bool | None, compress: bool | None
    ) -> Coroutine[Any, Any, None]:
        return send_fragments(self, self._streams(), fragments_of(message), text, compress)

    def _send_later(
        self, message: Any, text: bool | None, compress: bool | None = None
    ) -> Later[None] | Coroutine[Any, Any, None]:
        """As ``send``, behind the message that is going out in fragments."""
        if is_whole(message):
            return send_behind(self, self._streams(), message, text, compress)
        return self._send_fragments(message, text, compress)

    # --- control frames

    def ping(self, data: str | bytes | None = None) -> Done[asyncio.Future[float]]:
        """Send a ping; ``await`` gives a future of the round-trip time in seconds.

        ``data``: at most 125 bytes, at random by default (RFC 6455 5.5.2). ``ConnectionClosed``
        once closing; ``ConcurrencyError`` while a ping with the same data is on its way.
        """
        if self._state != State.OPEN:
            raise self._closed_error()
        pings = self._detail().pings
        if pings is None:
            pings = self._detail().pings = {}
        if data is None:
            data = os.urandom(4)
            while data in pings:
                data = os.urandom(4)
        elif isinstance(data, str):
            data = data.encode()
        else:
            data = bytes(data)
        if len(data) > 125:
            raise ProtocolError(1002, f"ping of {len(data)} bytes is longer than 125 bytes")
        if data in pings:
            raise ConcurrencyError("a ping with the same data is waiting for its pong")
        waiter: asyncio.Future[float] = self.reactor.loop.create_future()
        pings[data] = (waiter, time.monotonic())
        self._write_frame(Opcode.PING, data)
        return Done(waiter)

    def pong(self, data: str | bytes = b"") -> Done[None]:
        """Send a pong nobody asked for (RFC 6455 5.5.3); at most 125 bytes."""
        if self._state != State.OPEN:
            raise self._closed_error()
        payload = data.encode() if isinstance(data, str) else bytes(data)
        if len(payload) > 125:
            raise ProtocolError(1002, f"pong of {len(payload)} bytes is longer than 125 bytes")
        self._write_frame(Opcode.PONG, payload)
        return Done(None)

    # --- the end

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close(1000 if kind is None else CloseCode.INTERNAL_ERROR)

    def close(self, code: int = 1000, reason: str = "") -> Later[None]:
        """Begin the closing handshake (RFC 6455 7.1.2); ``await`` waits until the connection is
        closed.

        Takes effect at once; no message is received or sent after it. The TCP connection is dropped
        if the peer has not answered in ``close_timeout``. ``ProtocolError`` for a code that must
        not be sent or a reason of more than 123 bytes. A second call only waits.
        """
        if self._state == State.OPEN:
            self._begin_close(Close(code, reason), encode_close(code, reason))
            self._detail().deliberate = True
        elif self._state == State.CONNECTING:
            self._lose()
        return self.wait_closed()

    def abort(self) -> None:
        """Drop the TCP connection now, without a close frame; what is queued is lost."""
        if self._state == State.OPEN:
            self._detail().deliberate = True
        self._lose()

    def wait_closed(self) -> Later[None]:
        """Awaitable until the connection is closed, by whomever."""
        details = self._detail()
        if details.closed is None:
            details.closed = self.reactor.loop.create_future()
            if self._state == State.CLOSED:
                details.closed.set_result(None)
        return Later(details.closed)

    def _begin_close(self, close: Close, payload: bytes) -> None:
        details = self._detail()
        details.sent = close
        if details.rcvd is not None:
            details.rcvd_then_sent = True
        self._write_frame(Opcode.CLOSE, payload)
        if self.listener is None:
            self._addresses()  # the system forgets them when the connection ends
        self._state = State.CLOSING.value
        self.reactor.set_deadline(self, self.settings.close_timeout)

    def _fail(self, code: int, reason: str, error: BaseException | None = None) -> None:
        """Fail the connection (RFC 6455 7.1.7): a close frame, then nothing more is read."""
        details = self._detail()
        if details.error is None:
            details.error = error
        if self._state == State.OPEN:
            self._begin_close(Close(code, reason), encode_close(code, reason))
        self._mute()
        self._end_of_handshake(failed=True)
        self._wake()

    def _end_of_handshake(self, failed: bool) -> None:
        """The closing handshake is done, or the connection has failed: what becomes of the TCP
        connection (RFC 6455 7.1.1). The deadline that was set with our close frame stands.
        """
        raise NotImplementedError

    def _closed_error(self) -> ConnectionClosed:
        details = self._detail()
        error = connection_closed(details.rcvd, details.sent, details.rcvd_then_sent)
        error.__cause__ = details.error
        return error

    def _ended_well(self) -> bool:
        """Whether ``async for`` ends without an exception."""
        details = self._detail()
        return (
            details.rcvd is not None
            and details.sent is not None
            and details.rcvd.code in OK_CLOSE_CODES
            and details.sent.code in OK_CLOSE_CODES
        )

    # --- hooks of the core

    def _on_close_frame(self, payload: bytes) -> None:
        code, reason = parse_close(payload)
        details = self._detail()
        details.rcvd = Close(code, reason)
        if self._state == State.OPEN:
            self._begin_close(details.rcvd, payload)
        else:
            details.rcvd_then_sent = False
        self._end_of_handshake(failed=False)
        self._wake()

    def _on_pong(self, payload: bytes) -> None:
        pings = None if self._details is None else self._details.pings
        if pings and payload in pings:
            now = time.monotonic()
            # A pong answers every ping before the one it names, too (RFC 6455 5.5.3).
            for data in list(pings):
                waiter, sent = pings.pop(data)
                if not waiter.done():
                    waiter.set_result(now - sent)
                if data == payload:
                    self.latency = now - sent
                    break
        self._call("on_pong", payload)

    def _on_protocol_error(self, error: ProtocolError) -> None:
        self._fail(error.code, error.message, error)

    def _on_handler_error(self, error: BaseException) -> None:
        self.logger.error("listener failed", exc_info=error)
        self._fail(CloseCode.INTERNAL_ERROR, "", error)

    def _on_overflow(self) -> None:
        self._call("on_overflow")
        if self._state == State.OPEN:
            code, reason = CloseCode.POLICY_VIOLATION.value, "too slow"
            self._begin_close(Close(code, reason), encode_close(code, reason))

    def _on_drained(self) -> None:
        self._call("on_drain")

    def _on_ping_timeout(self) -> None:
        self._fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout", TimeoutError("no pong"))

    def _on_deadline(self) -> None:
        self._lose(TimeoutError("closing handshake timed out"))

    def _on_lost(self, error: BaseException | None) -> None:
        details = self._details
        code, reason = CloseCode.ABNORMAL_CLOSURE.value, ""
        if details is not None:
            if details.error is None:
                details.error = error
            if details.rcvd is not None:
                code, reason = details.rcvd.code, details.rcvd.reason
            if details.pings:
                for waiter, _ in details.pings.values():
                    if not waiter.done():
                        waiter.set_exception(self._closed_error())
                        waiter.exception()  # not everyone waits for the pong
                details.pings = None
            if details.closed is not None and not details.closed.done():
                details.closed.set_result(None)
            if details.opening is not None:
                opening, details.opening = details.opening, None
                self._stop_opening(opening, error)
            details.head = None
        elif error is not None:
            self._detail().error = error
        if self.listener is not None:
            self._call("on_close", code, reason)
            self.listener = None
        self.settings.endpoint.lost(self)

    def _stop_opening(self, opening: Any, error: BaseException | None) -> None:
        """The connection was lost during the opening handshake; ``None``: by the peer's FIN, or by
        us.
        """
        raise NotImplementedError

    def _call(self, name: str, *arguments: Any) -> None:
        callback = hook(self.listener, name)
        if callback is None:
            return
        try:
            callback(self, *arguments)
        except (Exception, asyncio.CancelledError) as error:
            self._on_handler_error(error)


def _peer_name(sock: socket.socket) -> Any:
    """``None`` if the peer has reset the connection."""
    try:
        return sock.getpeername()
    except OSError:
        return None
