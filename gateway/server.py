"""The gateway as a whole: its parts put together, started and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import structlog
from msgspec import structs

import fastws
from gateway import codes
from gateway.app import App, NoApp
from gateway.auth.handshake import OriginCheck, select_subprotocol, token_of
from gateway.collector import Collector
from gateway.config import Config
from gateway.engines import MemoryEngine
from gateway.heartbeat import Heartbeat
from gateway.http import WEBSOCKET_PATH, HttpSide, make_app
from gateway.node import Node
from gateway.protocols.centrifuge import CentrifugeJson
from gateway.session import Session
from gateway.stepping import start
from gateway.transports.websocket import OPENING, WebSocketEndpoint

log = structlog.get_logger("gateway")

# How often the heartbeat looks. It is the error of its times, and it spreads pings out: many small
# fan-outs stop the loop for a shorter time than one big one.
SWEEP_PERIOD = 0.25

# Seconds between batches of clients that are closed at a stop.
DRAIN_PERIOD = 0.1

# Sections that take effect at a start only. Of the others, the heartbeat's times, the queue's size
# and the webhooks do too.
FIXED = ("dev", "http_server", "http_api", "websocket", "rpc", "engine", "log")


class Gateway:
    """One gateway process on the running loop. ``async with`` starts and stops it.

    ``app`` decides in place of the webhooks of the configuration. Raises `ConfigError` for keys of
    tokens that cannot be used.
    """

    def __init__(self, config: Config, app: App | None = None) -> None:
        self.config = config
        self.app = app if app is not None else _webhooks(config)
        engine = MemoryEngine(meta_ttl=config.channel.history_meta_ttl)
        self.node = Node(config, engine, app=self.app)
        self._collector = Collector()
        self._http = HttpSide(make_app(self.node))
        self._server: fastws.Server | None = None
        self._endpoint = WebSocketEndpoint(self.node, CentrifugeJson(self.node))
        self._origins = OriginCheck(config.client.allowed_origins)
        self._clockwork: asyncio.Task[None] | None = None

    @property
    def server(self) -> fastws.Server:
        assert self._server is not None, "start() first"
        return self._server

    @property
    def admits_anyone(self) -> bool:
        """Whether there is any way for a client to be let in."""
        config = self.config
        return (
            config.dev
            or config.client.allow_anonymous_connect_without_token
            or self.node.tokens.has_keys
            or self.app.handles("connect")
        )

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Gateway:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the engine, then listen. Raises `OSError` when the port is not to be had."""
        config, node = self.config, self.node
        self.app.node = node
        await node.start()
        await self.app.start()
        try:
            self._server = await self._listen()
        except BaseException:
            await self.app.close()
            await node.close()
            raise
        node.heartbeat = Heartbeat(
            np.asarray(self._server.reactor.last_seen),
            interval=config.client.ping_interval,
            timeout=config.client.pong_timeout,
            stale_delay=config.client.stale_close_delay,
            on_ping=self._ping,
            on_dead=node.disconnect,
            on_expired=node.admission.expire,
        )
        self._clockwork = asyncio.get_running_loop().create_task(self._tick())
        log.info("listening", address=config.http_server.address, port=self.port)

    async def _listen(self) -> fastws.Server:
        config = self.config
        takes_subprotocols = bool(config.client.token_source.subprotocol_prefix)
        return await fastws.serve(
            self._endpoint.new_session,
            config.http_server.address,
            config.http_server.port,
            process_request=self._route,
            select_subprotocol=self._subprotocol if takes_subprotocols else None,
            http=self._http.protocol_factory,
            compression=None,
            ping_interval=None,  # the heartbeat pings, in the client's protocol
            max_size=config.websocket.message_size_limit,
            max_backlog=config.client.queue_max_size,
        )

    def reload(self, config: Config) -> None:
        """Take what can change without dropping anyone; warns of what needs a restart.

        Raises `ConfigError`, and then nothing has changed.
        """
        fixed = [name for name in FIXED if getattr(config, name) != getattr(self.config, name)]
        if fixed:
            log.warning("needs a restart", sections=fixed)
        config = structs.replace(config, **{name: getattr(self.config, name) for name in FIXED})
        self.node.reload(config)
        self.config = config
        self._origins = OriginCheck(config.client.allowed_origins)
        log.info("reloaded")

    def _route(self, ws: fastws.ServerConnection, request: fastws.Request) -> Any:
        if request.path.partition("?")[0] != WEBSOCKET_PATH:
            return ws.respond(404, "There is no WebSocket here.\n")
        if not self._origins.allows(request):
            self.node.counters.refused_origins += 1
            return ws.respond(403, "Pages of this origin may not connect.\n")
        limits, address = self.node.limits, ""
        if limits.counts_addresses:
            address = str(ws.remote_address[0])
        refusal = limits.check_connection(
            address, self.node.counters.connections, self.node.clock()
        )
        if refusal is not None:
            return ws.respond(refusal[0], f"{refusal[1]} is reached.\n")
        token = token_of(request, self.config.client.token_source)
        headers = {
            name: ", ".join(values)
            for name in self.app.http_headers
            if (values := request.headers.get_all(name))
        }
        if token or headers or address:
            setattr(ws, OPENING, (token, headers or None, address))
        return None

    def _subprotocol(self, ws: fastws.Connection, offered: Sequence[str]) -> str | None:
        return select_subprotocol(offered, self.config.client.token_source)

    def _ping(self, sessions: list[Session]) -> None:
        self._endpoint.ping([session.transport for session in sessions])

    async def _tick(self) -> None:
        """The only timer: the heartbeat for all connections, and what is done once a second."""
        assert self.node.heartbeat is not None
        delay = self.config.client.channel_position_check_delay
        next_second, next_check = 0.0, time.monotonic() + delay
        while True:
            now = time.monotonic()
            try:
                self.node.heartbeat.sweep(now)
                if now >= next_second:
                    next_second = now + 1.0
                    self._http.tick()
                    self.node.tick()
                    held = self.node.counters.connections + self.node.hub.subscriptions
                    self._collector.tick(held)
                if delay and now >= next_check:
                    next_check = now + delay
                    start(self.node.members.check_positions())
            except Exception:  # the heartbeat must go on
                log.exception("heartbeat failed")
            await asyncio.sleep(SWEEP_PERIOD)

    async def _drain(self) -> None:
        """Close clients in batches, so that they do not all come to another process at once."""
        assert self.node.heartbeat is not None
        sessions = [session for session in self.node.heartbeat.sessions if session is not None]
        at_once = max(1, int(self.config.shutdown.close_rate * DRAIN_PERIOD))
        for begin in range(0, len(sessions), at_once):
            if begin:
                await asyncio.sleep(DRAIN_PERIOD)
            await self.node.disconnect_all(sessions[begin : begin + at_once], codes.SHUTDOWN)

    async def stop(self) -> None:
        """Stop accepting, close clients with 3001 at ``shutdown.close_rate``, let responses finish.

        After ``shutdown.timeout`` what is left is cut.
        """
        if self._server is None:
            return
        server, self._server = self._server, None
        self._collector.close()
        goodbye = codes.SHUTDOWN
        log.info("stopping", connections=self.node.counters.connections)
        server.close(close_connections=False)
        assert self.node.heartbeat is not None
        try:
            async with asyncio.timeout(self.config.shutdown.timeout):
                await self._drain()
                server.close(code=goodbye.code, reason=goodbye.reason)
                await asyncio.gather(server.wait_closed(), self._http.close())
        except TimeoutError:
            log.warning("cutting connections", connections=len(server.connections))
            server.close(code=goodbye.code, reason=goodbye.reason)
            for ws in server.connections:
                ws.abort()
            self._http.abort()
        if self._clockwork is not None:
            self._clockwork.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._clockwork
        await self.app.close()
        await self.node.close()
        log.info("stopped")


def _webhooks(config: Config) -> App:
    proxies = (config.client.proxy, config.channel.proxy, config.rpc)
    if not any(getattr(each, name).enabled for each in proxies for name in each.__struct_fields__):
        return NoApp()
    from gateway.app.webhooks import Webhooks  # needs aiohttp, which others do not

    return Webhooks(config)
