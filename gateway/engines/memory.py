"""The engine inside the process: needs nothing, and its channels end at the process's edge."""

from __future__ import annotations

import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from itertools import islice

from gateway.channels.history import HistorySettings
from gateway.engines.base import (
    IDEMPOTENCY_TTL,
    Engine,
    Events,
    HistoryQuery,
    Once,
)
from gateway.model import ClientInfo, PresenceStats, Publication, StreamPosition
from gateway.room import Room

# A stream that lost its last publication is kept this long, so that a client that was away can
# learn that it missed something (Centrifugo's history_meta_ttl).  Seconds.
META_TTL = 720 * 3600.0

# One in which nothing was published yet, since it was last read: nobody has missed anything, and
# clients can make up any number of names. Checks of positions read those that clients are in.
EMPTY_TTL = 600.0

# From this many clients on, the users in a channel are counted as they come and go.
_MANY = 1000


_NOWHERE = StreamPosition()


class _Stream:
    """History of one channel."""

    __slots__ = ("entries", "epoch", "expires_at", "offset", "version", "version_epoch")

    def __init__(self) -> None:
        self.epoch = secrets.token_hex(4)
        self.offset = 0
        self.entries: deque[tuple[float, Publication]] = deque()  # (expires at, publication)
        self.expires_at = 0.0  # of the stream itself
        self.version = 0  # of the newest publication that had one
        self.version_epoch = ""

    @property
    def position(self) -> StreamPosition:
        return StreamPosition(self.offset, self.epoch)

    def add(
        self, publication: Publication, settings: HistorySettings, now: float, meta_ttl: float
    ) -> None:
        self.offset += 1
        publication.offset = self.offset
        publication.data = publication.data.copy()  # it may be a view of a whole client frame
        entries = self.entries
        entries.append((now + settings.ttl, publication))
        while len(entries) > settings.size:
            entries.popleft()
        self.expires_at = now + max(settings.ttl, settings.meta_ttl or meta_ttl)

    def outdates(self, once: Once) -> bool:
        """Whether a publication is older than what is here already; if not, note its version."""
        if not once.version:
            return False
        if once.version_epoch == self.version_epoch and once.version <= self.version:
            return True
        self.version, self.version_epoch = once.version, once.version_epoch
        return False

    def expire(self, now: float) -> None:
        entries = self.entries
        while entries and entries[0][0] <= now:
            entries.popleft()

    def read(self, query: HistoryQuery) -> list[Publication]:
        if query.limit == 0:
            return []
        kept: Iterable[tuple[float, Publication]] = self.entries
        if query.reverse:
            kept = reversed(self.entries)
        found = (publication for _, publication in kept)
        if query.since is not None:
            start = query.since.offset
            if query.reverse:
                found = (publication for publication in found if publication.offset < start)
            else:
                found = (publication for publication in found if publication.offset > start)
        return list(found if query.limit < 0 else islice(found, query.limit))


