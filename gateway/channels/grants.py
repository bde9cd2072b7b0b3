"""What a client was allowed when it subscribed: the channel's options, its token, its wishes."""

from __future__ import annotations

from enum import IntEnum

from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.auth.revocation import TokenMark
from gateway.auth.tokens import Flag, Override
from gateway.channels.filters import TagFilter
from gateway.config import ChannelOptions


class Source(IntEnum):
    """Where a subscription comes from. Numbers are Centrifugo's."""

    CONNECTION_TOKEN = 1
    CONNECT_PROXY = 2
    SUBSCRIPTION_TOKEN = 3
    SUBSCRIBE_PROXY = 4
    USER_LIMITED = 5
    CLIENT_ALLOWED = 6
    CLIENT_INSECURE = 7
    UNI_CONNECT = 8
    USER_PERSONAL = 9
    SERVER_API = 10


class Grant(Struct, gc=False):
    """The terms of one subscription."""

    source: Source
    presence: bool = False  # it is seen in the channel's presence
    join_leave: bool = False  # others are told that it comes and goes
    push_join_leave: bool = False  # it is told of others
    positioning: bool = False  # nothing may be lost on the way to it without it being told
    recovery: bool = False  # it may ask for what it missed
    cache: bool = False  # recovery means the newest publication only
    auto_recover: bool = False  # it is recovered without asking
    must_recover: bool = False  # it is refused if that is not possible
    info: Raw | UnsetType = UNSET  # attached to the client in this channel
    data: Raw | UnsetType = UNSET  # told to the client when it is subscribed
    expire_at: float = 0.0  # Unix time; 0 for never
    filter: TagFilter | None = None
    delta: bool = False  # publications come as deltas where that is shorter
    token: TokenMark | None = None  # the subscription token by which it is there


def grant(options: ChannelOptions, source: Source, override: Override | None = None) -> Grant:
    """The terms that a channel gives to everybody, changed by a token or a backend."""

    if override is None:
        recovery = options.force_recovery
        return Grant(
            source,
            options.presence,
            options.join_leave,
            options.force_push_join_leave,
            options.force_positioning,
            recovery,
            cache=options.force_recovery_mode == "cache",
            auto_recover=recovery and options.auto_cache_recover,
        )

    def choose(flag: Flag | None, default: bool) -> bool:
        return default if flag is None else flag.value

    recovery = choose(override.force_recovery, options.force_recovery)
    return Grant(
        source,
        choose(override.presence, options.presence),
        choose(override.join_leave, options.join_leave),
        choose(override.force_push_join_leave, options.force_push_join_leave),
        choose(override.force_positioning, options.force_positioning),
        recovery,
        cache=options.force_recovery_mode == "cache",
        auto_recover=recovery and options.auto_cache_recover,
    )
