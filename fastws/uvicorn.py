"""WebSockets of ASGI applications: ``uvicorn app:app --ws fastws.uvicorn:WebSocketProtocol``.

Needs uvicorn 0.36 or newer for the command line; an older one takes the class itself, as
``uvicorn.run(app, ws=WebSocketProtocol)``. uvicorn accepts connections and reads requests; from the
upgrade on the connection is one of ours, with the limits that uvicorn's ``ws_…`` options set.
"""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from uvicorn.logging import TRACE_LOG_LEVEL
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

from ._asgi import Channel, websocket_scope
from ._impl import Carrier, own_send
from ._loop import new_poller, reactor_of
from ._transport import ConnectionProtocol
from .deflate import Answers, Deflate
from .exceptions import InvalidHandshake
from .frames import CloseCode, State
from .handshake import check_head, refusal
from .server_connection import ServerConnection, ServerSettings

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from ._impl import Head, Reactor
    from .deflate import Agreement

__all__ = ["WebSocketProtocol"]

# Seconds that a shutting down server waits for peers to end their half of the connection.
_SHUTDOWN_LINGER: Final = 1.0

# Transports with nothing between them and their socket.
_PLAIN: Final = ("asyncio.selector_events", "uvloop.loop")


class _Connection(ServerConnection):
    """A connection whose handshake an ASGI application answers."""

    protocol: WebSocketProtocol

    def _stop_opening(self, opening: Any, error: BaseException | None) -> None:
        """The application is not cancelled: ``receive`` tells it."""


own_send(_Connection)


class _Endpoint:
    """What the connections of one uvicorn server have in common."""

    def __init__(self, config: Config, reactor: Reactor) -> None:
        self.logger = logging.getLogger("uvicorn.error")
        self.http: Callable[[], asyncio.Protocol] | None = None
        self.answers: Answers | None = None
        if config.ws_per_message_deflate:
            self.answers = Answers(Deflate(), reactor.shared)

    def handshake(self, ws: Any, head: Head, data: bytes) -> None:
        agreed = None
        try:
            check_head(head)
            if self.answers is not None and head.extensions is not None:
                agreed = self.answers(head.extensions)
        except InvalidHandshake as error:
            self.refuse(ws, error)
        else:
            ws.protocol.start(ws, head, agreed)

    def refuse(self, ws: Any, error: InvalidHandshake) -> None:
        self.logger.debug("handshake refused: %s", error)
        ws._turn_away(refusal(error).serialize())
        if ws.protocol.channel is not None:
            ws.protocol.channel.refused()

    def hand_over(self, ws: Any, data: bytes) -> None:
        raise NotImplementedError  # what comes from uvicorn is an upgrade

    def lost(self, ws: Any) -> None:
        ws.protocol.lost()


_settings: weakref.WeakKeyDictionary[ServerState, ServerSettings] = weakref.WeakKeyDictionary()


def _settings_of(server: ServerState, config: Config, reactor: Reactor) -> ServerSettings:
    """What all connections of a server share, made once."""
    settings = _settings.get(server)
    if settings is None:
        settings = ServerSettings(
            # 0 refuses every message with a byte in it in uvicorn's own; ours begin at 1.
            max_size=max(config.ws_max_size, 1),
            max_queue=config.ws_max_queue or None,
            # An ASGI application waits in send(), however large its message is.
            max_backlog=None,
            ping_interval=config.ws_ping_interval or None,
            ping_timeout=config.ws_ping_timeout or None,
        )
        settings.endpoint = _Endpoint(config, reactor)
        _settings[server] = settings
    return settings


class WebSocketProtocol(ConnectionProtocol):
    """The class for uvicorn's ``ws``; uvicorn makes one per connection.

    The socket of a plain connection is taken from uvicorn's transport into our reactor, where there
    is one; ``takes_socket = False`` in a subclass leaves it there, as TLS always does.
    """

    takes_socket: ClassVar[bool] = True

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self.loop = _loop or asyncio.get_running_loop()
        self.reactor = reactor_of(self.loop)
        super().__init__(_settings_of(server_state, config, self.reactor), self._connect)
        self.config = config
        self.server_state = server_state
        self.app_state = app_state
        self.logger = logging.getLogger("uvicorn.error")
        self.channel: Channel | None = None
        self._taken = False

    # --- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.server = get_local_addr(self.transport)
        self.client = get_remote_addr(self.transport)
        self.scheme = "wss" if is_ssl(self.transport) else "ws"
        self._trace("WebSocket connection made")
        poller = self._poller()
        if poller is None:
            super().connection_made(transport)
        else:
            self._take_socket(poller)
        self.server_state.connections.add(self)  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._taken:
            super().connection_lost(exc)

    # --- uvicorn's side

    def shutdown(self) -> None:
        """The server stops: 1012 to the peer and the application, or 500 before the handshake."""
        ws = self.connection
        if ws is None:
            return
        if self.channel is not None:
            self.channel.shut_down()
        if ws._state == State.OPEN:
            ws._fail(CloseCode.SERVICE_RESTART, "")
        ws.reactor.set_deadline(ws, _SHUTDOWN_LINGER)

    # --- the connection's side

    def start(self, ws: _Connection, head: Head, agreed: tuple[bytes, Agreement] | None) -> None:
        """A valid handshake has come: let the application answer it."""
        config = self.config
        scope = websocket_scope(
            head,
            config.root_path,
            asgi={"version": config.asgi_version, "spec_version": "2.4"},
            scheme=self.scheme,
            server=self.server,
            client=self.client,
            state=self.app_state.copy(),
        )
        assert head.key is not None
        self.channel = Channel(
            ws,
            head.key,
            scope,
            headers=self.server_state.default_headers,
            agreed=agreed,
            logger=self.logger,
        )
        task = self.loop.create_task(self.channel.run(config.loaded_app))
        ws._detail().opening = task
        self.server_state.tasks.add(task)
        task.add_done_callback(self.server_state.tasks.discard)

    def lost(self) -> None:
        """The connection is gone."""
        self.connection = None  # which holds us, too
        self.server_state.connections.discard(self)
        self._trace("WebSocket connection lost")
        if self.channel is not None:
            self.channel.lost()

    # --- carriers

    def _connect(self, carrier: Carrier) -> _Connection:
        ws = _Connection(self.settings, self.reactor, carrier)
        ws.protocol = self
        return ws

    def _poller(self) -> Any:
        """Our epoll carrier, if it can take the socket over; else ``None``."""
        transport = self.transport
        if (
            not self.takes_socket
            or type(transport).__module__ not in _PLAIN
            or transport.get_extra_info("sslcontext") is not None
            # The rest of an earlier response, which only the transport can send.
            or transport.get_write_buffer_size()
        ):
            return None
        return new_poller(self.reactor)

    def _take_socket(self, poller: Any) -> None:
        """Move the connection from uvicorn's transport to ``poller``.

        A second descriptor of the socket is ours; dropping the transport closes only the first.
        """
        ws = self.connection = self._connect(poller)
        descriptor = os.dup(self.transport.get_extra_info("socket").fileno())
        try:
            poller.adopt(ws, descriptor)
        except BaseException:
            os.close(descriptor)
            ws._lose()
            raise
        self._taken = True
        self.transport.abort()

    def _trace(self, what: str) -> None:
        if self.logger.isEnabledFor(TRACE_LOG_LEVEL):
            host, port = self.client or ("", 0)
            self.logger.log(TRACE_LOG_LEVEL, "%s:%d - %s", host, port, what)
