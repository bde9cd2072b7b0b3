"""Which webhook is for what: that of each event, and those that namespaces name instead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from gateway.config.sections import ChannelOptions, Config, Proxy

# Events of channels, which have `…_proxy_enabled` and `…_proxy_name` in a channel's options.
_CHANNEL_EVENTS = ("subscribe", "publish", "sub_refresh")


class EventProxy(NamedTuple):
    """The webhook that an event has."""

    event: str
    key: str  # its section
    proxy: Proxy


class Choice(NamedTuple):
    """What a namespace says of an event."""

    event: str
    key: str  # that has the name
    name: str
    enabled: bool


def event_proxies(config: Config) -> list[EventProxy]:
    """The webhooks of all events, enabled or not."""
    client, channel = config.client.proxy, config.channel.proxy
    return [
        EventProxy("connect", "client.proxy.connect", client.connect),
        EventProxy("refresh", "client.proxy.refresh", client.refresh),
        EventProxy("disconnect", "client.proxy.disconnect", client.disconnect),
        EventProxy("subscribe", "channel.proxy.subscribe", channel.subscribe),
        EventProxy("publish", "channel.proxy.publish", channel.publish),
        EventProxy("sub_refresh", "channel.proxy.sub_refresh", channel.sub_refresh),
        EventProxy("rpc", "rpc.proxy", config.rpc.proxy),
    ]


def channel_options(config: Config) -> Iterator[tuple[str, ChannelOptions]]:
    """Options of channels, each with its section."""
    yield "channel.without_namespace", config.channel.without_namespace
    for each in config.channel.namespaces:
        yield f"channel.namespaces.{each.name}", each


def choices(config: Config) -> Iterator[Choice]:
    """Every place where a proxy can be named."""
    for section, options in channel_options(config):
        for event in _CHANNEL_EVENTS:
            key = f"{event}_proxy_name"
            enabled = getattr(options, f"{event}_proxy_enabled")
            yield Choice(event, f"{section}.{key}", getattr(options, key), enabled)
    outside, namespaces = config.rpc.without_namespace, config.rpc.namespaces
    key = "rpc.without_namespace.proxy_name"
    yield Choice("rpc", key, outside.proxy_name, outside.proxy_enabled)
    for each in namespaces:
        key = f"rpc.namespaces.{each.name}.proxy_name"
        yield Choice("rpc", key, each.proxy_name, each.proxy_enabled)
