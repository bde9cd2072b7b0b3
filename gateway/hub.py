"""This process's channels, and who is to get what is said in them.

A publication is encoded once for each protocol and framed once for each endpoint, whatever the
number of subscribers; from there on it is the transport's loop in C. Nothing here touches a
subscriber, except when something was lost on the way to it.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from gateway.channels.deltas import patch
from gateway.channels.filters import TagFilter
from gateway.channels.lagging import Lag, LagPolicy
from gateway.model import ClientInfo, Publication, StreamPosition
from gateway.protocols.base import ClientProtocol
from gateway.room import Room
from gateway.session import Session, Subscription
from gateway.transports.base import GONE, Endpoint, Transport

# How publications come to a subscriber.
PLAIN = 0
WHOLE = 1  # it takes deltas, and has no base for one yet
DELTA = 2  # it has had the publication before


class Audience(Struct, eq=False):
    """Subscribers who get the same bytes: they came through the same door and want the same."""

    endpoint: Endpoint
    positioned: bool  # they are told when something was lost
    filter: TagFilter | None
    form: int
    members: dict[Transport, Subscription]

    def is_for(
        self, endpoint: Endpoint, positioned: bool, wanted: TagFilter | None, form: int
    ) -> bool:
        return (
            self.endpoint is endpoint
            and self.positioned is positioned
            and self.form == form
            and (self.filter is wanted or self.filter == wanted)
        )


class Channel(Struct, eq=False):
    """A channel with subscribers in this process, or one about to have the first.

    ``position`` is that of the newest publication which has come by here; None until there is one,
    or a subscriber who knows it.
    """

    name: str
    live: bool = False  # the engine delivers this channel to us
    excludes_publisher: bool = False
    lag_policy: LagPolicy | None = None  # None: slow readers are closed
    # Slow readers, for whom publications wait; they are in no audience meanwhile.
    lagging: dict[Transport, Lag] | None = None
    users: int = 0  # sessions that are in it or on their way into it
    subscribers: tuple[Audience, ...] = ()
    watchers: tuple[Audience, ...] = ()  # subscribers who are told of join and leave
    position: StreamPosition | None = None
    # Data of the newest publication, once somebody takes deltas: what those in `DELTA` have.
    base: bytes | None = None
    # What is published while a subscriber reads its history, for each of them.
    joining: tuple[list[Publication], ...] = ()
    # Subscribers whose history was ahead of what has come by here, and where it ended.
    newcomers: tuple[tuple[Subscription, int], ...] = ()

    @property
    def num_subscribers(self) -> int:
        waiting = len(self.newcomers) + len(self.lagging or ())
        return sum(len(each.members) for each in self.subscribers) + waiting


def _enter(audiences: tuple[Audience, ...], subscription: Subscription) -> tuple[Audience, ...]:
    """Let a subscriber have what follows; a delta only from a publication that comes to it here."""
    session, terms = subscription.session, subscription.terms
    endpoint, positioned = session.endpoint, subscription.positioned
    form = WHOLE if terms.delta else PLAIN
    for audience in audiences:
        if audience.is_for(endpoint, positioned, terms.filter, form):
            audience.members[session.transport] = subscription
            return audiences
    members = {session.transport: subscription}
    audiences += (Audience(endpoint, positioned, terms.filter, form, members),)
    return audiences


def _leave(audiences: tuple[Audience, ...], subscription: Subscription) -> tuple[Audience, ...]:
    """Take a subscriber out of the one of these that it is in, if it is."""
    transport = subscription.session.transport
    for audience in audiences:
        if audience.members.pop(transport, None) is not None:
            if not audience.members:
                return tuple([other for other in audiences if other is not audience])
            break
    return audiences


class Hub:
    """Channels by name. ``deliveries`` counts messages handed to subscribers.

    The node sets two functions. ``on_gap`` gets the subscriptions that have lost a publication.
    ``transport_of`` gives the transport of a client by its id.
    """

    def __init__(self) -> None:
        self.channels: dict[str, Channel] = {}
        self.subscriptions = 0
        self.deliveries = 0
        self.deltas = 0  # of them, those that were deltas
        self.gaps = 0
        self.lagging = 0  # subscriptions whose client reads too slowly, now
        self.dropped = 0  # publications left out for them
        self.on_gap: Callable[[list[Subscription]], None] = lambda lost: None
        self.transport_of: Callable[[str], Transport] = lambda client: GONE
        self._room = Room()

    def tick(self) -> bool:
        """Called about once a second. True when most of a great many channels have gone."""
        before = self.channels
        self.channels = self._room.refit(before)
        return self.channels is not before

    def reserve(self, name: str) -> Channel:
        """The channel of this name, kept alive for one more session until `release`."""
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = Channel(name)
        channel.users += 1
        return channel

    def release(self, channel: Channel) -> bool:
        """Take back a `reserve`. True when nobody is left: the channel is gone."""
        channel.users -= 1
        if channel.users == 0:
            del self.channels[channel.name]
            return True
        return False

    def begin(self, channel: Channel) -> list[Publication]:
        """Keep what is published from now on until `end`, for one who reads the history."""
        kept: list[Publication] = []
        channel.joining = (*channel.joining, kept)
        return kept

    def end(self, channel: Channel, kept: list[Publication]) -> None:
        channel.joining = tuple(other for other in channel.joining if other is not kept)

    def add(self, subscription: Subscription, position: StreamPosition | None = None) -> None:
        """Let a session have what is published in a channel that was reserved for it.

        With ``position`` it has everything up to there, and gets what follows without a gap.
        """
        channel, session = subscription.channel, subscription.session
        session.subscriptions += (subscription,)
        self.subscriptions += 1
        if subscription.terms.push_join_leave:
            channel.watchers = _enter(channel.watchers, subscription)
        if position is not None:
            seen = channel.position
            if seen is None:
                channel.position = position
            elif seen.epoch == position.epoch and seen.offset < position.offset:
                channel.newcomers = (*channel.newcomers, (subscription, position.offset))
                return
        channel.subscribers = _enter(channel.subscribers, subscription)

    def remove(self, subscription: Subscription) -> bool:
        """Take a session out of a channel that it is in. True when the channel is gone with it."""
        channel, session = subscription.channel, subscription.session
        mine = session.subscriptions
        session.subscriptions = (
            mine[:-1]
            if mine[-1] is subscription
            else tuple([other for other in mine if other is not subscription])
        )
        self.subscriptions -= 1
        if channel.lagging and session.transport in channel.lagging:
            del channel.lagging[session.transport]
            self.lagging -= 1
        if channel.users == 1:  # nobody else is in any of these
            channel.subscribers = channel.watchers = channel.newcomers = ()
            channel.users = 0
            del self.channels[channel.name]
            return True
        channel.users -= 1
        channel.subscribers = _leave(channel.subscribers, subscription)
        if channel.newcomers:
            channel.newcomers = tuple(
                pair for pair in channel.newcomers if pair[0] is not subscription
            )
        if subscription.terms.push_join_leave:
            channel.watchers = _leave(channel.watchers, subscription)
        return False

    # -- what the engine brings (gateway.engines.Events)

    def on_publication(self, channel: str, publication: Publication, epoch: str) -> None:
        known = self.channels.get(channel)
        if known is None:
            return
        is_new = True
        if publication.offset:
            for kept in known.joining:
                kept.append(publication)
            is_new = self._follow(known, publication.offset, epoch)
        audiences = known.subscribers
        if not is_new:
            audiences = tuple(each for each in audiences if not each.positioned)
        if audiences or known.lagging:
            self._publish(known, audiences, publication)

    def _follow(self, channel: Channel, offset: int, epoch: str) -> bool:
        """Note a publication with a place in history. False if it has come by already."""
        seen = channel.position
        channel.position = StreamPosition(offset, epoch)
        if seen is None:
            pass
        elif seen.epoch != epoch or offset > seen.offset + 1:
            self._lose(channel)
        elif offset <= seen.offset:
            channel.position = seen
            return False
        if channel.newcomers:
            self._welcome(channel, offset)
        return True

    def _welcome(self, channel: Channel, offset: int) -> None:
        """Newcomers who have all that came before this publication get it as the others do."""
        waiting, channel.newcomers = channel.newcomers, ()
        lost = []
        for subscription, last in waiting:
            if offset <= last:
                channel.newcomers = (*channel.newcomers, (subscription, last))
            elif offset == last + 1:
                channel.subscribers = _enter(channel.subscribers, subscription)
            else:
                lost.append(subscription)
        if lost:
            self._tell_lost(lost)

    def lose(self, channel: Channel, position: StreamPosition) -> None:
        """The engine has gone on to a position that has not come by here: tell who relies on it."""
        self._lose(channel)
        channel.position = position

    def _lose(self, channel: Channel) -> None:
        lost = [
            subscription
            for audience in channel.subscribers
            if audience.positioned
            for subscription in audience.members.values()
        ]
        if lost:
            self._tell_lost(lost)

    def _tell_lost(self, lost: list[Subscription]) -> None:
        self.gaps += len(lost)
        self.on_gap(lost)

    def on_join(self, channel: str, info: ClientInfo) -> None:
        known = self.channels.get(channel)
        if known is not None and known.watchers:
            self._fan_out(known.watchers, lambda to: to.join(channel, info))

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        known = self.channels.get(channel)
        if known is not None and known.watchers:
            self._fan_out(known.watchers, lambda to: to.leave(channel, info))

    def _publish(
        self, channel: Channel, audiences: tuple[Audience, ...], publication: Publication
    ) -> None:
        may_patch, publication.delta = publication.delta, False
        if len(audiences) > 1 or (audiences and audiences[0].filter is not None):
            audiences = tuple(
                audience
                for audience in audiences
                if audience.filter is None or audience.filter.accepts(publication.tags)
            )
        left_out = None
        if channel.excludes_publisher and publication.info is not None:
            publisher = self.transport_of(publication.info.client)
            # Taken out for the time of this call, which is cheaper than to make a new audience.
            for audience in audiences:
                left_out = left_out or audience.members.pop(publisher, None)
        try:
            if channel.lag_policy is not None:
                self._publish_lagging(channel, channel.lag_policy, audiences, publication)
                # Who may lose nothing unknowingly is closed instead, and recovers.
                audiences = tuple(audience for audience in audiences if audience.positioned)
            if len(audiences) > 1 or (audiences and audiences[0].form):
                deltas = tuple(audience for audience in audiences if audience.form)
                if deltas:
                    self._publish_deltas(channel, deltas, publication, may_patch)
                    audiences = tuple(audience for audience in audiences if not audience.form)
            self._fan_out(audiences, lambda to: to.publication(channel.name, publication))
        finally:
            if left_out is not None:  # its audience may have lost all others meanwhile
                channel.subscribers = _enter(channel.subscribers, left_out)

    def _publish_lagging(
        self,
        channel: Channel,
        policy: LagPolicy,
        audiences: tuple[Audience, ...],
        publication: Publication,
    ) -> None:
        """Send to those who read fast enough, and let it wait for the others."""
        frames: dict[int, bytes] = {}

        def frame_for(protocol: ClientProtocol) -> bytes:
            frame = frames.get(id(protocol))
            if frame is None:
                frame = frames[id(protocol)] = protocol.publication(channel.name, publication)
            return frame

        lagging = channel.lagging
        if lagging:
            publisher = None
            if channel.excludes_publisher and publication.info is not None:
                publisher = self.transport_of(publication.info.client)
            for transport, lag in lagging.items():
                wanted = lag.subscription.terms.filter
                if transport is publisher or (
                    wanted is not None and not wanted.accepts(publication.tags)
                ):
                    continue
                frame = frame_for(lag.subscription.session.endpoint.protocol)
                self.dropped += lag.add(frame, publication.tags)
        for audience in audiences:
            if audience.positioned:
                continue
            frame = frame_for(audience.endpoint.protocol)
            full = audience.endpoint.fan_out_ready(audience.members, frame)
            self.deliveries += len(audience.members) - len(full)
            for transport in full:
                if lagging is None:
                    lagging = channel.lagging = {}
                subscription = audience.members.pop(transport)
                lag = lagging[transport] = Lag(subscription, policy)
                lag.add(frame, publication.tags)
                self.lagging += 1

    def drained(self, session: Session) -> None:
        """A client's transport can take more again: what waited for it goes first."""
        for subscription in session.subscriptions:
            channel = subscription.channel
            lagging = channel.lagging
            lag = lagging.get(session.transport) if lagging else None
            if lag is None or lagging is None:
                continue
            while (frame := lag.first()) is not None:
                if session.endpoint.fan_out_ready((session.transport,), frame):
                    return
                lag.pop()
                self.deliveries += 1
            del lagging[session.transport]
            self.lagging -= 1
            channel.subscribers = _enter(channel.subscribers, subscription)

    def _publish_deltas(
        self,
        channel: Channel,
        audiences: tuple[Audience, ...],
        publication: Publication,
        may_patch: bool,
    ) -> None:
        """Send a publication to those who take deltas: one delta for all who can have it."""
        base, data = channel.base, bytes(publication.data)
        channel.base = data
        name = channel.name
        ready = tuple(audience for audience in audiences if audience.form == DELTA)
        delta = patch(base, data) if ready and may_patch else None
        if delta is not None:
            audiences = tuple(audience for audience in audiences if audience.form == WHOLE)
            self.deltas += sum(len(audience.members) for audience in ready)
            self._fan_out(ready, lambda to: to.publication(name, to.in_delta(publication, delta)))
        self._fan_out(audiences, lambda to: to.publication(name, to.in_delta(publication, None)))
        for audience in audiences:
            if audience.form == WHOLE:
                self._now_ready(channel, audience)

    @staticmethod
    def _now_ready(channel: Channel, audience: Audience) -> None:
        """These have what is now the base."""
        for other in channel.subscribers:
            if other.is_for(audience.endpoint, audience.positioned, audience.filter, DELTA):
                other.members.update(audience.members)
                channel.subscribers = tuple(
                    each for each in channel.subscribers if each is not audience
                )
                return
        audience.form = DELTA

    def _fan_out(
        self, audiences: tuple[Audience, ...], encode: Callable[[ClientProtocol], bytes]
    ) -> None:
        encoded: dict[int, bytes] = {}
        for audience in audiences:
            protocol = audience.endpoint.protocol
            payload = encoded.get(id(protocol))
            if payload is None:
                payload = encoded[id(protocol)] = encode(protocol)
            self.deliveries += len(audience.members)
            audience.endpoint.fan_out(audience.members, payload)
