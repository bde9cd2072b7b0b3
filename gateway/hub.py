"""This process's channels, and who is to get what is said in them.

A publication is encoded once for each protocol and framed once for each endpoint, whatever the
number of subscribers; from there on it is the transport's loop in C. Nothing here touches a
subscriber.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.model import ClientInfo, Publication
from gateway.protocols.base import ClientProtocol
from gateway.session import Session
from gateway.transports.base import Endpoint, Transport


class Audience:
    """Clients who came through the same door, and so get the same bytes."""

    __slots__ = ("endpoint", "transports")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.transports: set[Transport] = set()


class Channel:
    """A channel with subscribers in this process, or one about to have the first."""

    __slots__ = ("live", "name", "subscribers", "users", "watchers")

    def __init__(self, name: str) -> None:
        self.name = name
        self.live = False  # the engine delivers this channel to us
        self.users = 0  # sessions that are in it or on their way into it
        self.subscribers: tuple[Audience, ...] = ()
        self.watchers: tuple[Audience, ...] = ()  # subscribers who asked for join and leave


def _add(audiences: tuple[Audience, ...], session: Session) -> tuple[Audience, ...]:
    for audience in audiences:
        if audience.endpoint is session.endpoint:
            audience.transports.add(session.transport)
            return audiences
    audience = Audience(session.endpoint)
    audience.transports.add(session.transport)
    return (*audiences, audience)


def _remove(audiences: tuple[Audience, ...], session: Session) -> tuple[Audience, ...]:
    for audience in audiences:
        if audience.endpoint is session.endpoint:
            audience.transports.discard(session.transport)
            if not audience.transports:
                return tuple(other for other in audiences if other is not audience)
    return audiences


class Hub:
    """Channels by name. ``deliveries`` counts messages handed to subscribers."""

    def __init__(self) -> None:
        self.channels: dict[str, Channel] = {}
        self.subscriptions = 0
        self.deliveries = 0

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

    def add(self, channel: Channel, session: Session, *, join_leave: bool) -> None:
        """Let a session have what is published in a channel that was reserved for it."""
        channel.subscribers = _add(channel.subscribers, session)
        if join_leave:
            channel.watchers = _add(channel.watchers, session)
        session.channels = (*session.channels, channel)
        self.subscriptions += 1

    def remove(self, channel: Channel, session: Session) -> None:
        """Take a session out of a channel that it is in."""
        channel.subscribers = _remove(channel.subscribers, session)
        channel.watchers = _remove(channel.watchers, session)
        session.channels = tuple(other for other in session.channels if other is not channel)
        self.subscriptions -= 1

    # -- what the engine brings (gateway.engines.Events)

    def on_publication(self, channel: str, publication: Publication) -> None:
        known = self.channels.get(channel)
        if known is not None:
            self._fan_out(known.subscribers, lambda to: to.publication(channel, publication))

    def on_join(self, channel: str, info: ClientInfo) -> None:
        known = self.channels.get(channel)
        if known is not None and known.watchers:
            self._fan_out(known.watchers, lambda to: to.join(channel, info))

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        known = self.channels.get(channel)
        if known is not None and known.watchers:
            self._fan_out(known.watchers, lambda to: to.leave(channel, info))

    def _fan_out(
        self, audiences: tuple[Audience, ...], encode: Callable[[ClientProtocol], bytes]
    ) -> None:
        encoded: dict[int, bytes] = {}
        for audience in audiences:
            protocol = audience.endpoint.protocol
            payload = encoded.get(id(protocol))
            if payload is None:
                payload = encoded[id(protocol)] = encode(protocol)
            self.deliveries += len(audience.transports)
            audience.endpoint.fan_out(audience.transports, payload)
