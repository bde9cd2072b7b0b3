"""The operations of the gateway. Every door (client protocols now, the HTTP API later) calls these.

Operations of one session never run beside each other: its protocol takes the commands one by one.
`leave` may come while one of them waits for the engine, so each looks at ``session.ended`` after a
wait.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable

import structlog
from msgspec import UNSET, Raw, UnsetType

from gateway import codes
from gateway.codes import Disconnect, Disconnected, Refused
from gateway.config import ChannelOptions, Config
from gateway.engines import Engine, HistoryQuery, HistorySettings
from gateway.heartbeat import Heartbeat
from gateway.hub import Channel, Hub
from gateway.metrics import Counters
from gateway.model import ClientInfo, PresenceStats, Publication, StreamPosition
from gateway.session import Session
from gateway.stepping import start
from gateway.transports.base import GONE, Transport

# Close codes of clients that are worth a label of their own: one for each code that a client can
# think up would let it fill our metrics.
_CLIENT_CLOSE_CODES = frozenset((1000, 1001, 1002, 1005, 1006, 1007, 1009, 1011))

# Clients closed before others get their turn: about a millisecond of work.
_AT_ONCE = 100

log = structlog.get_logger("gateway.node")


class Node:
    """One gateway process: its hub, its engine and its clients."""

    def __init__(
        self,
        config: Config,
        engine: Engine,
        hub: Hub | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.engine = engine
        self.hub = hub if hub is not None else Hub()
        self.counters = Counters()
        self.heartbeat: Heartbeat | None = None  # comes with the listening server
        self._clock = clock

    async def start(self) -> None:
        await self.engine.start(self.hub)

    async def close(self) -> None:
        await self.engine.close()

    def options(self, channel: str) -> ChannelOptions:
        """How a channel behaves."""
        return self.config.channel.without_namespace

    # -- the life of a client

    def open(self, session: Session, transport: Transport, slot: int) -> None:
        """A transport has opened: the client has some seconds to connect."""
        session.transport = transport
        session.slot = slot
        self.counters.connections += 1
        if self.heartbeat is not None:
            self.heartbeat.open(session, self._clock())

    def connect(self, session: Session, data: Raw | UnsetType = UNSET) -> ClientInfo:
        """Let a client in. In dev mode that is anyone, and ``data`` becomes its ``conn_info``.

        Raises `Disconnected` (3501) when it is in already.
        """
        if session.info is not None:
            raise Disconnected(codes.INVALID_REQUEST, "client has connected already")
        info = data.copy() if isinstance(data, Raw) and bytes(data) != b"null" else UNSET
        session.info = ClientInfo(_new_client_id(), "", info)
        self.counters.sessions += 1
        if self.heartbeat is not None:
            self.heartbeat.begin(session, self._clock())
        return session.info

    def disconnect(self, session: Session, disconnect: Disconnect) -> None:
        """Close a client's connection. It is out of all channels at once."""
        if not session.ended:
            left = self._end(session, str(disconnect.code))
            session.transport.close(disconnect.code, disconnect.reason)
            start(self._left_all(session, left))

    async def disconnect_all(self, sessions: Iterable[Session], disconnect: Disconnect) -> None:
        """Close many at once, without stopping the loop for long.

        All are out of their channels before the first leave is told, so they do not hear of each
        other.
        """
        ended = []
        for number, session in enumerate(sessions):
            if not session.ended:
                ended.append((session, self._end(session, str(disconnect.code))))
                session.transport.close(disconnect.code, disconnect.reason)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        for number, (session, left) in enumerate(ended):
            await self._left_all(session, left)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)

    def leave(self, session: Session, code: int) -> None:
        """The transport has closed, with this close code."""
        self.counters.connections -= 1
        if self.heartbeat is not None:
            self.heartbeat.close(session)
        if not session.ended:
            left = self._end(session, str(code) if code in _CLIENT_CLOSE_CODES else "other")
            start(self._left_all(session, left))
        session.transport = GONE  # they refer to each other: do not leave it to the collector

    def _end(self, session: Session, code: str) -> list[tuple[Channel, bool]]:
        """Nothing is sent to the session from now on. What it left is still to be told."""
        log.debug("client ended", client=session.id, code=code)
        session.ended = True
        self.counters.disconnects[code] += 1
        if session.info is not None:
            self.counters.sessions -= 1
        session.inbox = None  # a command that waits finds out when it goes on
        return [(channel, self._remove(channel, session)) for channel in session.channels]

    async def _left_all(self, session: Session, left: list[tuple[Channel, bool]]) -> None:
        for channel, emptied in left:
            try:
                await self._left(channel, session, emptied=emptied)
            except OSError as error:
                log.warning("engine failed", client=session.id, error=str(error))

    # -- subscriptions

    async def subscribe(self, session: Session, name: str, *, join_leave: bool = False) -> Channel:
        """Let a session have what is published in a channel.

        With ``join_leave`` it also learns who comes and goes. When it returns, publications may
        follow at once. `joined` is the second half, to be called when the client has been told.
        Raises `Refused`: 105 subscribed already, 106 too many channels, 107 bad name, 100 engine.
        """
        self._check_name(name)
        known = self.hub.channels.get(name)
        if known is not None and known in session.channels:
            raise Refused(codes.ALREADY_SUBSCRIBED)
        limit = self.config.client.channel_limit
        if limit and len(session.channels) >= limit:
            raise Refused(codes.LIMIT_EXCEEDED)
        options = self.options(name)
        channel = self.hub.reserve(name)
        subscribed = False
        try:
            if not channel.live:
                await self.engine.subscribe(name)
                channel.live = True
            if options.presence:
                await self.engine.presence_add(name, _info(session))
            if session.ended:
                raise Refused(codes.EXPIRED)  # nobody is there to read it
            self.hub.add(channel, session, join_leave=join_leave and options.join_leave)
            subscribed = True
        finally:
            if not subscribed:
                await self._forget(channel, session, options)
        return channel

    async def joined(self, session: Session, channel: Channel) -> None:
        """Tell who wants to know, the newcomer included, that a session is in a channel."""
        if self.options(channel.name).join_leave:
            await self.engine.publish_join(channel.name, _info(session))

    async def unsubscribe(self, session: Session, name: str) -> None:
        """Take a session out of a channel. Being out already is no error."""
        channel = self.hub.channels.get(name)
        if channel is not None and channel in session.channels:
            emptied = self._remove(channel, session)
            await self._left(channel, session, emptied=emptied)

    def _remove(self, channel: Channel, session: Session) -> bool:
        self.hub.remove(channel, session)
        return self.hub.release(channel)

    async def _left(self, channel: Channel, session: Session, *, emptied: bool) -> None:
        """Tell the engine that a session is out of a channel, and whether this node is too."""
        options = self.options(channel.name)
        info = _info(session)
        if emptied and channel.name not in self.hub.channels:
            await self.engine.unsubscribe(channel.name)
        if options.presence:
            await self.engine.presence_remove(channel.name, info)
        if options.join_leave:
            await self.engine.publish_leave(channel.name, info)

    async def _forget(self, channel: Channel, session: Session, options: ChannelOptions) -> None:
        """Undo the first steps of a subscription that failed."""
        if self.hub.release(channel) and channel.live:
            await self.engine.unsubscribe(channel.name)
        if options.presence:
            await self.engine.presence_remove(channel.name, _info(session))

    # -- messages

    async def publish(self, name: str, data: Raw, info: ClientInfo | None = None) -> StreamPosition:
        """Publish valid JSON in a channel, as a client (``info``) or on the gateway's own account.

        Raises `Refused`: 107 bad name, 100 engine.
        """
        self._check_name(name)
        self.counters.publications += 1
        return await self.engine.publish(name, Publication(data, info), self._history(name))

    async def presence(self, name: str) -> dict[str, ClientInfo]:
        """Who is in a channel, by client id. Raises `Refused` (108) where presence is off."""
        self._check_name(name)
        if not self.options(name).presence:
            raise Refused(codes.NOT_AVAILABLE)
        return await self.engine.presence(name)

    async def presence_stats(self, name: str) -> PresenceStats:
        """How many are in a channel. Raises `Refused` (108) where presence is off."""
        self._check_name(name)
        if not self.options(name).presence:
            raise Refused(codes.NOT_AVAILABLE)
        return await self.engine.presence_stats(name)

    async def history(
        self, name: str, query: HistoryQuery
    ) -> tuple[list[Publication], StreamPosition]:
        """Publications that a channel keeps, and its newest position.

        Raises `Refused`: 108 where history is off, 112 when ``query.since`` is of another epoch.
        """
        self._check_name(name)
        settings = self._history(name)
        if settings is None:
            raise Refused(codes.NOT_AVAILABLE)
        most = self.config.client.history_max_publication_limit
        if most and not 0 <= query.limit <= most:
            query = HistoryQuery(most, query.since, query.reverse)
        publications, position = await self.engine.history(name, query, settings)
        since = query.since
        if since is not None and since.epoch and since.epoch != position.epoch:
            raise Refused(codes.UNRECOVERABLE_POSITION)
        return publications, position

    def _history(self, name: str) -> HistorySettings | None:
        options = self.options(name)
        if options.history_size and options.history_ttl:
            return HistorySettings(options.history_size, options.history_ttl)
        return None

    def _check_name(self, name: str) -> None:
        length = len(name) if name.isascii() else len(name.encode())
        if length > self.config.channel.max_length:
            raise Refused(codes.BAD_REQUEST)


def _new_client_id() -> str:
    """A random UUID (RFC 9562 5.4), at half the cost of `uuid.uuid4`."""
    bits = int.from_bytes(os.urandom(16)) & ~(0xF << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _info(session: Session) -> ClientInfo:
    assert session.info is not None, "the protocol lets nothing but connect come first"
    return session.info
