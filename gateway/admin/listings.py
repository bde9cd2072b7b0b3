"""What the admin page shows of channels and clients: always a page of a list, never all of it.

A search looks at every channel or client, so it goes through them in turns of the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from msgspec import Raw, Struct, UnsetType

from gateway import codes
from gateway.api.methods import connection_info
from gateway.codes import Refused
from gateway.engines import HistoryQuery
from gateway.hub import Channel
from gateway.model import ClientInfo, Publication, StreamPosition
from gateway.session import Session

if TYPE_CHECKING:
    from gateway.node import Node

MAX_LIMIT = 100  # rows of a page
MAX_OFFSET = 1000  # beyond that, one searches

# Looked at in one turn of the loop: some hundred microseconds of work.
_AT_ONCE = 500
# Characters of a payload that are shown.
_SHOWN = 16384
_CHANNELS_OF_CLIENT = 200

T = TypeVar("T")


class ChannelRow(Struct):
    name: str
    subscribers: int


class ChannelRows(Struct):
    """``total``: channels that match; ``all``: channels."""

    rows: list[ChannelRow]
    total: int
    all: int


class ClientRow(Struct):
    """``since`` is Unix time, ``idle`` seconds since it was last heard, ``queued`` bytes."""

    client: str
    user: str
    address: str
    transport: str
    protocol: str
    channels: int
    since: float
    idle: float
    queued: int


class ClientRows(Struct):
    """``blocked``: whether the very user that was searched for is."""

    rows: list[ClientRow]
    total: int
    all: int
    blocked: bool


class ClientChannel(Struct):
    name: str
    server_side: bool
    slow: bool  # publications wait for it


class ClientPage(Struct):
    row: ClientRow
    channels: list[ClientChannel]
    blocked: bool
    of_user: int  # connections of this user
    expire_at: float
    info: str | None
    meta: str | None
    token: str


class Member(Struct):
    client: str
    user: str
    info: str | None


class ChannelPage(Struct):
    """``kept``: publications that history may have; ``members`` are ``total`` in all."""

    name: str
    subscribers: int
    presence: bool
    kept: int
    history_ttl: float
    members: list[Member]
    total: int


class PublicationRow(Struct):
    """``data`` is JSON as it was published, cut if there are more than ``size`` characters."""

    offset: int
    data: str
    size: int
    client: str
    user: str
    tags: dict[str, str] | None


class HistoryPage(Struct):
    rows: list[PublicationRow]
    offset: int
    epoch: str


async def _in_turns(items: Sequence[T]) -> AsyncIterator[Sequence[T]]:
    for begin in range(0, len(items), _AT_ONCE):
        if begin:
            await asyncio.sleep(0)
        yield items[begin : begin + _AT_ONCE]


class Listings:
    """Reads a node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def channels(self, search: str, offset: int, limit: int) -> ChannelRows:
        """Channels with this in their names, the fullest first."""
        wanted = search.casefold()
        channels = list(self._node.hub.channels.values())
        best: list[tuple[int, str]] = []
        total = everything = 0
        async for some in _in_turns(channels):
            found = [(count, each.name) for each in some if (count := each.num_subscribers)]
            everything += len(found)
            if wanted:
                found = [row for row in found if wanted in row[1].casefold()]
            total += len(found)
            best = sorted(best + [(-count, name) for count, name in found])[: offset + limit]
        rows = [ChannelRow(name, -count) for count, name in best[offset:]]
        return ChannelRows(rows, total, everything)

    async def clients(self, search: str, offset: int, limit: int) -> ClientRows:
        """Clients of users with this in their names, or of this client id or address.

        Those of the very user come first, and of others the newest.
        """
        node = self._node
        if not search:
            everyone = len(node.clients)
            # Only the newest are looked at: a dict can be read from its end.
            newest = list(islice(reversed(node.clients), offset, offset + limit))
            return ClientRows([self.row(each) for each in newest], everyone, everyone, False)
        exact = list(node.clients.select("", search)) or list(node.clients.of_user(search))
        found, total = exact[offset : offset + limit], len(exact)
        wanted = search.casefold()
        async for some in _in_turns(list(reversed(node.clients))):
            for each in some:
                if each.user == search or each.id == search:
                    continue
                if wanted in each.user.casefold() or each.address == search:
                    if offset <= total < offset + limit:
                        found.append(each)
                    total += 1
        rows = [self.row(each) for each in found if not each.ended]
        blocked = node.revocations.is_blocked(search)
        return ClientRows(rows, total, len(node.clients), blocked)

    def row(self, session: Session) -> ClientRow:
        """A client in a list."""
        node = self._node
        known, now = connection_info(session), node.clock()
        since, heard = now, now
        if node.heartbeat is not None:
            since, heard = node.heartbeat.times_of(session)
        return ClientRow(
            session.id,
            session.user,
            session.address,
            known.transport,
            known.protocol,
            len(session.subscriptions),
            node.wall() - (now - since),
            max(0.0, now - max(since, heard)),
            getattr(session.transport, "buffered_amount", 0),
        )

    def client(self, name: str) -> ClientPage | None:
        """All that is known of a client."""
        session = self._node.clients.get(name)
        if session is None:
            return None
        assert session.info is not None, "the client has connected"
        known = session.credentials
        return ClientPage(
            self.row(session),
            [
                ClientChannel(
                    each.channel.name,
                    each.server_side,
                    session.transport in (each.channel.lagging or ()),
                )
                for each in session.subscriptions[:_CHANNELS_OF_CLIENT]
            ],
            self._node.revocations.is_blocked(session.user),
            self._node.clients.count(session.user),
            session.expire_at,
            _text(session.info.conn_info),
            _text(known.meta) if known is not None else None,
            known.token_id if known is not None else "",
        )

    async def channel(self, name: str, offset: int, limit: int) -> ChannelPage:
        """A channel and a page of who is in it: on all nodes where presence tells, else here.

        Raises `Refused`: 102 no such namespace, 107 bad name, 100 engine.
        """
        node = self._node
        options = node.rules.find(name)
        here = node.hub.channels.get(name)
        subscribers = here.num_subscribers if here is not None else 0
        members, total, presence = _subscribers(here), subscribers, False
        if options.presence:
            try:
                present = await node.presence(name)
            except Refused as refusal:
                if refusal.error != codes.LIMIT_EXCEEDED:  # more are in it than may be asked for
                    raise
            else:
                members, total, presence = present.values(), len(present), True
        return ChannelPage(
            name,
            subscribers,
            presence,
            options.history_size if options.history_ttl else 0,
            options.history_ttl,
            [
                Member(each.client, each.user, _text(each.conn_info))
                for each in islice(members, offset, offset + limit)
            ],
            total,
        )

    async def history(self, name: str, before: int, epoch: str, limit: int) -> HistoryPage:
        """Publications of a channel, the newest first, before an offset unless it is 0.

        Raises `Refused`: 102, 107, 108 history is off, 112 the epoch is another, 100 engine.
        """
        since = StreamPosition(before, epoch) if before else None
        publications, top = await self._node.history(name, HistoryQuery(limit, since, True))
        return HistoryPage([_publication(each) for each in publications], top.offset, top.epoch)


def _subscribers(channel: Channel | None) -> Iterable[ClientInfo]:
    """Who is in a channel through this process."""
    if channel is None:
        return
    for audience in channel.subscribers:
        for subscription in audience.members.values():
            yield subscription.info
    for subscription, _ in channel.newcomers:
        yield subscription.info
    for lag in (channel.lagging or {}).values():
        yield lag.subscription.info


def _publication(publication: Publication) -> PublicationRow:
    data = bytes(publication.data).decode("utf-8", "replace")
    info = publication.info
    return PublicationRow(
        publication.offset,
        data[:_SHOWN],
        len(data),
        info.client if info is not None else "",
        info.user if info is not None else "",
        publication.tags,
    )


def _text(raw: Raw | UnsetType) -> str | None:
    if isinstance(raw, UnsetType):
        return None
    return bytes(raw).decode("utf-8", "replace")[:_SHOWN]


def no_such(what: str) -> Refused:
    """What is asked for is not there."""
    return Refused(codes.Error(codes.NOT_AVAILABLE.code, f"no such {what}"))
