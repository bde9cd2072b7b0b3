"""A client's side of a connection: what it does with the response, and how it ends."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import ssl
from typing import TYPE_CHECKING, Any

from ._impl import own_send
from .connection import Connection, EndpointSettings
from .deflate import Agreement
from .exceptions import InvalidHandshake, InvalidMessage, InvalidStatus, ProtocolError
from .frames import State
from .http import Response
from .listener import hook

if TYPE_CHECKING:
    from collections.abc import Callable

    from .client_handshake import ClientHandshake

__all__ = ["ClientConnection", "ClientEndpoint", "ClientSettings"]

# Seconds in which the body of a refusal may still come: it is worth waiting for, but not long.
_BODY_TIMEOUT = 1.0


@dataclasses.dataclass(slots=True)
class ClientEndpoint:
    """What the connections of one ``connect`` have in common."""

    logger: logging.Logger
    new_listener: Callable[[], Any] | None = None

    def lost(self, ws: ClientConnection) -> None:
        """Nobody keeps count of it."""


class ClientSettings(EndpointSettings):
    """What the connections of one ``connect`` share."""

    endpoint: ClientEndpoint


class _Opening:
    """An opening handshake under way, and who waits for it.

    It stays until they know that the connection is open. ``fault``: what the server did wrong in
    the meantime.
    """

    __slots__ = ("fault", "handshake", "waiter")

    def __init__(self, handshake: ClientHandshake, waiter: asyncio.Future[None]) -> None:
        self.handshake = handshake
        self.waiter = waiter
        self.fault: ProtocolError | None = None

    def succeed(self) -> None:
        if not self.waiter.done():
            self.waiter.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.waiter.done():
            self.waiter.set_exception(error)


class ClientConnection(Connection):
    """A client's side of a WebSocket connection; ``connect`` gives it."""

    settings: ClientSettings

    # --- the opening handshake

    async def _handshake(self, handshake: ClientHandshake) -> None:
        """Open the WebSocket; ``InvalidHandshake`` if that fails, ``ssl.SSLError`` if TLS does. The
        connection is lost then.
        """
        waiter = self.reactor.loop.create_future()
        details = self._detail()
        details.request = handshake.request
        details.opening = opening = _Opening(handshake, waiter)
        self._write_bytes(handshake.request.serialize())
        await waiter
        details.opening = None
        if opening.fault is not None:
            # Behind the step of this task, which can answer what came before the fault.
            self.reactor.loop.call_soon(super()._on_protocol_error, opening.fault)

    def _on_bytes(self, data: bytes) -> None:
        opening: _Opening | None = self._detail().opening
        if opening is None:
            return
        handshake = opening.handshake
        parser = handshake.parser
        begun = parser.begun
        try:
            if not parser.feed(data):
                if parser.begun and not begun:
                    self.reactor.set_deadline(self, _BODY_TIMEOUT)
                return
            response = parser.response
            assert response is not None
            self._detail().response = response
            handshake.check(response)
        except InvalidHandshake as error:
            self._give_up(error)
            return
        self._open(opening, handshake)

    def _open(self, opening: _Opening, handshake: ClientHandshake) -> None:
        self._detail().subprotocol = handshake.subprotocol
        if handshake.deflate is not None and handshake.deflated is not None:
            shared = self.reactor.shared
            self._use_deflate(
                Agreement(handshake.deflate, handshake.deflated, client=True, shared=shared)
            )
        self._start_listening()
        opening.succeed()
        if handshake.parser.rest and self._state != State.CLOSED:
            self._receive(handshake.parser.rest)

    def _start_listening(self) -> None:
        new_listener = self.settings.endpoint.new_listener
        if new_listener is None:
            self._opened(None)
            return
        try:
            listener = new_listener()
        except Exception as error:
            self._opened(None)
            self._on_handler_error(error)
            return
        self.listener = listener
        self._opened(hook(listener, "on_message"))
        self._call("on_open")

    def _give_up(self, error: InvalidHandshake) -> None:
        opening, self._detail().opening = self._detail().opening, None
        opening.fail(error)
        self._lose(error)

    def _stop_opening(self, opening: _Opening, error: BaseException | None) -> None:
        opening.fail(_unanswered(opening.handshake.parser.response, error))

    def _on_protocol_error(self, error: ProtocolError) -> None:
        opening: _Opening | None = None if self._details is None else self._details.opening
        if opening is not None and self.listener is None:
            opening.fault = error
        else:
            super()._on_protocol_error(error)

    # --- the end

    def _end_of_handshake(self, failed: bool) -> None:
        # The server closes the TCP connection first, so that TIME_WAIT is its (RFC 6455 7.1.1):
        # until the deadline that was set with our close frame.
        pass

    def _on_deadline(self) -> None:
        if self._state == State.CONNECTING:  # the body of a refusal does not end
            self._give_up(InvalidStatus(self._detail().opening.handshake.parser.response))
        else:
            super()._on_deadline()


def _unanswered(response: Response | None, error: BaseException | None) -> Exception:
    """What a handshake failed with whose connection was lost."""
    failure: InvalidHandshake
    if isinstance(error, ssl.SSLError):
        return error
    if response is not None:
        failure = InvalidStatus(response)  # of whose body that was all
    elif error is None:
        failure = InvalidMessage("the server closed the connection without an answer")
        error = EOFError("the connection ended")
    else:
        failure = InvalidMessage(f"the connection was lost before the server's answer: {error}")
    failure.__cause__ = error
    return failure


own_send(ClientConnection)
