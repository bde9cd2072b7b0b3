"""A server's side of a connection: what it does with a request, and how it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ._impl import own_send, parse_head
from .connection import Connection, EndpointSettings
from .exceptions import InvalidHandshake, InvalidMessage
from .frames import State
from .http import Request, Response

if TYPE_CHECKING:
    from ._impl import Head
    from .proxy_protocol import ProxiedAddresses

__all__ = ["ServerConnection", "ServerEndpoint", "ServerSettings"]

# Bytes kept while an asynchronous process_request runs.
_EARLY_LIMIT = 65536


class ServerEndpoint(Protocol):
    """What a connection asks of the server that it belongs to."""

    logger: logging.Logger
    http: Callable[[], asyncio.Protocol] | None

    def handshake(self, ws: ServerConnection, head: Head, data: bytes) -> None:
        """A whole request head has come; ``data`` is all that was read."""

    def refuse(self, ws: ServerConnection, error: InvalidHandshake) -> None:
        """Answer a handshake with the reason why it failed, and close."""

    def hand_over(self, ws: ServerConnection, data: bytes) -> None:
        """Let ``http`` take the connection over."""

    def lost(self, ws: ServerConnection) -> None:
        """The connection is gone."""


class ServerSettings(EndpointSettings):
    """What the connections of one server share, and the server."""

    endpoint: ServerEndpoint


class ServerConnection(Connection):
    """A server's side of a WebSocket connection; ``serve`` hands it to the coroutine or
    listener.
    """

    settings: ServerSettings
    username: str  # set by ``basic_auth``
    # What a PROXY header said: the addresses are then the client's and the proxy's.
    proxied: ProxiedAddresses | None = None

    @property
    def server(self) -> Any:
        """The ``Server`` that accepted it."""
        return self.settings.endpoint

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

    def _addresses(self) -> tuple[Any, Any]:
        if self.proxied is None:
            return super()._addresses()
        return self.proxied.destination, self.proxied.source

    def respond(self, status: int, text: str) -> Response:
        """A plain-text response for ``process_request`` to return."""
        return Response.of_text(int(status), text)

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

    def _turn_away(self, data: bytes) -> None:
        """Send ``data``, the last bytes of what is no WebSocket, and close the TCP connection."""
        self._write_bytes(data)
        self._mute()
        self._end(linger=True)
        self.reactor.set_deadline(self, self.settings.close_timeout)

    # --- the end

    def _end_of_handshake(self, failed: bool) -> None:
        # The server closes the TCP connection first (RFC 6455 7.1.1); a peer that was at fault
        # may still be sending, and would lose our close frame by a reset.
        self._end(linger=failed)

    def _on_deadline(self) -> None:
        if self._state == State.CONNECTING and not self.muted:
            self._refuse(InvalidMessage("the request did not arrive in time", status=408))
        else:
            super()._on_deadline()

    def _stop_opening(self, opening: Any, error: BaseException | None) -> None:
        opening.cancel()


own_send(ServerConnection)
