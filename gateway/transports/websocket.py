"""WebSocket: connections of `fastws` as transports of sessions."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import cast

import fastws
from gateway import codes
from gateway.node import Node
from gateway.protocols.base import ClientProtocol
from gateway.session import Session
from gateway.transports.base import Transport

# The attribute of a connection that keeps what its opening request said until there is a session:
# a token, headers and an address.
OPENING = "opening"


class WebSocketEndpoint:
    """A WebSocket path and the protocol spoken there. Makes the sessions of its connections."""

    def __init__(self, node: Node, protocol: ClientProtocol) -> None:
        self.node = node
        self.protocol = protocol
        self._ping = fastws.PreparedMessage(protocol.ping, True)

    def new_session(self) -> WebSocketSession:
        """The listener of a new connection."""
        return WebSocketSession(self)

    def fan_out(self, transports: Iterable[Transport], payload: bytes) -> None:
        fastws.broadcast(_connections(transports), fastws.PreparedMessage(payload, True))

    def fan_out_ready(
        self, transports: Iterable[Transport], payload: bytes
    ) -> Collection[Transport]:
        prepared = fastws.PreparedMessage(payload, True)
        full = fastws.broadcast_ready(_connections(transports), prepared)
        return cast("Collection[Transport]", full)

    def ping(self, transports: Iterable[Transport]) -> None:
        """Ask clients for a sign of life."""
        fastws.broadcast(_connections(transports), self._ping)


def _connections(transports: Iterable[Transport]) -> Iterable[fastws.Connection]:
    """The hub calls this transport for its own sessions only."""
    return cast("Iterable[fastws.Connection]", transports)


class WebSocketSession(Session):
    """A session that is itself the listener of its connection (`fastws.Listener`).

    One object less for each client, and none to look up for each message.
    """

    __slots__ = ()

    endpoint: WebSocketEndpoint

    def on_open(self, ws: fastws.Connection) -> None:
        opening = vars(ws).pop(OPENING, None)
        if opening is not None:
            self.token, self.headers, self.address = opening
        self.endpoint.node.open(self, ws, ws.slot)

    def on_message(self, ws: fastws.Connection, message: str | bytes) -> None:
        endpoint = self.endpoint
        endpoint.node.counters.frames_in += 1
        endpoint.protocol.receive(self, message)

    def on_drain(self, ws: fastws.Connection) -> None:
        if not self.ended:
            self.endpoint.node.hub.drained(self)

    def on_overflow(self, ws: fastws.Connection) -> None:
        """The client reads too slowly: more than ``client.queue_max_size`` bytes wait for it."""
        self.endpoint.node.limits.reach("queue_max_size", client=self.id)
        self.endpoint.node.disconnect(self, codes.SLOW)

    def on_close(self, ws: fastws.Connection, code: int, reason: str) -> None:
        """A fault that the library closes for, such as a message that is too large, is our code:
        the client does not always answer with one.
        """
        node, sent = self.endpoint.node, ws.close_sent
        if sent is not None and code == fastws.CloseCode.ABNORMAL_CLOSURE:
            if sent.code == fastws.CloseCode.MESSAGE_TOO_BIG:
                node.limits.reach("message_size_limit", client=self.id)
            node.leave(self, sent.code, sent.reason)
        else:
            node.leave(self, code)
