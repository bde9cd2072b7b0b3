"""Commands and replies of the Centrifuge protocol (version 2, JSON), by the names on the wire.

A frame holds one or more JSON objects, one to a line. Commands carry an ``id`` from 1 and exactly
one request; the reply has the same id. A reply without an id is a push; an empty object is a ping,
and its answer. Unknown fields are ignored, so that newer clients work. What is empty or zero is
left out.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from gateway.codes import Error, Unsubscribe
from gateway.model import (
    ClientInfo,
    Expiry,
    Offset,
    Publication,
    Subscribed,
    SubscribeRequest,
)

_Uint32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
_Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]

# -- from the client


class Recovery(Struct, gc=False):
    recover: bool = False
    epoch: str = ""
    offset: Offset = 0


class ConnectRequest(Struct, gc=False):
    token: str = ""
    data: Raw | UnsetType = UNSET
    subs: dict[str, Recovery] = {}  # server-side subscriptions that it had, and where it left off
    name: str = ""
    version: str = ""
    headers: dict[str, str] = {}  # as if of the opening request, which browsers let nobody set


class ChannelRequest(Struct, gc=False):
    """unsubscribe, presence and presence_stats."""

    channel: str = ""


class PublishRequest(Struct, gc=False):
    channel: str = ""
    data: Raw | UnsetType = UNSET
    type: int = 0  # of what the channel holds; ours are streams


class Position(Struct, gc=False):
    offset: Offset = 0
    epoch: str = ""


class HistoryRequest(Struct, gc=False):
    channel: str = ""
    limit: _Int32 = 0
    since: Position | None = None
    reverse: bool = False


class RpcRequest(Struct, gc=False):
    method: str = ""
    data: Raw | UnsetType = UNSET


class SendRequest(Struct, gc=False):
    data: Raw | UnsetType = UNSET


class TokenRequest(Struct, gc=False):
    """refresh, and with a channel sub_refresh."""

    token: str = ""
    channel: str = ""


class Anything(Struct, gc=False):
    """A request whose content does not matter to us."""


class Command(Struct, gc=False):
    id: _Uint32 = 0
    connect: ConnectRequest | None = None
    subscribe: SubscribeRequest | None = None
    unsubscribe: ChannelRequest | None = None
    publish: PublishRequest | None = None
    presence: ChannelRequest | None = None
    presence_stats: ChannelRequest | None = None
    history: HistoryRequest | None = None
    rpc: RpcRequest | None = None
    ping: Anything | None = None
    send: SendRequest | None = None
    refresh: TokenRequest | None = None
    sub_refresh: TokenRequest | None = None


# -- to the client


class Empty(Struct, frozen=True, gc=False):
    pass


EMPTY = Empty()


class ConnectResult(Struct, gc=False, omit_defaults=True):
    client: str
    version: str
    expires: bool = False
    ttl: int = 0  # seconds until the client has to refresh
    data: Raw | UnsetType = UNSET  # from the application
    subs: dict[str, Subscribed] = {}  # server-side subscriptions
    ping: int = 0  # seconds between pings of ours; the client gives us up when none comes
    pong: bool = False  # whether it has to answer them
    time: int = 0  # Unix time in milliseconds


class RefreshResult(Struct, gc=False, omit_defaults=True):
    client: str
    version: str
    expires: bool = False
    ttl: int = 0


class PresenceResult(Struct, gc=False):
    presence: dict[str, ClientInfo]


class PresenceStatsResult(Struct, gc=False):
    num_clients: int
    num_users: int


class HistoryResult(Struct, gc=False):
    publications: list[Publication]
    epoch: str
    offset: int


class RpcResult(Struct, gc=False, omit_defaults=True):
    data: Raw | UnsetType = UNSET


class Reply(Struct, gc=False, omit_defaults=True):
    id: int
    error: Error | None = None
    connect: ConnectResult | None = None
    subscribe: Subscribed | None = None
    unsubscribe: Empty | None = None
    publish: Empty | None = None
    presence: PresenceResult | None = None
    presence_stats: PresenceStatsResult | None = None
    history: HistoryResult | None = None
    ping: Empty | None = None
    rpc: RpcResult | None = None
    refresh: RefreshResult | None = None
    sub_refresh: Expiry | None = None


class WithInfo(Struct, gc=False):
    """The content of a join or leave push."""

    info: ClientInfo


class Message(Struct, gc=False):
    """The content of a message push."""

    data: Raw


class Push(Struct, gc=False, omit_defaults=True):
    channel: str = ""
    pub: Publication | None = None
    join: WithInfo | None = None
    leave: WithInfo | None = None
    unsubscribe: Unsubscribe | None = None
    message: Message | None = None
    subscribe: Subscribed | None = None
    refresh: Expiry | None = None


class PushReply(Struct, gc=False):
    push: Push
