"""A WebSocket connection as an ASGI application sees it: ``receive`` and ``send``.

ASGI 3.0 with the WebSocket specification 2.4 and its extension ``websocket.http.response``. What
goes over the wire is the connection's business; this says what an event does to it.
"""

from __future__ import annotations

import asyncio
import logging
import re
import urllib.parse
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.utils import (
    ClientDisconnected,
    get_client_addr,
    get_path_with_query_string,
)

from .exceptions import ConnectionClosed
from .frames import CloseCode, State
from .handshake import switching
from .http import reason_phrase
from .server_connection import ServerConnection

if TYPE_CHECKING:
    from ._impl import Head
    from .deflate import Agreement

__all__ = ["Channel", "websocket_scope"]

Event = MutableMapping[str, Any]
Application = Callable[..., Awaitable[Any]]
HeaderLines = Iterable[tuple[bytes, bytes]]

# What the application may send next.
_CONNECTING: Final = 0  # websocket.accept, websocket.close or websocket.http.response.start
_OPEN: Final = 1  # websocket.send or websocket.close
_RESPONDING: Final = 2  # websocket.http.response.body
_ENDED: Final = 3  # nothing

_BREAKS_LINE = re.compile(rb"[\r\n\0]")


def websocket_scope(head: Head, root_path: str, **rest: Any) -> dict[str, Any]:
    """The scope of the connection that ``head`` asks for, with what only the server knows."""
    raw_path, _, query = head.target.partition("?")
    lines = [(name.lower(), value) for name, value in head.lines()]
    return {
        "type": "websocket",
        "http_version": "1.1",
        "root_path": root_path,
        "path": root_path + urllib.parse.unquote(raw_path),
        "raw_path": (root_path + raw_path).encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in lines],
        # As offered, not checked: an application may find in it what is no token (RFC 9110 5.6.2).
        "subprotocols": [
            item.strip()
            for name, value in lines
            if name == "sec-websocket-protocol"
            for item in value.split(",")
        ],
        "extensions": {"websocket.http.response": {}},
        **rest,
    }


