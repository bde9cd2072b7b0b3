"""The operations of the gateway. Every door (client protocols, the HTTP API) calls these."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import structlog
from msgspec import Raw, UnsetType

from gateway import codes
from gateway.administration import Administration
from gateway.admission import Admission
from gateway.app import App, NoApp
from gateway.app.calls import AppCalls
from gateway.app.farewells import Farewells
from gateway.app.methods import MethodRules
from gateway.auth import (
    Revocations,
    TokenVerifier,
)
from gateway.channels import ChannelRules
from gateway.channels.history import history_settings
from gateway.clients import Clients
from gateway.codes import Disconnect, Refused
from gateway.config import ChannelOptions, Config
from gateway.engines import Engine, HistoryQuery, Once
from gateway.heartbeat import Heartbeat
from gateway.hub import Hub
from gateway.ids import new_id
from gateway.limits import Limits
from gateway.membership import Membership
from gateway.metrics import Counters
from gateway.model import (
    ClientInfo,
    PresenceStats,
    Publication,
    StreamPosition,
)
from gateway.session import Session, Subscription
from gateway.stepping import start
from gateway.tracing import Tracing
from gateway.transports.base import GONE, Transport

# Close codes of clients that are worth a label of their own: one for each code that a client can
# think up would let it fill our metrics.
_CLIENT_CLOSE_CODES = frozenset((1000, 1001, 1002, 1005, 1006, 1007, 1009, 1011))

# Clients closed before others get their turn: about a millisecond of work.
_AT_ONCE = 100

_T = TypeVar("_T")

log = structlog.get_logger("gateway.node")


class Node:
    """One gateway process: its hub, its engine and its clients.

    `Membership` has the operations on subscriptions, `Admission` those of a client's coming and
    staying, `Administration` those that only a backend has.

    ``clock`` is monotonic, ``wall`` gives Unix time. ``app`` is asked where the configuration says
    so. Raises `ConfigError` for unusable keys.
    """

    def __init__(
        self,
        config: Config,
        engine: Engine,
        hub: Hub | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        app: App | None = None,
    ) -> None:
        self.config = config
        self.engine = engine
        self.hub = hub if hub is not None else Hub()
        self.clients = Clients()
        self.counters = Counters()
        self.tracing = Tracing()
        self.heartbeat: Heartbeat | None = None  # comes with the listening server
        self.limits = Limits(config.client)
        application = app if app is not None else NoApp()
        self.app = AppCalls(application)
        self.farewells = Farewells(application, application.disconnect_rate, clock, wall)
        self.revocations = Revocations(wall)
        self.uid = new_id()
        self.started_at = clock()
        self.clock = clock
        self.wall = wall
        self.rules = ChannelRules(config, self.limits.reach)
        self.methods = MethodRules(config.rpc)
        self.tokens, self.subscription_tokens = self._verifiers(config)
        self.admission = Admission(self)
        self.administration = Administration(self)
        self.members = Membership(
            config,
            engine,
            self.hub,
            self.rules,
            self.subscription_tokens,
            self.app,
            disconnect=self.disconnect,
            schedule=self.admission.schedule,
            on_limit=self.limits.reach,
            clock=wall,
        )
        self.hub.transport_of = self._transport_of

    def _verifiers(self, config: Config) -> tuple[TokenVerifier, TokenVerifier]:
        """Of connection tokens and of subscription tokens. Raises `ConfigError`."""
        client, wall = config.client, self.wall
        tokens = TokenVerifier(client.token, "client.token", self.revocations, wall)
        if not client.subscription_token.enabled:
            return tokens, tokens
        own = client.subscription_token
        return tokens, TokenVerifier(own, "client.subscription_token", self.revocations, wall)

    def reload(self, config: Config) -> None:
        """Take what can change while clients are connected: keys, channels, limits.

        Subscriptions keep the terms on which they were allowed. Raises `ConfigError`, and then
        nothing has changed.
        """
        tokens, subscription_tokens = self._verifiers(config)
        self.config = config
        self.tokens, self.subscription_tokens = tokens, subscription_tokens
        self.rules = ChannelRules(config, self.limits.reach)
        self.methods = MethodRules(config.rpc)
        self.limits.reload(config.client)
        self.members.reload(config, self.rules, subscription_tokens)

    async def start(self) -> None:
        await self.engine.start(self.hub)

    async def close(self) -> None:
        self.farewells.close()
        await self.engine.close()

    def tick(self) -> None:
        """Called about once a second."""
        self.engine.tick()
        if self.hub.tick():
            self.rules.forget()
        self.revocations.expire()
        self.limits.tick(self.clock())
        if self.heartbeat is not None:
            self.heartbeat.sweep_expired(self.clock())

    # -- a client comes and goes; what is between is for `Admission`

    def open(self, session: Session, transport: Transport, slot: int) -> None:
        """A transport has opened: the client has some seconds to connect."""
        session.transport = transport
        session.slot = slot
        self.counters.connections += 1
        if session.address:
            self.limits.opened(session.address)
        if self.heartbeat is not None:
            self.heartbeat.open(session, self.clock())

    def disconnect(self, session: Session, disconnect: Disconnect) -> None:
        """Close a client's connection. It is out of all channels at once."""
        if not session.ended:
            start(self.members.left(self._close(session, disconnect)))

    async def disconnect_all(self, sessions: Iterable[Session], disconnect: Disconnect) -> None:
        """Close many at once, without stopping the loop for long.

        All are out of their channels before the first leave is told, so they do not hear of each
        other.
        """
        ended = []
        for number, session in enumerate(sessions):
            if not session.ended:
                ended.append(self._close(session, disconnect))
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        for number, left in enumerate(ended):
            await self.members.left(left)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)

    def leave(self, session: Session, code: int, reason: str | None = None) -> None:
        """The transport has closed, with this close code; ``reason`` if it was not the client."""
        self.counters.connections -= 1
        if session.address:
            self.limits.closed(session.address)
        if self.heartbeat is not None:
            self.heartbeat.close(session)
        if not session.ended:
            left = self._end(session, code, reason)
            start(self.members.left(left))
        session.transport = GONE  # they refer to each other: do not leave it to the collector

    def _close(self, session: Session, disconnect: Disconnect) -> list[tuple[Subscription, bool]]:
        """Say goodbye, whatever is wrong with the words. What the session left is still to tell."""
        if not disconnect.can_be_sent:
            log.error("no close frame can say this", client=session.id, disconnect=repr(disconnect))
            disconnect = codes.SERVER_ERROR
        left = self._end(session, disconnect.code, disconnect.reason)
        try:
            session.transport.close(disconnect.code, disconnect.reason)
        except Exception:
            log.exception("close failed", client=session.id)
        return left

    def _end(
        self, session: Session, code: int, reason: str | None = None
    ) -> list[tuple[Subscription, bool]]:
        """Nothing is sent to the session from now on. What it left is still to be told.

        ``reason``: ours; ``None`` if the client has left, or is lost.
        """
        log.debug("client ended", client=session.id, address=session.address, code=code)
        session.ended = True
        known = reason is not None or code in _CLIENT_CLOSE_CODES
        self.counters.disconnects[str(code) if known else "other"] += 1
        if session.info is not None:
            self.farewells.tell(session, code, reason or "")
            self.counters.sessions -= 1
            self.clients.remove(session)
        session.inbox = None  # a command that waits finds out when it goes on
        return [(each, self.members.remove(each)) for each in session.subscriptions]

    # -- messages

    async def publish(
        self,
        name: str,
        data: Raw,
        session: Session | None = None,
        *,
        tags: dict[str, str] | None = None,
        skip_history: bool = False,
        once: Once | None = None,
        delta: bool = False,
    ) -> StreamPosition:
        """Publish valid JSON in a channel, as a client or on the backend's account.

        ``tags`` are for filters of subscribers. With ``delta`` those who can take it get what
        changed since the last publication, where that is shorter. Raises `Refused`: 102 no such
        namespace, 103 not allowed, 107 bad name or data, 100 engine.
        """
        info = None
        if session is None:
            options = self.rules.find(name)
        else:
            options = self.rules.check(name)
            info = session.info
            if options.publish_proxy_enabled:
                approved = await self.app.publish(session, name, data, options)
                data, tags, skip_history, once, delta = approved
            subscription = None
            if session.subscriptions:
                subscription = session.find(self.hub.channels.get(name))
                if subscription is not None:
                    info = subscription.info
            if not options.publish_proxy_enabled and not self.rules.may_publish(
                options, session.user, subscription is not None
            ):
                raise Refused(codes.PERMISSION_DENIED)
        if options.publication_data_format == "json_object" and bytes(data).lstrip()[:1] != b"{":
            raise Refused(codes.BAD_REQUEST)
        self.counters.publications += 1
        history = None if skip_history else history_settings(options)
        publication = Publication(data, info, 0, tags, delta or options.delta_publish)
        engine = self.engine.immediate
        if engine is not None:
            return engine.publish_now(name, publication, history, once)
        return await self.engine.publish(name, publication, history, once)

    def publish_at_once(self, session: Session, name: str, data: Raw) -> bool:
        """`publish` for a client, if nothing has to be waited for.

        False, with nothing done, where `publish` is to be awaited, which may refuse. Raises
        `Refused`: 102, 107.
        """
        engine = self.engine.immediate
        if engine is None:
            return False
        offer = self.rules.offers.get(name) or self.rules.offer(name)
        info = session.info
        assert info is not None, "the client has connected"
        may = offer.publish
        if session.subscriptions:
            subscription = session.find(self.hub.channels.get(name))
            if subscription is not None:
                info = subscription.info
                may = offer.publish_inside
        if not may[info.user != ""]:
            return False
        self.counters.publications += 1
        publication = Publication(data, info, 0, None, offer.delta_publish)
        engine.publish_now(name, publication, offer.history)
        return True

    def _transport_of(self, client: str) -> Transport:
        session = self.clients.get(client)
        return session.transport if session is not None else GONE

    async def rpc(self, session: Session, method: str, data: Raw | UnsetType) -> Raw | UnsetType:
        """Ask the application. Raises `Refused`: 104 when there is none, or what it says."""
        return await self.app.rpc(session, method, data, self.methods.proxy(method))

    def send(self, session: Session, data: Raw) -> None:
        """Send a message to one client, outside of any channel."""
        session.transport.send(session.endpoint.protocol.message(data), True)

    # -- what a channel knows

    def _readable(
        self,
        name: str,
        session: Session | None,
        may: Callable[[ChannelOptions, str, bool], bool],
        offered: Callable[[ChannelOptions], _T],
    ) -> _T:
        """What a channel offers, to one who may have it. Raises `Refused`."""
        options = self.rules.find(name) if session is None else self.rules.check(name)
        offer = offered(options)
        if not offer:
            raise Refused(codes.NOT_AVAILABLE)
        if session is not None:
            subscribed = session.find(self.hub.channels.get(name)) is not None
            if not may(options, session.user, subscribed):
                raise Refused(codes.PERMISSION_DENIED)
        return offer

    async def presence(self, name: str, session: Session | None = None) -> dict[str, ClientInfo]:
        """Who is in a channel, by client id, for a client or the backend.

        Raises `Refused`: 102, 103 not allowed, 106 more than ``channel.presence_max_clients`` are
        in it, 107, 108 presence is off, 100 engine.
        """
        self._readable(name, session, self.rules.may_see_presence, _presence)
        most = self.config.channel.presence_max_clients
        if most and (await self.engine.presence_stats(name)).num_clients > most:
            self.limits.reach("presence_max_clients")
            raise Refused(codes.LIMIT_EXCEEDED)
        return await self.engine.presence(name)

    async def presence_stats(self, name: str, session: Session | None = None) -> PresenceStats:
        """How many are in a channel. Raises as `presence`."""
        self._readable(name, session, self.rules.may_see_presence, _presence)
        return await self.engine.presence_stats(name)

    async def history(
        self, name: str, query: HistoryQuery, session: Session | None = None
    ) -> tuple[list[Publication], StreamPosition]:
        """Publications that a channel keeps, and its newest position.

        Raises `Refused`: 102, 103 not allowed, 107 bad name, or back from before the first, 108
        where history is off, 112 when ``query.since`` is of another epoch, 100 engine.
        """
        settings = self._readable(name, session, self.rules.may_see_history, history_settings)
        assert settings is not None
        if query.reverse and query.since is not None and not query.since.offset:
            raise Refused(codes.BAD_REQUEST)  # nothing is before it
        most = self.config.client.history_max_publication_limit
        bounded = session is not None and most > 0 and not 0 <= query.limit <= most
        if bounded:
            query = HistoryQuery(most, query.since, query.reverse)
        publications, position = await self.engine.history(name, query, settings)
        if bounded and len(publications) == most:
            self.limits.reach("history_max_publication_limit")
        since = query.since
        if since is not None and since.epoch and since.epoch != position.epoch:
            raise Refused(codes.UNRECOVERABLE_POSITION)
        return publications, position

    async def history_remove(self, name: str) -> None:
        """Forget what a channel keeps. Raises `Refused`: 102, 107, 108, 100."""
        self._readable(name, None, self.rules.may_see_history, history_settings)
        await self.engine.history_remove(name)


def _presence(options: ChannelOptions) -> bool:
    return options.presence
