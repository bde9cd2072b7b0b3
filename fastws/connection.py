"""One WebSocket connection: what happens once in its life, not once per message.

``Core`` below it, compiled or pure, has what runs per message: ``send``, ``recv`` and ``async
for``. Callbacks and coroutines use the same class. Nothing here knows which carrier moves the
bytes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ._awaitable import Done, Later
from ._impl import Core, Settings, encode_close, own_send, parse_close, parse_head
from .exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    ProtocolError,
    connection_closed,
)
from .frames import OK_CLOSE_CODES, Close, CloseCode, Opcode, State
from .http import Request, Response
from .listener import hook

if TYPE_CHECKING:
    from ._impl import Carrier, Head, Reactor

__all__ = ["Connection", "Endpoint", "ServerSettings"]

# Bytes kept while an asynchronous process_request runs.
_EARLY_LIMIT = 65536


class Endpoint(Protocol):
    """What a connection asks of the server that it belongs to."""

    logger: logging.Logger
    http: Callable[[], asyncio.Protocol] | None

    def handshake(self, ws: Connection, head: Head, data: bytes) -> None:
        """A whole request head has come; ``data`` is all that was read."""

    def refuse(self, ws: Connection, error: InvalidHandshake) -> None:
        """Answer a handshake with the reason why it failed, and close."""

    def hand_over(self, ws: Connection, data: bytes) -> None:
        """Let ``http`` take the connection over."""

    def lost(self, ws: Connection) -> None:
        """The connection is gone."""

    def address_of(self, ws: Connection, name: str) -> Any:
        """``sockname`` or ``peername`` of its socket."""


class ServerSettings(Settings):
    """What the connections of one server share, and the server."""

    endpoint: Endpoint


class _Details:
    """What most connections never need while they are idle; made when first needed."""

    __slots__ = (
        "closed",
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
        "subprotocol",
        "task",
    )

    def __init__(self) -> None:
        self.early = b""  # bytes before, or right behind, the handshake
        self.head: Head | None = None
        self.request: Request | None = None
        self.response: Response | None = None
        self.subprotocol: str | None = None
        self.opening: asyncio.Task[None] | None = None
        self.task: asyncio.Future[Any] | None = None
        self.id: uuid.UUID | None = None
        self.rcvd: Close | None = None
        self.sent: Close | None = None
        self.rcvd_then_sent: bool | None = None
        self.closed: asyncio.Future[None] | None = None
        self.pings: dict[bytes, tuple[asyncio.Future[float], float]] | None = None
        self.error: BaseException | None = None

    def is_blank(self) -> bool:
        """Whether there is nothing in it worth keeping."""
        return not any(getattr(self, name) for name in self.__slots__)


class Connection(Core):
    """A server's side of a WebSocket connection.

    Not made by hand: ``serve`` hands it to the coroutine or listener. Attributes of your own may be
    set on it.
    """

    settings: ServerSettings

    def __init__(self, settings: ServerSettings, reactor: Reactor, carrier: Carrier) -> None:
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
        """The opening handshake.

        With a listener it is there in ``on_open``, and later only if it was read there: keeping it
        would be the largest part of an idle connection. ``RuntimeError`` otherwise.
        """
        details = self._details
        if details is not None:
            if details.request is None and details.head is not None:
                details.request = Request.from_head(details.head)
                details.head = None
            if details.request is not None:
                return details.request
        raise RuntimeError("the request was not kept: with a listener, read ws.request in on_open")

    @property
    def response(self) -> Response | None:
        """What ``process_request`` or ``process_response`` answered, if it did."""
        return None if self._details is None else self._details.response

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol agreed on, if any."""
        return None if self._details is None else self._details.subprotocol

    @property
    def local_address(self) -> Any:
        """As ``socket.getsockname()``; ``None`` once closed."""
        return self.settings.endpoint.address_of(self, "sockname")

    @property
    def remote_address(self) -> Any:
        """As ``socket.getpeername()``; ``None`` once closed."""
        return self.settings.endpoint.address_of(self, "peername")

    @property
    def close_code(self) -> int | None:
        """Once closed: the code received, 1005 if without one, 1006 if no close frame came.
        ``None`` before.
        """
        if self._state != State.CLOSED:
            return None
        rcvd = None if self._details is None else self._details.rcvd
        return CloseCode.ABNORMAL_CLOSURE.value if rcvd is None else rcvd.code

    @property
    def close_reason(self) -> str | None:
        """Once closed: the reason received. ``None`` before."""
        if self._state != State.CLOSED:
            return None
        rcvd = None if self._details is None else self._details.rcvd
        return "" if rcvd is None else rcvd.reason

    # --- control frames

    def ping(self, data: str | bytes | None = None) -> Done[asyncio.Future[float]]:
        """Send a ping; ``await`` gives a future of the round-trip time in seconds.

        ``data``: at most 125 bytes, at random by default (RFC 6455 5.5.2). ``ConnectionClosed``
        once closing; ``RuntimeError`` while a ping with the same data is on its way.
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
            raise RuntimeError("a ping with the same data is waiting for its pong")
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

    def close(self, code: int = 1000, reason: str = "") -> Later[None]:
        """Begin the closing handshake (RFC 6455 7.1.2); ``await`` waits until the connection is
        closed.

        Takes effect at once; no message is received or sent after it. The TCP connection is dropped
        if the peer has not answered in ``close_timeout``. ``ProtocolError`` for a code that must
        not be sent or a reason of more than 123 bytes. A second call only waits.
        """
        if self._state == State.OPEN:
            self._begin_close(Close(code, reason), encode_close(code, reason))
        elif self._state == State.CONNECTING:
            self._lose()
        return self.wait_closed()

    def abort(self) -> None:
        """Drop the TCP connection now, without a close frame; what is queued is lost."""
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
        self._end(linger=True)
        self._wake()

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

    # --- the opening handshake

    def _on_bytes(self, data: bytes) -> None:
        details = self._details
        if details is not None:
            data = details.early + data
            if details.opening is not None:  # process_request is still thinking
                if len(data) > _EARLY_LIMIT:
                    self._refuse(InvalidMessage("too many bytes before the handshake", status=400))
                else:
                    details.early = data
                return
        endpoint = self.settings.endpoint
        try:
            head = parse_head(data)
        except InvalidMessage as error:
            if endpoint.http is not None:
                endpoint.hand_over(self, data)
            else:
                self._refuse(error)
            return
        if head is None:
            self._detail().early = data
            return
        if details is not None:
            details.early = b""
        endpoint.handshake(self, head, data)

    def _forget_head(self) -> None:
        """After ``on_open``: keep the request only if it was read."""
        details = self._details
        if details is not None:
            if details.head is not None:
                details.head = details.request = None
            if details.is_blank():
                self._details = None

    def _refuse(self, error: InvalidHandshake) -> None:
        self.settings.endpoint.refuse(self, error)

    def respond(self, status: int, text: str) -> Response:
        """A plain-text response for ``process_request`` to return."""
        return Response.of_text(int(status), text)

    # --- hooks of the core

    def _on_close_frame(self, payload: bytes) -> None:
        code, reason = parse_close(payload)
        details = self._detail()
        details.rcvd = Close(code, reason)
        if self._state == State.OPEN:
            self._begin_close(details.rcvd, payload)
        else:
            details.rcvd_then_sent = False
        # The server closes the TCP connection first (RFC 6455 7.1.1).
        self._end(linger=False)
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
        self.settings.endpoint.logger.error("listener failed", exc_info=error)
        self._fail(CloseCode.INTERNAL_ERROR, "", error)

    def _on_overflow(self) -> None:
        self._call("on_overflow")
        if self._state == State.OPEN:
            self.close(CloseCode.POLICY_VIOLATION, "too slow")

    def _on_drained(self) -> None:
        self._call("on_drain")

    def _on_ping_timeout(self) -> None:
        self._fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout", TimeoutError("no pong"))

    def _on_deadline(self) -> None:
        if self._state == State.CONNECTING and not self.muted:
            self._refuse(InvalidMessage("the request did not arrive in time", status=408))
        else:
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
                details.opening.cancel()
                details.opening = None
            details.head = None
        elif error is not None:
            self._detail().error = error
        if self.listener is not None:
            self._call("on_close", code, reason)
            self.listener = None
        self.settings.endpoint.lost(self)

    def _call(self, name: str, *arguments: Any) -> None:
        callback = hook(self.listener, name)
        if callback is None:
            return
        try:
            callback(self, *arguments)
        except (Exception, asyncio.CancelledError) as error:
            self._on_handler_error(error)


own_send(Connection)
