"""The gateway as a whole: its parts put together, started and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog
from msgspec import structs

import fastws
from gateway import codes, systemd, tls
from gateway.addresses import ClientAddresses, Forwarded
from gateway.admin import Admin
from gateway.api import make_door
from gateway.app import App
from gateway.app.webhooks import Webhooks
from gateway.auth.handshake import OriginCheck, select_subprotocol, token_of
from gateway.collector import Collector
from gateway.config import Config, HttpServer
from gateway.engines import MemoryEngine
from gateway.heartbeat import Heartbeat
from gateway.http import WEBSOCKET_PATH, make_app
from gateway.http_server import HttpSide
from gateway.listening import Place
from gateway.log import Seldom
from gateway.node import Node
from gateway.protocols.centrifuge import CentrifugeJson
from gateway.session import Session
from gateway.stepping import start
from gateway.tracing import make_tracing
from gateway.transports.websocket import OPENING, WebSocketEndpoint

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

log = structlog.get_logger("gateway")
seldom = Seldom(log)

# How often the heartbeat looks. It is the error of its times, and it spreads pings out: many small
# fan-outs stop the loop for a shorter time than one big one.
SWEEP_PERIOD = 0.25

# Seconds between batches of clients that are closed at a stop.
DRAIN_PERIOD = 0.1

# Sections that take effect at a start only. Of the others, the heartbeat's times, the queue's size
# and the rate of disconnect events do too.
FIXED = (
    "dev",
    "http_server",
    "http_api",
    "admin",
    "websocket",
    "engine",
    "opentelemetry",
    "log",
)


class Gateway:
    """One gateway process on the running loop. ``async with`` starts and stops it.

    ``app`` decides in place of the webhooks of the configuration; ``sockets`` are those of
    `systemd.listening_sockets`; ``span_exporter`` is where traces go instead of over OTLP. Raises
    `ConfigError` for keys of tokens and certificates that cannot be used.
    """

    def __init__(
        self,
        config: Config,
        app: App | None = None,
        sockets: dict[str, list[socket.socket]] | None = None,
        span_exporter: SpanExporter | None = None,
    ) -> None:
        self.config = config
        self._webhooks = Webhooks(config)
        self.app = app if app is not None else self._webhooks
        engine = MemoryEngine(meta_ttl=config.channel.history_meta_ttl)
        self.node = Node(config, engine, app=self.app)
        self._collector = Collector()
        self.node.tracing = make_tracing(config.opentelemetry, self.node.uid, span_exporter)
        self.notifier = systemd.Notifier()
        self._contexts = tls.make_contexts(config)
        self._addresses = ClientAddresses(config.http_server)
        passed = dict(sockets or {})
        internal = passed.pop(systemd.INTERNAL, [])
        self._passed = [each for some in passed.values() for each in some], internal
        self._has_internal = config.http_server.internal is not None or bool(internal)
        self.admin = Admin(self.node) if config.admin.enabled else None
        api = config.http_api.external or not self._has_internal
        outside = make_app(self.node, internal=not self._has_internal, api=api, admin=self.admin)
        inside = make_app(
            self.node, public=False, api=not config.http_api.external, admin=self.admin
        )
        self._http = HttpSide(
            Forwarded(outside, self._addresses), make_door(self.node) if api else None
        )
        self._internal_http = HttpSide(
            inside, None if config.http_api.external else make_door(self.node)
        )
        self._server: fastws.Server | None = None
        self._internal: fastws.Server | None = None
        self._places: list[Place] = []
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
        """The port that it listens on; 0 on a Unix socket."""
        return _port(self.server)

    @property
    def internal_port(self) -> int:
        """The port of the internal server, 0 on a Unix socket, or without one."""
        return _port(self._internal) if self._internal is not None else 0

    async def __aenter__(self) -> Gateway:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the engine, then listen. Raises `OSError` when an address is not to be had."""
        config, node = self.config, self.node
        self.app.node = node
        await node.start()
        await self.app.start()
        try:
            if self._has_internal:
                self._internal = await self._listen_internally()
            self._server = await self._listen()
        except BaseException:
            if self._internal is not None:
                self._internal.close()
            self._leave_places()
            await self.app.close()
            await node.close()
            await node.tracing.close()
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
        if self.admin is not None:
            self.admin.start()
        where = [place.names(server.sockets) for place, server in self._listening()]
        log.info(
            "listening",
            address=config.http_server.address,
            port=self.port,
            sockets=where[-1],
            **({"internal": where[0]} if self._has_internal else {}),
        )

    def _listening(self) -> list[tuple[Place, fastws.Server]]:
        servers = [each for each in (self._internal, self._server) if each is not None]
        return list(zip(self._places, servers, strict=True))

    def _place(self, address: str, port: int, passed: list[socket.socket]) -> Place:
        settings = self.config.http_server
        place = Place(
            address,
            port,
            passed=passed,
            reuse_port=settings.reuse_port,
            mode=int(settings.unix_socket_mode, 8),
        )
        self._places.append(place)
        return place

    def _leave_places(self) -> None:
        for place in self._places:
            place.close()
        self._places.clear()

    async def _listen_internally(self) -> fastws.Server:
        settings = self.config.http_server
        address, port = settings.internal or (settings.address, settings.port)
        place = self._place(address, port, self._passed[1])
        return await fastws.serve(
            fastws.Listener,
            **place.arguments,
            process_request=lambda ws, request: ws.respond(404, "There is no WebSocket here.\n"),
            http=self._internal_http.protocol_factory,
            compression=None,
            ssl=self._contexts[1],
        )

    async def _listen(self) -> fastws.Server:
        config = self.config
        settings = config.http_server
        place = self._place(settings.address, settings.port, self._passed[0])
        takes_subprotocols = bool(config.client.token_source.subprotocol_prefix)
        return await fastws.serve(
            self._endpoint.new_session,
            **place.arguments,
            ssl=self._contexts[0],
            proxy_protocol=settings.trusted_proxies if settings.proxy_protocol else (),
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

        Certificates are read again, and new connections get them. Raises `ConfigError`, and then
        nothing has changed.
        """
        server = _with_tls_of(self.config.http_server, config.http_server)
        fixed = [name for name in FIXED if getattr(config, name) != getattr(self.config, name)]
        if server == config.http_server and "http_server" in fixed:
            fixed.remove("http_server")
        kept = {name: getattr(self.config, name) for name in FIXED}
        config = structs.replace(config, **{**kept, "http_server": server})
        contexts = tls.make_contexts(config)
        self.node.reload(config)
        self._webhooks.reload(config)  # in the same step as the rules that name them
        if fixed:
            log.warning("needs a restart", sections=fixed)
        self.config = config
        self._contexts = contexts
        for listening, context in zip((self._server, self._internal), contexts, strict=True):
            if listening is not None and context is not None:
                listening.ssl = context
        self._origins = OriginCheck(config.client.allowed_origins)
        log.info("reloaded")

    def _route(self, ws: fastws.ServerConnection, request: fastws.Request) -> Any:
        if request.path.partition("?")[0] != WEBSOCKET_PATH:
            return ws.respond(404, "There is no WebSocket here.\n")
        peer, get_all = ws.remote_address, request.headers.get_all
        secure = self._contexts[0] is not None or self._addresses.is_secure(peer, get_all)
        if not self._origins.allows(request, secure=secure):
            self.node.counters.refused_origins += 1
            seldom.info(
                "origin refused",
                origin=ascii(", ".join(get_all("Origin")))[:200],
                address=self._addresses.address(peer, get_all),
            )
            return ws.respond(403, "Pages of this origin may not connect.\n")
        limits = self.node.limits
        address = self._addresses.address(peer, get_all)
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
                    self._internal_http.tick()
                    self.notifier.tick(now)
                    self.node.tick()
                    held = self.node.counters.connections + self.node.hub.subscriptions
                    self._collector.tick(held)
                if delay and now >= next_check:
                    next_check = now + delay
                    start(self.node.members.check_positions())
            except Exception:  # the heartbeat must go on
                log.exception("heartbeat failed")
            began = time.perf_counter()
            await asyncio.sleep(SWEEP_PERIOD)
            lag = time.perf_counter() - began - SWEEP_PERIOD
            self.node.counters.loop_lag.add(max(lag, 0.0))

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
        self._places.pop().close()
        self._http.finish()  # backends go to whoever listens now
        assert self.node.heartbeat is not None
        try:
            async with asyncio.timeout(self.config.shutdown.timeout):
                await self._drain()
                server.close(code=goodbye.code, reason=goodbye.reason)
                await asyncio.gather(server.wait_closed(), self._http.close())
                await self.node.farewells.finish()
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
        # Probes and metrics are there until the end.
        if self._internal is not None:
            self._internal.close()
            self._internal_http.abort()
            await self._internal.wait_closed()
            self._internal = None
        self._leave_places()
        if self.admin is not None:
            await self.admin.close()
        await self.app.close()
        await self.node.close()
        await self.node.tracing.close()
        log.info("stopped")


def _port(server: fastws.Server) -> int:
    address = server.sockets[0].getsockname()
    return int(address[1]) if isinstance(address, tuple) else 0


def _with_tls_of(old: HttpServer, new: HttpServer) -> HttpServer:
    """``old`` with the files of ``new`` where TLS is on in both: turning it on takes a restart."""
    changes: dict[str, Any] = {}
    for name in ("tls", "internal_tls"):
        if getattr(old, name).enabled and getattr(new, name).enabled:
            changes[name] = getattr(new, name)
    return structs.replace(old, **changes)
