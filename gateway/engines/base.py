"""What the gateway asks of an engine: broker, history and presence.

A node talks to the other nodes only through its engine. What one of them publishes comes back to
every node that subscribed to the channel, the publishing one included, through `Events`.

All operations are coroutines. An engine that can answer at once should: the node runs an operation
up to its first wait without a task (`gateway.stepping`), so an engine that never waits costs no
task per command. The same fact binds the others: before its first wait an operation may not ask for
the current task, so one that uses `asyncio.timeout` or a library that does, must await a task of
its own.

An operation raises `OSError` (or a subclass, such as `ConnectionError` or `TimeoutError`) when
the engine cannot be reached; clients are then told 100, temporary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from msgspec import Struct

from gateway.channels.history import HistorySettings
from gateway.model import ClientInfo, PresenceStats, Publication, StreamPosition


class HistoryQuery(Struct, frozen=True):
    """Which publications to read: those after ``since``, or before it with ``reverse``.

    ``limit`` 0 reads none, only the position; -1 reads all. Without ``since`` it starts
    at the oldest, or with ``reverse`` at the newest.
    """

    limit: int = 0
    since: StreamPosition | None = None
    reverse: bool = False


class Once(Struct, frozen=True):
    """What keeps a publication from being made twice.

    ``key``: a publication in this channel with the same key, within `IDEMPOTENCY_TTL`, is not made
    again; the first one's position is returned. ``version``: one whose version is not above that of
    the newest in the history, within the same ``version_epoch``, is not made; 0 is no version.
    """

    key: str = ""
    version: int = 0
    version_epoch: str = ""


IDEMPOTENCY_TTL = 300.0  # seconds


class Events(Protocol):
    """What an engine tells the node: called in its loop, in the channel's order, never raising."""

    def on_publication(self, channel: str, publication: Publication, epoch: str) -> None:
        """``epoch`` is that of ``publication.offset``; empty when it is not kept."""

    def on_join(self, channel: str, info: ClientInfo) -> None: ...

    def on_leave(self, channel: str, info: ClientInfo) -> None: ...


class Immediate(Protocol):
    """Operations of an engine that never waits, because this node is the only one.

    They are those of `Engine`, as plain functions. Nobody else subscribes or watches: the node need
    not tell such an engine of subscriptions, nor of who comes and goes where nobody here is told.
    """

    def publish_now(
        self,
        channel: str,
        publication: Publication,
        history: HistorySettings | None,
        once: Once | None = None,
    ) -> StreamPosition: ...

    def presence_add_now(self, channel: str, info: ClientInfo) -> None: ...

    def presence_remove_now(self, channel: str, info: ClientInfo) -> None: ...


class Engine(ABC):
    """Broker, history and presence of one node.

    ``immediate`` is what spares the commonest commands a coroutine for each operation, where the
    engine can do without.
    """

    immediate: Immediate | None = None

    @abstractmethod
    async def start(self, events: Events) -> None:
        """Connect, and deliver to ``events`` from now on."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of everything. No event comes after it."""

    def tick(self) -> None:  # noqa: B027, most engines have nothing to do
        """Called about once a second. Must not block."""

    @abstractmethod
    async def publish(
        self,
        channel: str,
        publication: Publication,
        history: HistorySettings | None,
        once: Once | None = None,
    ) -> StreamPosition:
        """Deliver to all nodes and, with ``history``, keep it: this sets ``publication.offset``.

        ``publication.delta`` goes to the nodes, and is not set in what is kept.
        Returns the place of the publication, or an empty position without history; for one that
        was not made because of ``once``, the place that stands.
        """

    @abstractmethod
    async def publish_join(self, channel: str, info: ClientInfo) -> None:
        """Tell all nodes that a client came into the channel."""

    @abstractmethod
    async def publish_leave(self, channel: str, info: ClientInfo) -> None:
        """Tell all nodes that a client left the channel."""

    @abstractmethod
    async def subscribe(self, channel: str) -> None:
        """Return once events of the channel reach this node. Doing it twice is no error."""

    @abstractmethod
    async def unsubscribe(self, channel: str) -> None:
        """Stop delivering events of the channel. Doing it twice is no error."""

    @abstractmethod
    async def presence_add(self, channel: str, info: ClientInfo) -> None:
        """Put a client into the channel's presence, or keep it there."""

    @abstractmethod
    async def presence_remove(self, channel: str, info: ClientInfo) -> None:
        """Take a client out of the channel's presence, if it is there."""

    @abstractmethod
    async def presence(self, channel: str) -> dict[str, ClientInfo]:
        """The clients in the channel, on all nodes, by client id."""

    @abstractmethod
    async def presence_stats(self, channel: str) -> PresenceStats:
        """How many clients and users are in the channel, on all nodes."""

    @abstractmethod
    async def history(
        self, channel: str, query: HistoryQuery, settings: HistorySettings
    ) -> tuple[list[Publication], StreamPosition]:
        """Publications kept of the channel, and its newest position."""

    @abstractmethod
    async def history_remove(self, channel: str) -> None:
        """Forget the publications kept of the channel; offsets go on from where they are."""
