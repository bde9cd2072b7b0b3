"""The carrier over an asyncio transport: no epoll, the pure build, plain HTTP over TLS."""

from __future__ import annotations

import asyncio
import errno
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ._impl import TransportCarrier

if TYPE_CHECKING:
    from .connection import Connection, EndpointSettings
    from .proxy_protocol import ProxiedAddresses
    from .server import Server

# What the transport queues of its own while it takes nothing from us: TLS answers key updates
# (RFC 8446 4.6.3) and renegotiation whether or not the peer reads.
_ANSWERS_LIMIT: Final = 262144  # bytes
_ANSWERS_PERIOD: Final = 0.25  # seconds between looks

__all__ = ["ConnectionProtocol", "HandOver", "ServerProtocol"]


class ConnectionProtocol(asyncio.Protocol):
    """Feeds one connection, which ``connect(carrier)`` makes; all protocol logic is above it.

    ``error``: why there is none. The transport is then for the caller to abort; uvloop leaks the
    descriptor of a socket that it was given when that is done in ``connection_made``.
    """

    def __init__(
        self, settings: EndpointSettings, connect: Callable[[TransportCarrier], Connection]
    ) -> None:
        self.settings = settings
        self.connect = connect
        self.connection: Connection | None = None
        self.error: OverflowError | None = None
        self.carrier: TransportCarrier | None = None
        self.secure = False
        self._look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.secure = transport.get_extra_info("sslcontext") is not None
        high, low = self.settings.write_high, self.settings.write_low
        transport.set_write_buffer_limits(high, low)  # type: ignore[attr-defined]
        self.carrier = TransportCarrier(transport)
        try:
            self.connection = self.connect(self.carrier)
        except OverflowError as error:
            self.error = error

    def data_received(self, data: bytes) -> None:
        if self.connection is not None:
            self.connection._receive(data)

    def eof_received(self) -> bool:
        if self.connection is not None:
            self.connection._receive_eof()
        return not self.secure  # closing is our business: there may be bytes to send yet

    def pause_writing(self) -> None:
        if self.carrier is not None:
            self.carrier.pause_writing()
            if self.secure:
                transport = self.carrier.transport
                self._look_later(transport, transport.get_write_buffer_size() + _ANSWERS_LIMIT)

    def _look_later(self, transport: Any, limit: int) -> None:
        loop = asyncio.get_running_loop()
        self._look = loop.call_later(_ANSWERS_PERIOD, self._look_at_answers, transport, limit)

    def _look_at_answers(self, transport: Any, limit: int) -> None:
        self._look = None
        if self.connection is None:
            return
        if transport.get_write_buffer_size() <= limit:
            self._look_later(transport, limit)
            return
        error = ConnectionAbortedError(errno.ECONNABORTED, "the peer does not read TLS's answers")
        self.connection._lose(error)

    def _look_no_more(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def resume_writing(self) -> None:
        self._look_no_more()
        if self.carrier is not None and self.connection is not None:
            self.carrier.resume_writing()
            self.connection._writable()

    def connection_lost(self, exc: Exception | None) -> None:
        self._look_no_more()
        if self.connection is not None:
            self.connection._lose(exc)
            self.connection = None


class ServerProtocol(ConnectionProtocol):
    """Feeds one accepted connection."""

    def __init__(self, server: Server, proxied: ProxiedAddresses | None = None) -> None:
        accepted = server._accepted
        if proxied is not None:
            accepted = functools.partial(accepted, proxied=proxied)
        super().__init__(server.settings, accepted)
        self.logger = server.logger

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self.error is not None:
            self.logger.error("connection refused: %s", self.error)
            transport.abort()  # type: ignore[attr-defined]


class HandOver(asyncio.Protocol):
    """First protocol of a socket that leaves us: puts the real one in its place, with the bytes
    read so far.
    """

    def __init__(
        self, protocol: asyncio.Protocol, data: bytes, proxied: ProxiedAddresses | None = None
    ) -> None:
        self.protocol = protocol
        self.data = data
        self.proxied = proxied

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.set_protocol(self.protocol)
        if self.proxied is not None:
            transport = _ProxiedTransport(transport, self.proxied)  # type: ignore[assignment]
        self.protocol.connection_made(transport)
        self.protocol.data_received(self.data)


class _ProxiedTransport:
    """A transport whose ends are those that a PROXY header told."""

    def __init__(self, transport: asyncio.BaseTransport, proxied: ProxiedAddresses) -> None:
        self._transport = transport
        self._ends = {
            "peername": proxied.source,
            "sockname": proxied.destination,
            "socket": None,  # whose peer is the proxy
        }

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        found = self._ends.get(name)
        if found is not None:
            return found
        return default if name in self._ends else self._transport.get_extra_info(name, default)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