class MemoryEngine(Engine):
    """Answers everything at once, so no operation ever waits.

    ``clock`` gives seconds that never go back; tests pass their own. ``meta_ttl`` is the time in
    seconds for which a channel's position is known after its last publication, where its settings
    do not say another.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, meta_ttl: float = META_TTL
    ) -> None:
        self.immediate = self
        self._clock = clock
        self._meta_ttl = meta_ttl
        self._events: Events | None = None
        self._presence: dict[str, dict[str, ClientInfo]] = {}
        self._users: dict[str, Counter[str]] = {}  # clients by user, of channels with many
        self._streams: dict[str, _Stream] = {}
        self._expiries: list[tuple[float, str]] = []  # heap of (look again at, channel)
        self._presence_room, self._streams_room = Room(), Room()
        self._made: dict[tuple[str, str], tuple[float, StreamPosition]] = {}  # oldest first

    async def start(self, events: Events) -> None:
        self._events = events

    async def close(self) -> None:
        self._events = None
        self._presence.clear()
        self._users.clear()
        self._streams.clear()
        self._expiries.clear()
        self._made.clear()

    def tick(self) -> None:
        self.expire(self._clock())
        self._presence = self._presence_room.refit(self._presence)
        self._streams = self._streams_room.refit(self._streams)

    # -- broker: the only node is this one, and its hub knows who subscribed

    async def publish(
        self,
        channel: str,
        publication: Publication,
        history: HistorySettings | None,
        once: Once | None = None,
    ) -> StreamPosition:
        return self.publish_now(channel, publication, history, once)

    def publish_now(
        self,
        channel: str,
        publication: Publication,
        history: HistorySettings | None,
        once: Once | None = None,
    ) -> StreamPosition:
        if once is not None:
            made = self._made.get((channel, once.key)) if once.key else None
            if made is not None and self._clock() < made[0]:
                return made[1]
        position = _NOWHERE
        if history is not None:
            stream = self._stream(channel, history)
            if once is not None and stream.outdates(once):
                return stream.position
            stream.add(publication, history, self._clock(), self._meta_ttl)
            position = stream.position
        if once is not None and once.key:
            self._made.pop((channel, once.key), None)  # an old one, which is to go to the end
            self._made[channel, once.key] = (self._clock() + IDEMPOTENCY_TTL, position)
        if self._events is not None:
            self._events.on_publication(channel, publication, position.epoch)
        publication.delta = False
        return position

    async def publish_join(self, channel: str, info: ClientInfo) -> None:
        if self._events is not None:
            self._events.on_join(channel, info)

    async def publish_leave(self, channel: str, info: ClientInfo) -> None:
        if self._events is not None:
            self._events.on_leave(channel, info)

    async def subscribe(self, channel: str) -> None:
        pass

    async def unsubscribe(self, channel: str) -> None:
        pass

    # -- presence

    async def presence_add(self, channel: str, info: ClientInfo) -> None:
        self.presence_add_now(channel, info)

    def presence_add_now(self, channel: str, info: ClientInfo) -> None:
        present = self._presence.get(channel)
        if present is None:
            self._presence[channel] = {info.client: info}
            return
        if self._users and channel in self._users and info.client not in present:
            self._users[channel][info.user] += 1
        present[info.client] = info

    async def presence_remove(self, channel: str, info: ClientInfo) -> None:
        self.presence_remove_now(channel, info)

    def presence_remove_now(self, channel: str, info: ClientInfo) -> None:
        present = self._presence.get(channel)
        if present is None:
            return
        known = present.pop(info.client, None)
        if not present:
            del self._presence[channel]
        if self._users and known is not None and channel in self._users:
            users = self._users[channel]
            users[known.user] -= 1
            if not users[known.user]:
                del users[known.user]
            if len(present) < _MANY // 2:
                del self._users[channel]

    async def presence(self, channel: str) -> dict[str, ClientInfo]:
        return dict(self._presence.get(channel, ()))

    async def presence_stats(self, channel: str) -> PresenceStats:
        present = self._presence.get(channel, {})
        if len(present) < _MANY:
            return PresenceStats(len(present), len({info.user for info in present.values()}))
        users = self._users.get(channel)
        if users is None:
            users = Counter(info.user for info in present.values())
            self._users[channel] = users
        return PresenceStats(len(present), len(users))

    # -- history

    def _stream(self, channel: str, settings: HistorySettings) -> _Stream:
        """The stream of a channel in which something is to be kept."""
        stream = self._streams.get(channel)
        if stream is None:
            stream = self._streams[channel] = _Stream()
            heappush(self._expiries, (self._clock() + settings.ttl, channel))
        return stream

    async def history(
        self, channel: str, query: HistoryQuery, settings: HistorySettings
    ) -> tuple[list[Publication], StreamPosition]:
        now = self._clock()
        stream = self._streams.get(channel)
        if stream is None:  # give it an epoch now: who reads it twice sees the same one
            stream = self._streams[channel] = _Stream()
            heappush(self._expiries, (now + EMPTY_TTL, channel))
        if not stream.offset:
            stream.expires_at = now + EMPTY_TTL
        stream.expire(now)
        return stream.read(query), stream.position

    async def history_remove(self, channel: str) -> None:
        stream = self._streams.get(channel)
        if stream is not None:
            stream.entries.clear()

    def expire(self, now: float) -> None:
        """Forget what is too old.

        A channel is in the heap once, so that the work is by what is due.
        """
        made = self._made
        while made and next(iter(made.values()))[0] <= now:
            del made[next(iter(made))]
        expiries = self._expiries
        while expiries and expiries[0][0] <= now:
            _, channel = heappop(expiries)
            stream = self._streams[channel]
            stream.expire(now)
            if stream.entries:
                heappush(expiries, (stream.entries[-1][0], channel))
            elif now < stream.expires_at:
                heappush(expiries, (stream.expires_at, channel))
            else:
                del self._streams[channel]