class Channel:
    """One connection's ``receive`` and ``send``, and the run of the application between them.

    ``headers`` are the server's own header lines, which every response begins with; ``agreed`` is
    what was negotiated of extensions, and the header line that says so.
    """

    def __init__(
        self,
        ws: ServerConnection,
        key: bytes,
        scope: dict[str, Any],
        *,
        headers: HeaderLines,
        agreed: tuple[bytes, Agreement] | None,
        logger: logging.Logger,
    ) -> None:
        self._ws = ws
        self._key = key
        self._agreed = agreed
        self._scope = scope
        self._headers = list(headers)
        self._logger = logger
        self._phase = _CONNECTING
        self._decided = asyncio.Event()  # accepted, refused or lost
        self._connect_told = False
        self._flowing = False  # receive() has only messages and the end left to tell
        self._restarting = False
        self._denial: _Denial | None = None

    async def run(self, application: Application) -> None:
        """Call the application, and end what it leaves open.

        An exception is logged and goes no further. The client gets 500 before the handshake's end;
        after it the TCP connection is closed without a close frame, as uvicorn does: 1006.
        """
        try:
            result = await application(self._scope, self.receive, self.send)
        except ClientDisconnected:
            pass  # send() said so, and the application let it pass
        except Exception:
            self._logger.exception("the ASGI application failed\n")
        else:
            if self._phase == _CONNECTING and self._ws._state == State.CONNECTING:
                self._logger.error("the ASGI application returned before the handshake was done")
            elif result is not None:
                self._logger.error("the ASGI application returned %r instead of None", result)
        finally:
            self._end()

    # --- what the application calls

    async def receive(self) -> Event:
        if not self._flowing:
            event = await self._receive_first()
            if event is not None:
                return event
        try:
            message = await self._ws.recv()
        except ConnectionClosed:
            return self._disconnect()
        if type(message) is str:
            return {"type": "websocket.receive", "text": message}
        return {"type": "websocket.receive", "bytes": message}

    async def send(self, event: Event) -> None:
        if self._phase == _OPEN and event["type"] == "websocket.send":
            data = event.get("bytes")
            if data is None:
                data = event.get("text")
            try:
                await self._ws.send(data)  # type: ignore[arg-type]  # None is a TypeError
            except ConnectionClosed as error:
                raise ClientDisconnected from error
            return
        if self._ws._state == State.CLOSED:
            raise ClientDisconnected
        _TAKE[self._phase](self, event)
        if self._phase == _RESPONDING:
            # A body in parts goes at the client's pace.
            try:
                await self._ws._drain()
            except ConnectionClosed as error:
                raise ClientDisconnected from error

    # --- what the server says

    def lost(self) -> None:
        """The connection is gone. An open one says so itself, to ``recv`` and ``send``."""
        if self._phase != _OPEN:
            self._finish()

    def shut_down(self) -> None:
        """The server restarts: the application is told 1012; before the handshake's end it is
        told 1006, and the client gets 500.
        """
        if self._phase == _OPEN:
            self._restarting = True
        elif self._phase != _ENDED:
            self._end()

    def refused(self) -> None:
        """The server itself has answered the handshake."""
        self._finish()

    # --- receiving

    async def _receive_first(self) -> Event | None:
        """What comes before the first message; ``None`` once there is nothing more of it."""
        if not self._connect_told:
            self._connect_told = True
            return {"type": "websocket.connect"}
        await self._decided.wait()
        if self._phase != _OPEN:
            return self._disconnect()
        self._flowing = True
        return None

    def _disconnect(self) -> Event:
        """Why there is nothing more to receive: the close frame that came or went first."""
        if self._restarting:
            return {"type": "websocket.disconnect", "code": CloseCode.SERVICE_RESTART.value}
        error = self._ws._closed_error()
        close = error.rcvd if error.rcvd_then_sent else error.sent
        if close is None:  # lost, or never open (RFC 6455 7.1.5)
            return {"type": "websocket.disconnect", "code": CloseCode.ABNORMAL_CLOSURE.value}
        return {"type": "websocket.disconnect", "code": close.code, "reason": close.reason}

    # --- sending: one function per phase

    def _take_connecting(self, event: Event) -> None:
        kind = event["type"]
        if kind == "websocket.accept":
            self._accept(event.get("headers") or (), event.get("subprotocol"))
        elif kind == "websocket.close":
            self._log_access("403")
            self._refuse(403, b"")
        elif kind == "websocket.http.response.start":
            status = event["status"]
            if not 200 <= status < 600:
                raise RuntimeError(f"{status} is not the status of a final HTTP response")
            denial = _Denial(status, [*self._headers, *event.get("headers", ())])
            self._log_access(str(status))
            self._denial = denial
            self._phase = _RESPONDING
        else:
            raise _unexpected(
                kind, "websocket.accept, websocket.close or websocket.http.response.start"
            )

    def _take_open(self, event: Event) -> None:
        kind = event["type"]
        if kind != "websocket.close":
            raise _unexpected(kind, "websocket.send or websocket.close")
        if self._ws._state == State.OPEN:  # else the peer was first
            self._ws.close(event.get("code") or 1000, event.get("reason") or "")
        self._finish()

    def _take_responding(self, event: Event) -> None:
        kind = event["type"]
        if kind != "websocket.http.response.body":
            raise _unexpected(kind, "websocket.http.response.body")
        assert self._denial is not None
        more = event.get("more_body", False)
        data = self._denial.encode(event.get("body", b""), more)
        if more:
            self._ws._write_bytes(data)
        else:
            self._ws._turn_away(data)
            self._finish()

    def _take_ended(self, event: Event) -> None:
        raise _unexpected(event["type"], "nothing: the connection was closed or refused")

    # --- the handshake

    def _accept(self, headers: HeaderLines, subprotocol: str | None) -> None:
        ws = self._ws
        lines = _header_lines((*self._headers, *headers))
        if subprotocol:
            ws._detail().subprotocol = subprotocol
            lines += _header_lines([(b"Sec-WebSocket-Protocol", subprotocol.encode("latin-1"))])
        self._log_access("[accepted]")
        if self._agreed is not None:
            lines += self._agreed[0]
            ws._use_deflate(self._agreed[1])
        ws._write_bytes(switching(self._key, lines))
        details = ws._detail()
        details.opening = None
        early, details.early = details.early, b""
        ws._opened(None)
        self._phase = _OPEN
        self._decided.set()
        if early:
            # Not from inside this task: bytes behind the handshake resume other tasks.
            ws.reactor.loop.call_soon(ws._receive, early)

    def _refuse(self, status: int, text: bytes) -> None:
        headers = [*self._headers, (b"content-type", b"text/plain; charset=utf-8")]
        self._ws._turn_away(_Denial(status, headers).encode(text, more=False))
        self._finish()

    def _log_access(self, answer: str) -> None:
        self._logger.info(
            '%s - "WebSocket %s" %s',
            get_client_addr(self._scope),  # type: ignore[arg-type]
            get_path_with_query_string(self._scope),  # type: ignore[arg-type]
            answer,
        )

    # --- the end

    def _finish(self) -> None:
        """The application may send nothing more, and learns of it in ``receive``."""
        self._phase = _ENDED
        self._flowing = False
        self._decided.set()

    def _end(self) -> None:
        """The application is done."""
        ws = self._ws
        if self._phase == _CONNECTING:
            self._refuse(500, b"Internal Server Error")
        elif self._phase == _RESPONDING:
            assert self._denial is not None
            # Cut short: without a terminating chunk, so that the client can tell.
            ws._turn_away(b"" if self._denial.begun else self._denial.encode(b"", more=False))
        elif self._phase == _OPEN and ws._state == State.OPEN:
            ws._state = State.CLOSING.value
            ws._turn_away(b"")
        self._finish()


