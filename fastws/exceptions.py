"""What the library raises.

Names follow ``websockets``, so that ``except`` clauses need no change::

    WebSocketException
        ConnectionClosed
            ConnectionClosedOK          closed with 1000, 1001 or without a code
            ConnectionClosedError       anything else
        InvalidURI, InvalidProxy        what connect() was given
        InvalidHandshake                on a server, carries the HTTP status that goes out
            InvalidMessage              not an HTTP/1.1 message that we can read
            InvalidStatus               the server refused; carries its response
            InvalidHeader, InvalidUpgrade, InvalidOrigin, NegotiationError
            SecurityError               a redirect that is not followed
            ProxyError, InvalidProxyMessage, InvalidProxyStatus
        ProtocolError                   a peer broke RFC 6455; carries the close code
        ConcurrencyError                two coroutines in recv() at once, or two equal pings
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .frames import OK_CLOSE_CODES, Close

if TYPE_CHECKING:
    from .http import Response

__all__ = [
    "ConcurrencyError",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "InvalidHandshake",
    "InvalidHeader",
    "InvalidMessage",
    "InvalidOrigin",
    "InvalidProxy",
    "InvalidProxyMessage",
    "InvalidProxyStatus",
    "InvalidStatus",
    "InvalidURI",
    "InvalidUpgrade",
    "NegotiationError",
    "ProtocolError",
    "ProxyError",
    "SecurityError",
    "WebSocketException",
]


class WebSocketException(Exception):
    """Base of everything below."""


class ConnectionClosed(WebSocketException):
    """The connection is closed or closing.

    Attributes:
        rcvd: the close frame that the peer sent, if one came.
        sent: the close frame that we sent, if one went.
        rcvd_then_sent: with both present, whether the peer's came first.
    """

    def __init__(
        self, rcvd: Close | None, sent: Close | None, rcvd_then_sent: bool | None = None
    ) -> None:
        super().__init__(rcvd, sent, rcvd_then_sent)
        self.rcvd = rcvd
        self.sent = sent
        self.rcvd_then_sent = rcvd_then_sent

    @property
    def code(self) -> int:
        """The close code received; 1006 if the connection was lost without one."""
        return 1006 if self.rcvd is None else self.rcvd.code

    @property
    def reason(self) -> str:
        """The close reason received; empty if none."""
        return "" if self.rcvd is None else self.rcvd.reason

    def __str__(self) -> str:
        if self.rcvd is None:
            if self.sent is None:
                return "no close frame received or sent"
            return f"sent {self.sent}; no close frame received"
        if self.sent is None:
            return f"received {self.rcvd}; no close frame sent"
        if self.rcvd_then_sent:
            return f"received {self.rcvd}; then sent {self.sent}"
        return f"sent {self.sent}; then received {self.rcvd}"


class ConnectionClosedOK(ConnectionClosed):
    """Closed with 1000 or 1001, or without a code, by both sides."""


class ConnectionClosedError(ConnectionClosed):
    """Closed with another code, or lost without a closing handshake."""


def connection_closed(
    rcvd: Close | None, sent: Close | None, rcvd_then_sent: bool | None
) -> ConnectionClosed:
    """The subclass that fits what was received and sent."""
    ok = (
        rcvd is not None
        and sent is not None
        and rcvd.code in OK_CLOSE_CODES
        and sent.code in OK_CLOSE_CODES
    )
    return (ConnectionClosedOK if ok else ConnectionClosedError)(rcvd, sent, rcvd_then_sent)


class InvalidURI(WebSocketException):
    """Not the URI of a WebSocket (RFC 6455 3).

    Attributes:
        uri: as it was given.
        msg: what is wrong with it.
    """

    def __init__(self, uri: str, msg: str) -> None:
        super().__init__(uri, msg)
        self.uri = uri
        self.msg = msg

    def __str__(self) -> str:
        return f"{self.uri!r} is not a WebSocket URI: {self.msg}"


class InvalidProxy(WebSocketException):
    """Not the URL of a proxy that we can use.

    Attributes:
        proxy: as it was given, or found in the environment.
        msg: what is wrong with it.
    """

    def __init__(self, proxy: str, msg: str) -> None:
        super().__init__(proxy, msg)
        self.proxy = proxy
        self.msg = msg

    def __str__(self) -> str:
        return f"{self.proxy!r} is not a proxy: {self.msg}"


class InvalidHandshake(WebSocketException):
    """An opening handshake that failed.

    Attributes:
        status: on a server, the HTTP status that the refusal goes out with.
        headers: further header lines of that response.
    """

    status = 400

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        if status is not None:
            self.status = status
        self.headers = headers


class InvalidMessage(InvalidHandshake):
    """The peer's head is not HTTP/1.1 (RFC 9112), is over a limit, or did not come."""


class InvalidStatus(InvalidHandshake):
    """The server answered with another status than 101 (RFC 6455 4.1).

    Attributes:
        response: what it answered, with at most 65,536 bytes of its body.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(f"the server refused the WebSocket: HTTP {response.status_code}")
        self.response = response


class InvalidHeader(InvalidHandshake):
    """A header that the handshake needs is missing or wrong (RFC 6455 4.1, 4.2.1)."""


class InvalidUpgrade(InvalidHeader):
    """``Connection`` or ``Upgrade`` is not that of a WebSocket."""


class InvalidOrigin(InvalidHeader):
    """``Origin`` is not in the list of allowed ones (RFC 6455 10.2)."""

    status = 403


class NegotiationError(InvalidHandshake):
    """No subprotocol in common where the server has some, or one or an extension that was not
    offered.
    """


class SecurityError(InvalidHandshake):
    """A redirect that would give something away, or one too many."""


class ProxyError(InvalidHandshake):
    """The proxy did not connect us."""


class InvalidProxyMessage(ProxyError):
    """The proxy's answer is not HTTP/1.x."""


class InvalidProxyStatus(ProxyError):
    """The proxy refused.

    Attributes:
        response: what it answered, with at most 65,536 bytes of its body.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(f"the proxy refused to connect: HTTP {response.status_code}")
        self.response = response


class ProtocolError(WebSocketException):
    """A peer broke RFC 6455, or one of our limits.

    Attributes:
        code: the close code that goes out (1002, 1007 or 1009).
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


class ConcurrencyError(WebSocketException, RuntimeError):
    """Two coroutines wait in ``recv()`` of one connection, or two pings with the same data are on
    their way.
    """