_TAKE: Final = (
    Channel._take_connecting,
    Channel._take_open,
    Channel._take_responding,
    Channel._take_ended,
)


def _unexpected(kind: str, expected: str) -> RuntimeError:
    return RuntimeError(f"the ASGI application sent {kind!r} where the server expects {expected}")


class _Denial:
    """The HTTP response of an application that refuses. Its head leaves with the first of its body.

    A body that comes whole gets a Content-Length, one in parts is chunked (RFC 9112 6.1, 6.2),
    unless the application says how long it is.
    """

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.begun = False
        self._chunked = False
        self._status = status
        self._names = {name.lower() for name, _ in headers}
        self._lines = _header_lines(headers)

    def encode(self, body: bytes, more: bool) -> bytes:
        """``body`` as it goes over the wire; ``more`` of it follows."""
        head = b"" if self.begun else self._head(None if more else len(body))
        if not self._chunked:
            return head + body
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        return head + chunk + (b"" if more else b"0\r\n\r\n")

    def _head(self, length: int | None) -> bytes:
        self.begun = True
        lines = self._lines
        if b"connection" not in self._names:
            lines += b"connection: close\r\n"
        told = b"content-length" in self._names or b"transfer-encoding" in self._names
        if not told and self._status not in (204, 304):  # which have no body (RFC 9112 6.3)
            if length is None:
                self._chunked = True
                lines += b"transfer-encoding: chunked\r\n"
            else:
                lines += b"content-length: %d\r\n" % length
        phrase = reason_phrase(self._status).encode()
        return b"HTTP/1.1 %d %b\r\n%b\r\n" % (self._status, phrase, lines)


def _header_lines(headers: HeaderLines) -> bytes:
    """``ValueError`` if a line would be more than one."""
    lines = [b"%b: %b\r\n" % (name, value) for name, value in headers]
    for line in lines:
        if _BREAKS_LINE.search(line, 0, len(line) - 2):
            raise ValueError(f"header line {line!r} has a control character in it")
    return b"".join(lines)
